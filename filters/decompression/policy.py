"""decompression: request bodies reach all other policies and the upstream without their content codings.

Envoy's own decompressor passes a part of a body on as if it were the whole one (docs/decisions/079).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from envoy.extensions.filters.http.lua.v3 import lua_pb2
from google.protobuf import struct_pb2, wrappers_pb2

from filters.decompression.names import CONSTANTS, DEFAULT_SIZE, FAILURES, LARGEST_SIZE, SCRIPTS
from filters.language import Shorthand, Size, option
from filters.lua_literals import lua, script
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.policy_server import SERVICE
from filters.reasons import Reason

FILTER = "xds.decompression"
UNAVAILABLE = "decompression_unavailable"
_FAILURES = {
    **FAILURES,
    UNAVAILABLE: ("The request body could not be decoded now", 503),
    "decompression_failed": ("The gateway could not decode the request body", 500),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecompressionSettings:
    """Request bodies with gzip, br, zstd or deflate are decoded. Other codings are rejected with 415."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    max_body: Size = option(
        "The size of the largest compressed body, as it was sent and when it is decoded, 413 above it. Bodies that are "
        "not compressed may have any size.",
        default=Size(DEFAULT_SIZE),
        minimum=1,
        maximum=LARGEST_SIZE,
    )

    @classmethod
    def short(cls, _value: Any) -> DecompressionSettings:
        """The settings that ``true`` stands for."""
        return cls()


class Decompression(Policy[DecompressionSettings]):
    """Compiled into a Lua script in Envoy, which lets the policy server decode, because scripts cannot."""

    key = "decompression"
    stage = Stage.VALIDATE
    settings = DecompressionSettings
    enforced_by = "Envoy (Lua; the policy server decodes)"
    reasons = tuple(
        Reason(
            name=name,
            title=title,
            status=status,
            when=f"metadata.filter_metadata['{FILTER}'].failure == '{name}'",
            own_body=True,
        )
        for name, (title, status) in _FAILURES.items()
    )

    def http_filters(self, used: Iterable[DecompressionSettings], context: Context) -> tuple[HttpFilter, ...]:
        failures = {name: {"title": title, "status": status} for name, (title, status) in _FAILURES.items()}
        config = lua_pb2.Lua(clear_route_cache=wrappers_pb2.BoolValue(value=False))
        config.default_source_code.inline_string = script(
            {**CONSTANTS, "NAMESPACE": FILTER, "UNAVAILABLE": UNAVAILABLE, "FAILURES": failures},
            *SCRIPTS,
            "decompression/decompression.lua",
        )
        return (HttpFilter(name=FILTER, config=config),)

    def on_route(self, settings: DecompressionSettings, context: Context) -> RoutePart:
        filter_context = struct_pb2.Struct()
        filter_context.update({"rule": lua({"limit": int(settings.max_body)})})
        return RoutePart(
            filter_configs={FILTER: lua_pb2.LuaPerRoute(filter_context=filter_context)},
            buffer=int(settings.max_body),
        )

    def internal_services(self, used: Iterable[DecompressionSettings], context: Context) -> Iterable[str]:
        return (SERVICE,) if any(True for _ in used) else ()

    def for_local_answers(self, settings: DecompressionSettings) -> None:
        """Nobody reads the body of a request that the gateway answers itself."""
