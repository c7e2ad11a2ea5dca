"""Limits that a Check decides beside identity, so that Envoy asks once: where that is the same, and what it is told.

The Check has to be the last thing that can refuse a request before its limits: else these would count what is refused.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import lru_cache

from filters.policy import Context
from filters.rate_limit import answer
from filters.rate_limit.applying import local_places, on_route
from filters.reasons import Reason, details

EXTENSION = "limits"
"""The context extension of a Check that decides limits too."""
LIMITED, UNCOUNTED = "limited", "uncounted"
"""Metadata of a refusal: the reason for which a limit rejects, and that nobody could count."""
TIME = timedelta(milliseconds=200)
"""What the limits may take, beyond what the policy may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a route asks: the rules by name and whether plans count, what is told, and what keys and costs look at.

    `lease` says that requests at the same time are counted, `strict` that what nobody can count is refused.
    """

    rules: tuple[str, ...]
    plans: bool
    styles: tuple[str, ...]
    looks_at: tuple[str, ...]
    lease: bool
    strict: bool


def decides(context: Context) -> bool:
    """Whether the Check of the route's policy in Python decides its limits.

    Local limits stand between the two. Where `on_error` lets requests pass that no policy has seen, limits still hold.
    """
    settings = context.beside.get("ext_authz")
    return (
        context.forwards
        and getattr(settings, "python", None) is not None
        and getattr(settings, "on_error", None) == "deny"
        and not local_places(context)
        and bool(on_route(context).written)
    )


def said(context: Context) -> str:
    """What the Check is told, as JSON."""
    found = on_route(context)
    asked = Asked(
        rules=found.rules,
        plans=found.plans,
        styles=context.beside.get("limit_headers", answer.STYLES),
        looks_at=tuple(found.looks_at),
        lease=found.slots,
        strict=found.strict,
    )
    return json.dumps(asdict(asked), separators=(",", ":"))


@lru_cache(maxsize=4096)
def read(text: str) -> Asked:
    """What `said` wrote."""
    found = json.loads(text)
    return Asked(
        rules=tuple(found["rules"]),
        plans=found["plans"],
        styles=tuple(found["styles"]),
        looks_at=tuple(found["looks_at"]),
        lease=found["lease"],
        strict=found["strict"],
    )


def _told(key: str, value: str) -> str:
    refused = details("ext_authz_denied")
    return f"{refused} && metadata.filter_metadata['envoy.filters.http.ext_authz']['{key}'] == {value}"


REASONS = (
    *(
        Reason(name=name, title=title, status=429, when=_told(LIMITED, f"'{name}'"), own_body=True)
        for name, title in answer.TITLES.items()
    ),
    Reason(
        name="rate_limit_unavailable",
        title="Nobody could count the request",
        status=503,
        when=_told(UNCOUNTED, "true"),
    ),
)
"""The reasons of such refusals, which Envoy takes for those of a policy: so they stand before its own."""
