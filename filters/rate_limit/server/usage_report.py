"""The report of a consumer's own limits. Reading the counters counts nothing."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any

from filters.rate_limit import client_headers
from filters.rate_limit.engine.decision import Figure, Hit, LimitDecision
from filters.rate_limit.engine.windows import SECOND
from filters.rate_limit.envoy import descriptors
from filters.rate_limit.limit_rules import Counted, plan_rule
from filters.rate_limit.server.hits import key
from filters.rate_limit.server.service import RateLimits


def reader(limits: RateLimits) -> Callable[[str, str, str], Awaitable[Mapping[str, Any]]]:
    """A function that reports the limits of a consumer, its plan and the route's context extension.

    It raises KeyError for rules that have not arrived yet, and TimeoutError if the counters cannot be reached.
    """

    async def read(consumer: str, plan: str, extension: str) -> Mapping[str, Any]:
        route = json.loads(extension)
        applying = [one for name in route["rules"] for one in limits.rules.current[name]]
        if route["plans"]:
            applying += limits.rules.current.get(plan_rule(plan), ())
        figures = [await _figure(limits, one, consumer) for one in applying if _own(one)]
        return {"consumer": consumer, "plan": plan or None, "limits": [_shown(figure) for figure in figures]}

    return read


def _own(counted: Counted) -> bool:
    """True if it counts by consumer and nothing else, and is not in shadow."""
    return counted.by in ((), ("consumer",)) and not counted.limit.shadow


async def _figure(limits: RateLimits, counted: Counted, consumer: str) -> Figure:
    """The state of a limit.

    Each is a call of its own, so an exhausted limit hides no other. A cost of 0 counts nothing.
    """
    hit = Hit(counted.limit, key(counted, {descriptors.CONSUMER: consumer}), 0)
    answer = limits.store.decide(limits.clock(), [hit])
    decision = await answer if isawaitable(answer) else answer
    assert isinstance(decision, LimitDecision)
    if not decision.figures:
        raise TimeoutError("the counters cannot be reached")
    return decision.figures[0]


def _shown(figure: Figure) -> Mapping[str, Any]:
    limit = figure.limit
    shown = {
        "name": limit.name,
        "unit": limit.unit,
        "limit": client_headers.capacity(limit),
        "remaining": max(0, figure.remaining),
    }
    if limit.unit == "concurrent-requests":
        return shown
    return {**shown, "window": limit.length // SECOND, "reset": client_headers.seconds(figure.reset)}
