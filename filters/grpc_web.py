"""grpc_web: browsers speak gRPC-Web, the upstream sees gRPC (the protocol of grpc/grpc-web)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.grpc_web.v3 import grpc_web_pb2
from google.protobuf import any_pb2

from filters.language import Shorthand, option
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage

FILTER = "envoy.filters.http.grpc_web"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcWebSettings:
    """Nothing to set but that it is on."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    enabled: bool = option("Whether gRPC-Web is translated.", default=True)

    @classmethod
    def short(cls, _value: Any) -> GrpcWebSettings:
        """Read ``true``."""
        return cls()


class GrpcWeb(Policy[GrpcWebSettings]):
    """Compiled into Envoy's grpc_web filter."""

    key = "grpc_web"
    stage = Stage.TRANSCODE
    settings = GrpcWebSettings

    def http_filters(self, used: Iterable[GrpcWebSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (HttpFilter(name=FILTER, config=grpc_web_pb2.GrpcWeb()),)

    def on_route(self, settings: GrpcWebSettings, context: Context) -> RoutePart:
        if not settings.enabled:
            return RoutePart()
        on = route_components_pb2.FilterConfig(config=any_pb2.Any())  # Envoy's way to say: as it is installed
        return RoutePart(filter_configs={FILTER: on})
