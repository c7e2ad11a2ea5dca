"""One call: the Check of a policy or of a key lookup decides the limits too, if that gives the same decisions.

The Check must be the last step that can reject a request before its limits. Else limits would count rejected requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import lru_cache

from filters.language.options import OFF
from filters.model.methods import failed, keys_in_policy_server, methods
from filters.policy import Context
from filters.rate_limit import client_headers
from filters.rate_limit.effective import effective_limits, local_places
from filters.reasons import Reason, details

EXTENSION = "limits"
"""The context extension of a Check that decides limits too."""
LIMITED, UNCOUNTED, UNAVAILABLE = "limited", "uncounted", "rate_limit_unavailable"
"""Metadata of a denial: the reason of the limit that rejects, and true if the request could not be counted."""
TIME = timedelta(seconds=1)
"""The time for limits, in addition to the policy's timeout.

It covers the wait of a burst in Envoy and before the store, whose own deadlines are far shorter. A later response would
be too late, because Envoy lets the request pass then.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsQuestion:
    """The limits that a route asks for: the rules by name, the styles of headers, and the inputs of keys and costs.

    `plans` is true if plans count too. `lease` is true if requests at the same time are counted. `strict` is true if
    requests that cannot be counted are rejected.
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
"""Fields whose keys in JSON differ from their names, because policy servers of older versions read the keys too."""


def decides(context: Context) -> bool:
    """True if a Check decides the limits of the route."""
    return policy_decides(context) or key_decides(context)


def policy_decides(context: Context) -> bool:
    """True if the Check of a policy in Python decides the limits.

    It does not with `on_error: allow`, because limits also apply to requests that pass without a decision.
    """
    settings = context.effective.get("ext_authz")
    return (
        getattr(settings, "python", None) is not None
        and getattr(settings, "on_error", None) == "deny"
        and _undisturbed(context)
    )


def key_decides(context: Context) -> bool:
    """True if the API-key lookup decides the limits, because no later step can reject the request.

    The key must be in one header, and limits must not count by headers, because Envoy sends only that header.
    """
    key = context.effective.get("api_key")
    if (
        key is None
        or not keys_in_policy_server(context.consumers, context.subscribers)
        or not _undisturbed(context)
    ):
        return False
    return (
        [*methods(context.effective)] == ["api_key"]
        and not key.optional
        and key.query is None
        and key.cookie is None
        and not any(
            context.effective.get(one) not in (None, OFF, False)
            for one in ("authorize", "decompression", "ext_authz", "usage")
        )
        and not any(one.startswith("header:") for one in effective_limits(context).inputs)
    )


def _undisturbed(context: Context) -> bool:
    """True if there are limits, and none that Envoy applies in between."""
    return context.forwards and not local_places(context) and bool(effective_limits(context).written)


def extensions(context: Context) -> Mapping[str, str]:
    """The context extensions by which such a Check decides limits."""
    return {EXTENSION: encode(context), "route": context.route}


def encode(context: Context) -> str:
    """The question of the route of `context` as JSON."""
    limits = effective_limits(context)
    question = LimitsQuestion(
        rules=limits.rules,
        plans=limits.plans,
        styles=context.effective.get("limit_headers", client_headers.STYLES),
        inputs=tuple(limits.inputs),
        lease=limits.slots,
        strict=limits.strict,
    )
    return question.as_json()


@lru_cache(maxsize=4096)
def decode(text: str) -> LimitsQuestion:
    """The question that `encode` wrote."""
    values = json.loads(text)
    return LimitsQuestion(
        rules=tuple(values["rules"]),
        plans=values["plans"],
        styles=tuple(values["styles"]),
        inputs=tuple(values["looks_at"]),
        lease=values["lease"],
        strict=values["strict"],
    )


def _denied_with(key: str, value: str) -> str:
    denied = details("ext_authz_denied")
    return f"({denied} && metadata.filter_metadata['envoy.filters.http.ext_authz']['{key}'] == {value})"


REASONS = (
    *(
        Reason(
            name=name,
            title=title,
            status=429,
            when=_denied_with(LIMITED, f"'{name}'") + " || " + failed(name),
            own_body=True,
        )
        for name, title in client_headers.TITLES.items()
    ),
    Reason(
        name=UNAVAILABLE,
        title="The rate limit could not be checked",
        status=503,
        when=_denied_with(UNCOUNTED, "true") + " || " + failed(UNAVAILABLE),
    ),
)
"""The reasons of limits that a Check decided.

Envoy sees a denial of a policy, so these come before the policy's own reasons. If the Check looked up a key, the
identity script makes the response.
"""
