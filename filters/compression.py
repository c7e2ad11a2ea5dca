"""compression: Envoy compresses response bodies for clients that accept it (RFC 9110 section 12.5.3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.compression.brotli.compressor.v3 import brotli_pb2
from envoy.extensions.compression.gzip.compressor.v3 import gzip_pb2
from envoy.extensions.compression.zstd.compressor.v3 import zstd_pb2
from envoy.extensions.filters.http.composite.v3 import composite_pb2
from envoy.extensions.filters.http.compressor.v3 import compressor_pb2
from google.protobuf import any_pb2, json_format, struct_pb2, wrappers_pb2
from google.protobuf.message import Message
from xds.type.matcher.v3 import matcher_pb2
from xds.type.v3 import typed_struct_pb2

from filters.language import Mistake, Shorthand, Size, option
from filters.language.tokens import TOKEN
from filters.policy import Context, HttpFilter, NewField, Policy, RoutePart, Stage

Algorithm = Literal["gzip", "brotli", "zstd"]
ALGORITHMS: tuple[Algorithm, ...] = ("zstd", "brotli", "gzip")
"""For `Accept-Encoding: *` Envoy uses the first of these."""
MINIMUM = 256
"""Bytes. Compression does not make a smaller body smaller."""
DEFAULT = "default"
DEFAULT_TYPES = (
    "+json",
    "+xml",
    "application/javascript",
    "application/json",
    "application/jsonl",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "application/yaml",
    "text/calendar",
    "text/css",
    "text/csv",
    "text/event-stream",
    "text/html",
    "text/javascript",
    "text/markdown",
    "text/plain",
    "text/vtt",
    "text/xml",
)
"""Types of text, and those that end in a suffix of RFC 6838 section 4.2.8."""
STREAMS = (
    "application/json-seq",
    "application/jsonl",
    "application/stream+json",
    "application/x-ndjson",
    "text/event-stream",
)
"""Types whose bodies a client reads piece by piece. Envoy's zstd keeps them back until the end, so it never gets them."""
_VENDOR_JSON = r"(?i)application/vnd\..+\+json"
_JSON = (
    "activity",
    "geo",
    "graphql-response",
    "hal",
    "json-patch",
    "ld",
    "manifest",
    "merge-patch",
    "problem",
    "schema",
    "scim",
)
"""Types with the suffix +json that are no streams. The others may be: application/grpc-web+json, application/connect+json."""
_TYPE = re.compile(rf"default|\+{TOKEN}|{TOKEN}/{TOKEN}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionSettings:
    """Bodies of text are compressed: JSON, XML, HTML, event streams and so on.

    Bodies that are compressed already, parts of a body (206), and responses with `Cache-Control: no-transform` are not.
    """

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    algorithms: tuple[Algorithm, ...] = option(
        "Algorithms that may be used. The client's preference decides.", default=ALGORITHMS, minimum_items=1
    )
    content_types: tuple[str, ...] = option(
        "The media types of the bodies that are compressed. `+json` is every type that ends so, `default` are the "
        "default types.",
        default=(DEFAULT,),
        narrows=True,
        minimum_items=1,
        example="[default, application/x-own]",
    )
    min_size: Size = option(
        "The smallest body that is compressed, if the response has a content-length.",
        default=Size(MINIMUM),
        minimum=1,
        maximum=2**32 - 1,
    )

    @classmethod
    def short(cls, _value: Any) -> CompressionSettings:
        """The settings that ``true`` stands for."""
        return cls()

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of media types."""
        for number, one in enumerate(self.content_types):
            path = ("content_types", number)
            if not _TYPE.fullmatch(one) or "*" in one:
                yield Mistake(
                    "not a media type", "write application/json, +json or default", path=path, value=one
                )
            elif one.lower().startswith("application/grpc"):
                yield Mistake("gRPC compresses its messages itself", "remove it", path=path, value=one)

    @property
    def types(self) -> tuple[str, ...]:
        """The media types in lower case, without `default`."""
        found = (DEFAULT_TYPES if one == DEFAULT else (one.lower(),) for one in self.content_types)
        return tuple(sorted({one for several in found for one in several}))

    @property
    def usual(self) -> bool:
        """True if Envoy's filters for all routes fit. Their settings cannot change by route."""
        return (self.content_types, self.min_size) == ((DEFAULT,), MINIMUM)


_LIBRARIES: dict[Algorithm, Message] = {
    "gzip": gzip_pb2.Gzip(),
    "brotli": brotli_pb2.Brotli(),
    "zstd": zstd_pb2.Zstd(),
}
_USUAL = CompressionSettings()


def filter_name(algorithm: str, *, usual: bool = True) -> str:
    """The name of the Envoy filter of an algorithm."""
    return f"xds.compression.{algorithm}" if usual else f"{OWN}{algorithm}"


OWN = "xds.compression.own."
"""The beginning of the names of the filters for routes with types or sizes of their own."""
_TYPES, _WEAKEN = "content_type_matcher", "weaken_etag_on_compress"


def _without(*path: str) -> Callable[[bytes], Message]:
    """A function that removes a field of the response direction from a serialized compressor."""

    def without(config: bytes) -> Message:
        result = typed_struct_pb2.TypedStruct.FromString(config)
        at = result.value.fields["response_direction_config"].struct_value
        for name in path[:-1]:
            at = at.fields[name].struct_value
        at.fields.pop(path[-1], None)
        return result

    return without


@lru_cache(maxsize=256)
def _compressor(algorithm: Algorithm, settings: CompressionSettings) -> typed_struct_pb2.TypedStruct:
    """The compressor as a TypedStruct, because the generated messages lack two fields of Envoy 1.40."""
    inner = any_pb2.Any()
    inner.Pack(_LIBRARIES[algorithm], deterministic=True)
    library = extension_pb2.TypedExtensionConfig(name=algorithm, typed_config=inner)
    direction = compressor_pb2.Compressor.CommonDirectionConfig(
        min_content_length=wrappers_pb2.UInt32Value(value=settings.min_size)
    )
    response = compressor_pb2.Compressor.ResponseDirectionConfig(
        common_config=direction, uncompressible_response_codes=[206]
    )
    # Browsers accept gzip, br and zstd equally and name gzip first, which would make it the one that is used.
    config = compressor_pb2.Compressor(
        compressor_library=library, response_direction_config=response, choose_first=algorithm != "gzip"
    )
    value = json_format.MessageToDict(config, preserving_proto_field_name=True)
    value["response_direction_config"][_WEAKEN] = True
    value["response_direction_config"]["common_config"][_TYPES] = list(_matchers(settings.types, algorithm))
    struct = struct_pb2.Struct()
    struct.update(value)
    url = f"type.googleapis.com/{compressor_pb2.Compressor.DESCRIPTOR.full_name}"
    return typed_struct_pb2.TypedStruct(type_url=url, value=struct)


def _matchers(types: Iterable[str], algorithm: Algorithm) -> Iterator[dict[str, Any]]:
    for one in types:
        if algorithm != "zstd" or one not in (*STREAMS, "+json"):
            yield {"suffix" if one.startswith("+") else "exact": one, "ignore_case": True}
        elif one == "+json":
            yield from ({"exact": f"application/{name}+json", "ignore_case": True} for name in _JSON)
            yield {"safe_regex": {"regex": _VENDOR_JSON}}


def _composite(name: str) -> HttpFilter:
    """A filter that is what the route says."""
    inner = any_pb2.Any()
    inner.Pack(composite_pb2.Composite())
    config = extension_matcher_pb2.ExtensionWithMatcher(
        xds_matcher=matcher_pb2.Matcher(),
        extension_config=extension_pb2.TypedExtensionConfig(name=name, typed_config=inner),
    )
    return HttpFilter(name=name, config=config)


@lru_cache(maxsize=256)
def _own(
    algorithm: Algorithm, settings: CompressionSettings
) -> extension_matcher_pb2.ExtensionWithMatcherPerRoute:
    compressor, action = any_pb2.Any(), any_pb2.Any()
    compressor.Pack(_compressor(algorithm, settings), deterministic=True)
    named = extension_pb2.TypedExtensionConfig(name=algorithm, typed_config=compressor)
    action.Pack(composite_pb2.ExecuteFilterAction(typed_config=named), deterministic=True)
    matcher = matcher_pb2.Matcher()
    matcher.on_no_match.action.name = algorithm
    matcher.on_no_match.action.typed_config.CopyFrom(action)
    return extension_matcher_pb2.ExtensionWithMatcherPerRoute(xds_matcher=matcher)


class Compression(Policy[CompressionSettings]):
    """Compiled into one of Envoy's compressor filters for each algorithm."""

    key = "compression"
    stage = Stage.RESPOND
    settings = CompressionSettings
    new_fields = (
        NewField(
            feature="weak ETags of compressed responses",
            since=(1, 38),
            filters=frozenset(map(filter_name, ALGORITHMS)),
            without=_without(_WEAKEN),
        ),
        NewField(
            feature="the media types of `compression`",
            since=(1, 40),
            filters=frozenset(map(filter_name, ALGORITHMS)),
            without=_without("common_config", _TYPES),
            closes=frozenset(filter_name(one, usual=False) for one in ALGORITHMS),
            message="`content_types` and `min_size` of `compression` need Envoy 1.40",
        ),
    )

    def http_filters(self, used: Iterable[CompressionSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (
            *(HttpFilter(name=filter_name(one), config=_compressor(one, _USUAL)) for one in ALGORITHMS),
            *(_composite(filter_name(one, usual=False)) for one in ALGORITHMS),
        )

    def on_route(self, settings: CompressionSettings, context: Context) -> RoutePart:
        on = compressor_pb2.CompressorPerRoute(overrides=compressor_pb2.CompressorOverrides())
        return RoutePart(
            filter_configs={
                filter_name(one, usual=settings.usual): on if settings.usual else _own(one, settings)
                for one in settings.algorithms
            }
        )
