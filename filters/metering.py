"""metering: whether the requests of a route are counted for billing, if `telemetry.usage` counts requests."""

from __future__ import annotations

from typing import Any

from google.protobuf import struct_pb2

from filters.language.options import OFF
from filters.log_fields import UNCOUNTED
from filters.policy import Context, Policy, RoutePart, Stage


class Metering(Policy[Any]):
    """Compiled into metadata of the route, which a filter of the usage log reads."""

    key = "metering"
    stage = Stage.RESPOND
    settings = bool
    on_by_default = True

    def on_route(self, settings: Any, context: Context) -> RoutePart:
        counted = settings is True
        return RoutePart() if counted else RoutePart(metadata={UNCOUNTED: struct_pb2.Struct()})

    def explain(self, settings: Any, context: Context) -> str:
        return "no request is counted" if settings is OFF or settings is False else self.enforced_by
