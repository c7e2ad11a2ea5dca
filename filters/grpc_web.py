"""grpc_web: browsers send gRPC-Web, and the upstream receives gRPC (the protocol of grpc/grpc-web)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.grpc_web.v3 import grpc_web_pb2
from envoy.extensions.filters.http.header_to_metadata.v3 import header_to_metadata_pb2
from google.protobuf import any_pb2

from filters.language import Shorthand, option
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.reasons import WEB, WEB_CLIENT

FILTER = "envoy.filters.http.grpc_web"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcWebSettings:
    """The only setting turns the policy on."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    enabled: bool = option("True if Envoy translates gRPC-Web into gRPC.", default=True)

    @classmethod
    def short(cls, _value: Any) -> GrpcWebSettings:
        """The settings that ``true`` stands for."""
        return cls()


class GrpcWeb(Policy[GrpcWebSettings]):
    """Compiled into Envoy's grpc_web filter."""

    key = "grpc_web"
    stage = Stage.TRANSCODE
    settings = GrpcWebSettings

    def http_filters(self, used: Iterable[GrpcWebSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (
            HttpFilter(name=WEB_CLIENT, config=_client()),
            HttpFilter(name=FILTER, config=grpc_web_pb2.GrpcWeb()),
        )

    def on_route(self, settings: GrpcWebSettings, context: Context) -> RoutePart:
        if not settings.enabled:
            return RoutePart()
        on = route_components_pb2.FilterConfig(config=any_pb2.Any())  # enables the filter as it is installed
        return RoutePart(filter_configs={WEB_CLIENT: on, FILTER: on})


def _client() -> header_to_metadata_pb2.Config:
    """Note the content type, which Envoy's filter replaces. Responses of the gateway itself depend on it."""
    config = header_to_metadata_pb2.Config()
    rule = config.request_rules.add(header="content-type")
    rule.on_header_present.metadata_namespace, rule.on_header_present.key = WEB_CLIENT, "type"
    rewrite = rule.on_header_present.regex_value_rewrite
    rewrite.pattern.regex, rewrite.substitution = "^application/grpc-web.*$", WEB
    return config
