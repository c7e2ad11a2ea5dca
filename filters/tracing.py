"""tracing: the share of a route's requests that are traced. The section `telemetry` says where the spans go."""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3 import route_components_pb2
from envoy.type.v3 import percent_pb2

from filters.language import Percent
from filters.language.options import OFF
from filters.policy import Context, Policy, RoutePart, Stage


class Tracing(Policy[Any]):
    """Compiled into the sampling of the route."""

    key = "tracing"
    stage = Stage.RESPOND
    settings = Percent
    on_by_default = True

    def on_route(self, settings: Any, context: Context) -> RoutePart:
        return RoutePart(tracing=_sampling(settings))

    def explain(self, settings: Any, context: Context) -> str:
        return "no request is traced" if settings is OFF else self.enforced_by


def _sampling(settings: Any) -> route_components_pb2.Tracing:
    """Return the sampling of a route. `off` traces no request, also if its client began a trace."""
    if settings is OFF:
        return route_components_pb2.Tracing(
            client_sampling=_share(0), random_sampling=_share(0), overall_sampling=_share(0)
        )
    return route_components_pb2.Tracing(random_sampling=_share(settings))


def _share(percent: float) -> percent_pb2.FractionalPercent:
    denominator = percent_pb2.FractionalPercent.MILLION
    return percent_pb2.FractionalPercent(numerator=round(percent * 10_000), denominator=denominator)
