"""grpc_bridge and grpc_reverse_bridge: gRPC over HTTP/1.1, from clients and towards services without gRPC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.grpc_http1_bridge.v3 import config_pb2 as bridge_pb2
from envoy.extensions.filters.http.grpc_http1_reverse_bridge.v3 import config_pb2 as reverse_pb2
from google.protobuf import any_pb2

from filters.language import Mistake, Shorthand, option
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage, header

BRIDGE, FRAMING = "envoy.filters.http.grpc_http1_bridge", "xds.grpc_bridge.protobuf"
REVERSE = "envoy.filters.http.grpc_http1_reverse_bridge"
PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeSettings:
    """gRPC over HTTP/1.1: the status comes in response headers instead of trailers."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    protobuf: bool = option(
        f"Requests with the type `{PROTOBUF}` and their responses are messages without gRPC's frame. The type of the "
        "responses stays `application/grpc`.",
        default=False,
    )

    @classmethod
    def short(cls, _value: Any) -> BridgeSettings:
        """The settings that ``true`` stands for."""
        return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReverseBridgeSettings:
    """Messages as bodies of HTTP/1.1 requests. The only setting turns the policy on."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    enabled: bool = option(
        f"True if the upstream gets each message as a body of the type `{PROTOBUF}`.", default=True
    )

    @classmethod
    def short(cls, _value: Any) -> ReverseBridgeSettings:
        """The settings that ``true`` stands for."""
        return cls()


def _on() -> route_components_pb2.FilterConfig:
    """Enable a filter as it is installed."""
    return route_components_pb2.FilterConfig(config=any_pb2.Any())


class GrpcBridge(Policy[BridgeSettings]):
    """Compiled into Envoy's grpc_http1_bridge."""

    key = "grpc_bridge"
    stage = Stage.TRANSCODE
    settings = BridgeSettings
    enforced_by = "Envoy (grpc_http1_bridge)"

    def http_filters(self, used: Iterable[BridgeSettings], context: Context) -> tuple[HttpFilter, ...]:
        framing = bridge_pb2.Config(upgrade_protobuf_to_grpc=True)
        return (HttpFilter(name=BRIDGE, config=bridge_pb2.Config()), HttpFilter(name=FRAMING, config=framing))

    def check(self, settings: BridgeSettings, context: Context) -> Iterator[Mistake]:
        yield from context.needs_http2()

    def on_route(self, settings: BridgeSettings, context: Context) -> RoutePart:
        own = FRAMING if settings.protobuf else BRIDGE
        # servers of gRPC reset requests without it, and clients of HTTP/1.1 do not send it
        return RoutePart(filter_configs={own: _on()}, request_headers=(header("te", "trailers"),))

    def for_local_answers(self, settings: BridgeSettings) -> BridgeSettings | None:
        return None


class GrpcReverseBridge(Policy[ReverseBridgeSettings]):
    """Compiled into Envoy's grpc_http1_reverse_bridge."""

    key = "grpc_reverse_bridge"
    stage = Stage.TRANSCODE
    settings = ReverseBridgeSettings
    enforced_by = "Envoy (grpc_http1_reverse_bridge)"

    def http_filters(self, used: Iterable[ReverseBridgeSettings], context: Context) -> tuple[HttpFilter, ...]:
        config = reverse_pb2.FilterConfig(content_type=PROTOBUF, withhold_grpc_frames=True)
        return (HttpFilter(name=REVERSE, config=config),)

    def check(self, settings: ReverseBridgeSettings, context: Context) -> Iterator[Mistake]:
        for key in ("grpc_transcoding", "grpc_reverse_transcoding", "grpc_bridge"):
            if settings.enabled and key in context.effective:
                yield Mistake(f"'{key}' of this route changes the same messages", "keep one")

    def on_route(self, settings: ReverseBridgeSettings, context: Context) -> RoutePart:
        return RoutePart(filter_configs={REVERSE: _on()}) if settings.enabled else RoutePart()

    def for_local_answers(self, settings: ReverseBridgeSettings) -> ReverseBridgeSettings | None:
        return None
