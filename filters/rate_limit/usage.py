"""usage: a route on which a consumer reads its own limits and what is left of them, answered by the policy server.

Envoy asks by ext_authz, which runs where the gateway answers itself; the refusal that comes back is the answer. Nothing
is counted.
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
    """Tells of the limits that apply where it is written: those of outer levels, sets and the consumer's plan."""

    key = "usage"
    stage = Stage.AUTHORIZE
    settings = bool
    responds = True
    enforced_by = "policy server, asked by Envoy"

    def check(self, settings: bool, context: Context) -> Iterator[Mistake]:
        """Yield mistakes for a route on which there is nobody, or nothing, to tell of."""
        if settings and not methods(context.effective):
            yield Mistake("nobody is identified here", "add a way to authenticate, such as api_key: true")
        elif settings and not effective_limits(context).written:
            yield Mistake("no limits of consumers apply here", "write some, on plans for example")
        if settings and "ext_authz" in context.effective:
            yield Mistake(
                "'ext_authz' is answered by Envoy's same filter", "keep one, or write ext_authz: off"
            )

    def on_route(self, settings: bool, context: Context) -> RoutePart:
        if not settings:
            return NOTHING
        checks = ext_authz_pb2.CheckSettings(
            context_extensions={USAGE: _said(effective_limits(context))}, grpc_service=grpc_service(TIMEOUT)
        )
        return RoutePart(filter_configs={FILTER: ext_authz_pb2.ExtAuthzPerRoute(check_settings=checks)})


def _said(found: EffectiveLimits) -> str:
    return json.dumps({"rules": found.rules, "plans": found.plans}, separators=(",", ":"))
