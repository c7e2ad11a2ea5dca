"""usage: a route on which a consumer reads its own limits and what is left of them, answered by the policy server.

Envoy asks by ext_authz, which runs where the gateway answers itself; the refusal that comes back is the answer. Nothing
is counted.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from inspect import isawaitable
from typing import Any

from envoy.config.core.v3 import grpc_service_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2
from google.protobuf import duration_pb2

from filters.credentials import methods
from filters.ext_authz.names import FILTER, USAGE
from filters.language import Mistake
from filters.policy import NOTHING, POLICY_SERVER, Context, Policy, RoutePart, Stage
from filters.rate_limit import answer, descriptors
from filters.rate_limit.calendar import SECOND
from filters.rate_limit.limiter import Decision, Figure, Hit
from filters.rate_limit.policy import OnRoute, on_route
from filters.rate_limit.rules import Counted
from filters.rate_limit.service import RateLimits, key

TIMEOUT = duration_pb2.Duration(nanos=500_000_000)


class Usage(Policy[bool]):
    """Tells of the limits that apply where it is written: those of outer levels, sets and the consumer's plan."""

    key = "usage"
    stage = Stage.AUTHORIZE
    settings = bool
    enforced_by = "policy server, asked by Envoy"

    def check(self, settings: bool, context: Context) -> Iterator[Mistake]:
        """Yield mistakes for a route on which there is nobody, or nothing, to tell of."""
        if settings and not methods(context.beside):
            yield Mistake("nobody is identified here", "add a way to authenticate, such as api_key: true")
        elif settings and not on_route(context).written:
            yield Mistake("no limits of consumers apply here", "write some, on plans for example")
        if settings and "ext_authz" in context.beside:
            yield Mistake(
                "'ext_authz' is answered by Envoy's same filter", "keep one, or write ext_authz: off"
            )

    def on_route(self, settings: bool, context: Context) -> RoutePart:
        if not settings:
            return NOTHING
        service = grpc_service_pb2.GrpcService(
            envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=POLICY_SERVER), timeout=TIMEOUT
        )
        checks = ext_authz_pb2.CheckSettings(
            context_extensions={USAGE: _said(on_route(context))}, grpc_service=service
        )
        return RoutePart(filter_configs={FILTER: ext_authz_pb2.ExtAuthzPerRoute(check_settings=checks)})


def _said(found: OnRoute) -> str:
    return json.dumps({"rules": found.rules, "plans": found.plans}, separators=(",", ":"))


def reader(limits: RateLimits) -> Callable[[str, str, str], Awaitable[Mapping[str, Any]]]:
    """What answers for a consumer, its plan and what the route says.

    It raises KeyError for rules that are not here yet, and TimeoutError where the counters cannot be reached.
    """

    async def read(consumer: str, plan: str, said: str) -> Mapping[str, Any]:
        route = json.loads(said)
        found = [one for name in route["rules"] for one in limits.rules.current[name]]
        if route["plans"]:
            found += limits.rules.current.get(f"plan:plan/{plan}", ())
        told = [await _figure(limits, one, consumer) for one in found if _own(one)]
        return {"consumer": consumer, "plan": plan or None, "limits": [_shown(one) for one in told]}

    return read


def _own(counted: Counted) -> bool:
    """Whether it counts a consumer and nothing else, and rejects."""
    return counted.by in ((), ("consumer",)) and not counted.limit.shadow


async def _figure(limits: RateLimits, counted: Counted, consumer: str) -> Figure:
    """How a limit stands. Each is asked for alone, so that an exhausted one hides none; a cost of 0 counts nothing."""
    hit = Hit(counted.limit, key(counted, {descriptors.CONSUMER: consumer}), 0)
    found = limits.store.decide(limits.clock(), [hit])
    decision = await found if isawaitable(found) else found
    assert isinstance(decision, Decision)
    if not decision.figures:
        raise TimeoutError("the counters cannot be reached")
    return decision.figures[0]


def _shown(figure: Figure) -> Mapping[str, Any]:
    limit = figure.limit
    shown = {
        "name": limit.name,
        "unit": limit.unit,
        "limit": answer.capacity(limit),
        "remaining": max(0, figure.remaining),
    }
    if limit.unit == "concurrent-requests":
        return shown
    return {**shown, "window": limit.length // SECOND, "reset": answer.seconds(figure.reset)}
