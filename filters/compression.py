"""compression: Envoy compresses response bodies for clients that accept it (RFC 9110 section 12.5.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.compression.brotli.compressor.v3 import brotli_pb2
from envoy.extensions.compression.gzip.compressor.v3 import gzip_pb2
from envoy.extensions.compression.zstd.compressor.v3 import zstd_pb2
from envoy.extensions.filters.http.compressor.v3 import compressor_pb2
from google.protobuf import any_pb2, wrappers_pb2
from google.protobuf.message import Message

from filters.language import Shorthand, option
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage

Algorithm = Literal["gzip", "brotli", "zstd"]
ALGORITHMS: tuple[Algorithm, ...] = ("zstd", "brotli", "gzip")
"""If a client accepts several equally, Envoy uses the first of these, because the later filter decides last."""
MINIMUM = 256
"""Bytes. Compression does not make a smaller body smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionSettings:
    """Text, JSON, JavaScript, XML and SVG of at least 256 bytes are compressed.

    Bodies that are compressed already, parts of a body (206), and responses with `Cache-Control: no-transform` are not.
    """

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    algorithms: tuple[Algorithm, ...] = option(
        "Algorithms that may be used. The client's preference decides.", default=ALGORITHMS, minimum_items=1
    )

    @classmethod
    def short(cls, _value: Any) -> CompressionSettings:
        """The settings that ``true`` stands for."""
        return cls()


_LIBRARIES: dict[Algorithm, Message] = {
    "gzip": gzip_pb2.Gzip(),
    "brotli": brotli_pb2.Brotli(),
    "zstd": zstd_pb2.Zstd(),
}


def filter_name(algorithm: str) -> str:
    """The name of the Envoy filter of an algorithm."""
    return f"xds.compression.{algorithm}"


def _filter(algorithm: Algorithm) -> HttpFilter:
    inner = any_pb2.Any()
    inner.Pack(_LIBRARIES[algorithm], deterministic=True)
    library = extension_pb2.TypedExtensionConfig(name=algorithm, typed_config=inner)
    direction = compressor_pb2.Compressor.CommonDirectionConfig(
        min_content_length=wrappers_pb2.UInt32Value(value=MINIMUM)
    )
    response = compressor_pb2.Compressor.ResponseDirectionConfig(
        common_config=direction, uncompressible_response_codes=[206]
    )
    config = compressor_pb2.Compressor(compressor_library=library, response_direction_config=response)
    return HttpFilter(name=filter_name(algorithm), config=config)


class Compression(Policy[CompressionSettings]):
    """Compiled into one of Envoy's compressor filters for each algorithm."""

    key = "compression"
    stage = Stage.RESPOND
    settings = CompressionSettings

    def http_filters(self, used: Iterable[CompressionSettings], context: Context) -> tuple[HttpFilter, ...]:
        return tuple(_filter(algorithm) for algorithm in ALGORITHMS)

    def on_route(self, settings: CompressionSettings, context: Context) -> RoutePart:
        on = compressor_pb2.CompressorPerRoute(overrides=compressor_pb2.CompressorOverrides())
        return RoutePart(filter_configs={filter_name(one): on for one in settings.algorithms})
