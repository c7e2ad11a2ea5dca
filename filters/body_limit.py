"""A limit on the size of request bodies. Envoy buffers the whole body, and then verifies its length.

Envoy's buffer filter does not count the frame that ends a body, so alone it accepts up to 16 KiB more over HTTP/2.
But it sets the content-length of the buffered body, and the RBAC filter right after it rejects by that length.
"""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.rbac.v3 import rbac_pb2 as pb
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as filter_pb2
from envoy.type.v3 import range_pb2
from google.protobuf import wrappers_pb2
from google.protobuf.message import Message

from filters.policy import HttpFilter

BUFFER, LENGTH = "envoy.filters.http.buffer", "xds.body_limit"
TOO_LARGE = "body_too_large"
"""The reason, and the name of the RBAC policy in the details of Envoy's response."""


def too_large(size: int) -> pb.Permission:
    """True for a request whose content-length is more than `size` bytes."""
    above = range_pb2.Int64Range(start=size + 1, end=2**63 - 1)
    return pb.Permission(header=route_components_pb2.HeaderMatcher(name="content-length", range_match=above))


def http_filters(size: int | None) -> Iterator[HttpFilter]:
    """The filters of a listener with this limit in bytes. Without a limit they only act on routes that have one."""
    limited = size is not None
    yield HttpFilter(name=BUFFER, config=_buffer(size or 1), always=limited)
    rules = filter_pb2.RBAC() if size is None else _rbac(size)
    rules.rules_stat_prefix = "body_limit."
    yield HttpFilter(name=LENGTH, config=rules, always=limited)


def on_route(size: int) -> dict[str, Message]:
    """The filter configuration of a route with this limit in bytes, by the filter's name."""
    return {
        BUFFER: buffer_pb2.BufferPerRoute(buffer=_buffer(size)),
        LENGTH: filter_pb2.RBACPerRoute(rbac=_rbac(size)),
    }


def off_route() -> dict[str, Message]:
    """The filter configuration of a route whose requests have no end, such as upgrades: Envoy buffers nothing."""
    return {BUFFER: buffer_pb2.BufferPerRoute(disabled=True)}


def _buffer(size: int) -> buffer_pb2.Buffer:
    return buffer_pb2.Buffer(max_request_bytes=wrappers_pb2.UInt32Value(value=size))


def _rbac(size: int) -> filter_pb2.RBAC:
    policy = pb.Policy(permissions=[too_large(size)], principals=[pb.Principal(any=True)])
    return filter_pb2.RBAC(rules=pb.RBAC(action=pb.RBAC.DENY, policies={TOO_LARGE: policy}))
