"""Serialized messages of the Unified Matcher API (`xds.type.matcher.v3.Matcher`), joined from serialized parts.

An OnMatch is either an action, which is a RouteList here, or a nested matcher.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from envoy.config.route.v3 import route_components_pb2 as pb
from envoy.type.matcher.v3 import http_inputs_pb2
from google.protobuf import any_pb2
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2

from protos.wire_format import delimited
from xds_server.translate.protobuf import packed

_MATCHER, _TREE = matcher_pb2.Matcher, matcher_pb2.Matcher.MatcherTree
_ON_MATCH, _MAP = _MATCHER.OnMatch, _TREE.MatchMap
_CONFIG = extension_pb2.TypedExtensionConfig
_KEY, _VALUE = 1, 2
"""The fields of an entry of a map."""
_NAME = delimited(_CONFIG.NAME_FIELD_NUMBER, b"routes")
_TYPE = delimited(
    any_pb2.Any.TYPE_URL_FIELD_NUMBER, f"type.googleapis.com/{pb.RouteList.DESCRIPTOR.full_name}".encode()
)


def listed(route: pb.Route) -> bytes:
    """Return a route as a serialized field of a RouteList."""
    return delimited(pb.RouteList.ROUTES_FIELD_NUMBER, route.SerializeToString(deterministic=True))


def action(routes: bytes) -> bytes:
    """Return a serialized OnMatch that tries the routes of a serialized RouteList."""
    return delimited(_ON_MATCH.ACTION_FIELD_NUMBER, _routes(routes))


def _routes(routes: bytes) -> bytes:
    config = _TYPE + delimited(any_pb2.Any.VALUE_FIELD_NUMBER, routes)
    return _NAME + delimited(_CONFIG.TYPED_CONFIG_FIELD_NUMBER, config)


def nested(matcher: bytes) -> bytes:
    """Return a serialized OnMatch that goes on with a serialized Matcher."""
    return delimited(_ON_MATCH.MATCHER_FIELD_NUMBER, matcher)


def otherwise(on_match: bytes) -> bytes:
    """Return a serialized Matcher without conditions."""
    return delimited(_MATCHER.ON_NO_MATCH_FIELD_NUMBER, on_match)


def prefix(text: str, on_match: bytes) -> bytes:
    """Return a prefix and its serialized OnMatch for `by_prefix`."""
    return delimited(_MAP.MAP_FIELD_NUMBER, delimited(_KEY, text.encode()) + delimited(_VALUE, on_match))


def by_prefix(header: str, prefixes: bytes, rest: bytes) -> bytes:
    """Return a serialized Matcher of a header's value: joined results of `prefix`, and an OnMatch for other values.

    Envoy takes the longest prefix.
    """
    value = delimited(_TREE.INPUT_FIELD_NUMBER, _input(header).SerializeToString(deterministic=True))
    tree = value + delimited(_TREE.PREFIX_MATCH_MAP_FIELD_NUMBER, prefixes)
    return delimited(_MATCHER.MATCHER_TREE_FIELD_NUMBER, tree) + otherwise(rest)


def guarded(guards: Sequence[pb.Route], matcher: bytes) -> bytes:
    """Return a serialized Matcher that tries some routes for every path before a serialized Matcher.

    A guard has one condition on a header, which is a `contains` or a regular expression.
    """
    result = _MATCHER()
    for guard in guards:
        one = result.matcher_list.matchers.add()
        (condition,) = guard.match.headers
        _condition(condition, one.predicate)
        one.on_match.action.ParseFromString(_routes(listed(guard)))
    return result.SerializeToString(deterministic=True) + otherwise(nested(matcher))


def _condition(header: pb.HeaderMatcher, predicate: matcher_pb2.Matcher.MatcherList.Predicate) -> None:
    """Write the condition of a guard as a predicate."""
    single = predicate.not_matcher.single_predicate if header.invert_match else predicate.single_predicate
    single.input.CopyFrom(_input(header.name))
    string = header.string_match
    if string.WhichOneof("match_pattern") == "contains":
        single.value_match.contains = string.contains
    else:
        single.value_match.safe_regex.google_re2.SetInParent()
        single.value_match.safe_regex.regex = string.safe_regex.regex


@cache
def _input(header: str) -> extension_pb2.TypedExtensionConfig:
    found = http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=header)
    return extension_pb2.TypedExtensionConfig(name=header, typed_config=packed(found))
