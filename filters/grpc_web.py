"""grpc_web: browsers send gRPC-Web, and the upstream receives gRPC (the protocol of grpc/grpc-web)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.grpc_web.v3 import grpc_web_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from google.protobuf import any_pb2

from filters.language import Shorthand, option
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.reasons import GRPC_STATUS, REASON_HEADER, grpc_status

FILTER = "envoy.filters.http.grpc_web"
STATUS_FILTER = "xds.grpc_web.status"


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
            HttpFilter(name=STATUS_FILTER, config=_status()),
            HttpFilter(name=FILTER, config=grpc_web_pb2.GrpcWeb()),
        )

    def on_route(self, settings: GrpcWebSettings, context: Context) -> RoutePart:
        if not settings.enabled:
            return RoutePart()
        on = route_components_pb2.FilterConfig(config=any_pb2.Any())  # enables the filter as it is installed
        return RoutePart(filter_configs={FILTER: on, STATUS_FILTER: on})


def _status() -> header_mutation_pb2.HeaderMutation:
    """The gRPC status of a local reply. Without it Envoy's filter sets a status of its own table."""
    answered = "response.headers['content-type'].startsWith('application/grpc-web')"
    own = f"'{REASON_HEADER}' in response.headers"
    option = base_pb2.HeaderValueOption(append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS)
    option.header.key, option.header.value = GRPC_STATUS, grpc_status(f"{answered} && {own}")
    mutations = header_mutation_pb2.Mutations()
    mutations.response_mutations.add(append=option)
    return header_mutation_pb2.HeaderMutation(mutations=mutations)
