"""A bound on request bodies: a body is buffered whole, and then its length is looked at.

Envoy's buffer filter does not count the frame that ends a body, so alone it lets up to 16 KiB more through over HTTP/2.
But it writes down the length of what it buffered, and the RBAC filter right behind it refuses by that.
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
"""The reason, and the name of the RBAC policy in the details of Envoy's answer."""


def too_large(size: int) -> pb.Permission:
    """The body is said to be longer than `size` bytes."""
    above = range_pb2.Int64Range(start=size + 1, end=2**63 - 1)
    return pb.Permission(header=route_components_pb2.HeaderMatcher(name="content-length", range_match=above))


def http_filters(size: int | None) -> Iterator[HttpFilter]:
    """The filters of a listener with this limit in bytes; without one they wait for routes that have one."""
    limited = size is not None
    yield HttpFilter(name=BUFFER, config=_buffer(size or 1), always=limited)
    rules = filter_pb2.RBAC() if size is None else _rbac(size)
    rules.rules_stat_prefix = "body_limit."
    yield HttpFilter(name=LENGTH, config=rules, always=limited)


def on_route(size: int) -> dict[str, Message]:
    """What a route with this limit in bytes carries, by the filter's name."""
    return {
        BUFFER: buffer_pb2.BufferPerRoute(buffer=_buffer(size)),
        LENGTH: filter_pb2.RBACPerRoute(rbac=_rbac(size)),
    }


def off_route() -> dict[str, Message]:
    """What a route carries whose requests have no end, such as upgrades: nothing is buffered."""
    return {BUFFER: buffer_pb2.BufferPerRoute(disabled=True)}


def _buffer(size: int) -> buffer_pb2.Buffer:
    return buffer_pb2.Buffer(max_request_bytes=wrappers_pb2.UInt32Value(value=size))


def _rbac(size: int) -> filter_pb2.RBAC:
    policy = pb.Policy(permissions=[too_large(size)], principals=[pb.Principal(any=True)])
    return filter_pb2.RBAC(rules=pb.RBAC(action=pb.RBAC.DENY, policies={TOO_LARGE: policy}))
