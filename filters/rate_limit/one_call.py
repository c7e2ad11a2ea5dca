"""Limits that a Check decides beside identity, so that Envoy asks once: where that is the same, and what it is told.

The Check has to be the last thing that can refuse a request before its limits: else these would count what is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import lru_cache

from filters.language.options import OFF
from filters.model.methods import failed, keys_elsewhere, methods
from filters.policy import Context
from filters.rate_limit import client_headers
from filters.rate_limit.effective import effective_limits, local_places
from filters.reasons import Reason, details

EXTENSION = "limits"
"""The context extension of a Check that decides limits too."""
LIMITED, UNCOUNTED, UNAVAILABLE = "limited", "uncounted", "rate_limit_unavailable"
"""Metadata of a refusal: the reason for which a limit rejects, and that nobody could count."""
TIME = timedelta(seconds=1)
"""What the limits may take, beyond what the policy may take: enough for what a burst waits in Envoy and before the store,
whose own deadlines are far shorter, since Envoy lets pass what comes later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsQuestion:
    """What a route asks: the rules by name and whether plans count, what is told, and what keys and costs look at.

    `lease` says that requests at the same time are counted, `strict` that what nobody can count is refused.
    """

    rules: tuple[str, ...]
    plans: bool
    styles: tuple[str, ...]
    inputs: tuple[str, ...]
    lease: bool
    strict: bool

    def as_json(self) -> str:
        """The text that `decode` reads."""
        values = {_JSON_KEYS.get(key, key): value for key, value in asdict(self).items()}
        return json.dumps(values, separators=(",", ":"))


_JSON_KEYS = {"inputs": "looks_at"}
"""Fields whose keys in JSON are older than their names: policy servers of both versions read them."""


def decides(context: Context) -> bool:
    """Whether a Check decides the limits of the route."""
    return policy_decides(context) or key_decides(context)


def policy_decides(context: Context) -> bool:
    """Whether it is that of a policy in Python.

    Where `on_error` lets requests pass that no policy has seen, limits still hold.
    """
    settings = context.effective.get("ext_authz")
    return (
        getattr(settings, "python", None) is not None
        and getattr(settings, "on_error", None) == "deny"
        and _undisturbed(context)
    )


def key_decides(context: Context) -> bool:
    """Whether it is that which looks up an API key: where the script in Envoy refuses only what the lookup sees too.

    The key stands in one header, and no headers are counted by: Envoy shows no others.
    """
    key = context.effective.get("api_key")
    if key is None or not keys_elsewhere(context.consumers) or not _undisturbed(context):
        return False
    return (
        [*methods(context.effective)] == ["api_key"]
        and not key.optional
        and key.query is None
        and key.cookie is None
        and not any(
            context.effective.get(one) not in (None, OFF, False)
            for one in ("authorize", "ext_authz", "usage")
        )
        and not any(one.startswith("header:") for one in effective_limits(context).inputs)
    )


def _undisturbed(context: Context) -> bool:
    """Whether there are limits, and none that Envoy applies in between."""
    return context.forwards and not local_places(context) and bool(effective_limits(context).written)


def extensions(context: Context) -> Mapping[str, str]:
    """What such a Check is told beside its own question."""
    return {EXTENSION: encode(context), "route": context.route}


def encode(context: Context) -> str:
    """What the Check is told, as JSON."""
    found = effective_limits(context)
    question = LimitsQuestion(
        rules=found.rules,
        plans=found.plans,
        styles=context.effective.get("limit_headers", client_headers.STYLES),
        inputs=tuple(found.inputs),
        lease=found.slots,
        strict=found.strict,
    )
    return question.as_json()


@lru_cache(maxsize=4096)
def decode(text: str) -> LimitsQuestion:
    """What `encode` wrote."""
    found = json.loads(text)
    return LimitsQuestion(
        rules=tuple(found["rules"]),
        plans=found["plans"],
        styles=tuple(found["styles"]),
        inputs=tuple(found["looks_at"]),
        lease=found["lease"],
        strict=found["strict"],
    )


def _told(key: str, value: str) -> str:
    refused = details("ext_authz_denied")
    return f"({refused} && metadata.filter_metadata['envoy.filters.http.ext_authz']['{key}'] == {value})"


REASONS = (
    *(
        Reason(
            name=name,
            title=title,
            status=429,
            when=_told(LIMITED, f"'{name}'") + " || " + failed(name),
            own_body=True,
        )
        for name, title in client_headers.TITLES.items()
    ),
    Reason(
        name=UNAVAILABLE,
        title="The rate limit could not be checked",
        status=503,
        when=_told(UNCOUNTED, "true") + " || " + failed(UNAVAILABLE),
    ),
)
"""The reasons of such refusals, which Envoy takes for those of a policy, so that they stand before its own; or which the
identity script makes, where it has judged the key."""
