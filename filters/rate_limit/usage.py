"""usage: a route on which a consumer reads its own limits and what is left of them. The policy server responds.

Envoy calls it by ext_authz, because that filter runs on routes that the gateway answers itself. The denial of the Check
is the response. The request counts for no limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2

from filters.language import Mistake
from filters.model.methods import methods
from filters.policy import NOTHING, Context, Policy, RoutePart, Stage
from filters.policy_server import FILTER, USAGE, grpc_service
from filters.rate_limit.effective import EffectiveLimits, effective_limits

TIMEOUT = timedelta(milliseconds=500)


class Usage(Policy[bool]):
    """Reports the limits that apply to the route: those of outer levels, policy sets and the consumer's plan."""

    key = "usage"
    stage = Stage.AUTHORIZE
    settings = bool
    responds = True
    enforced_by = "policy server, called by Envoy"

    def check(self, settings: bool, context: Context) -> Iterator[Mistake]:
        """Yield mistakes for a route that identifies no consumer, or on which no limit applies."""
        if settings and not methods(context.effective):
            yield Mistake(
                "no consumer is identified here", "add a way to authenticate, such as api_key: true"
            )
        elif settings and not effective_limits(context).written:
            yield Mistake("no limits of consumers apply here", "write some, on plans for example")
        if settings and "ext_authz" in context.effective:
            yield Mistake(
                "'usage' and 'ext_authz' use the same filter of Envoy", "keep one, or write ext_authz: off"
            )

    def on_route(self, settings: bool, context: Context) -> RoutePart:
        if not settings:
            return NOTHING
        checks = ext_authz_pb2.CheckSettings(
            context_extensions={USAGE: _extension(effective_limits(context))},
            grpc_service=grpc_service(TIMEOUT),
        )
        return RoutePart(filter_configs={FILTER: ext_authz_pb2.ExtAuthzPerRoute(check_settings=checks)})


def _extension(found: EffectiveLimits) -> str:
    return json.dumps({"rules": found.rules, "plans": found.plans}, separators=(",", ":"))
