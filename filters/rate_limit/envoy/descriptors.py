"""The descriptors that Envoy sends to the policy server: one before a request, and one at its end if a limit needs it.

Sizes and the status are entries of CEL expressions and not hits_addend, because Envoy drops a descriptor whose
hits_addend is above 1,000,000,000.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envoy.config.core.v3 import extension_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.rate_limit_descriptors.expr.v3 import expr_pb2
from envoy.type.metadata.v3 import metadata_pb2
from google.protobuf import any_pb2, wrappers_pb2

from filters.model.identity import NAMESPACE
from filters.model.limits import GRAPHQL

DOMAIN = "xds"
"""The domain of our own compiled gateways."""
RULE, PLANS, STYLE, DONE, ROUTE = "rule", "plans", "style", "done", "route"
CONSUMER, PLAN, ADDRESS = "consumer", "plan", "masked_remote_address"
COUNTED = "counted"
"""The metadata key of the claims that limits count by. The identity script writes them as texts."""
UNUSABLE = "\tunusable"
"""The text of a claim that has no exact text. No claim has the same text, because texts have no control characters."""
REQUEST_ID, CONNECTION, BEGAN, LEASE = "request_id", "connection", "began", "lease"
STATUS, DETAILS, SENT, RECEIVED = "status", "details", "sent", "received"
COST_NAMESPACE = "xds.cost"
"""The namespace of metadata into which Envoy copies the cost of operations of GraphQL."""
REJECTED = "request_rate_limited"
"""Envoy's `response.code_details` of a request that the rate limit service rejected."""
CHECKED, CHECKED_LEASE = "envoy.filters.http.ext_authz", "xds.lease"
"""The namespace of metadata for the response of a Check, and the key of the slot's name in it."""

_RECEIVED = "request.size < request.total_size ? request.size : request.total_size"
"""`request.size` is the content-length; `request.total_size`, with the headers, is what arrived. So only bytes that
arrived count."""

Action = route_components_pb2.RateLimit.Action


def word(key: str, value: str) -> Action:
    """An entry with a constant value."""
    return Action(generic_key=Action.GenericKey(descriptor_key=key, descriptor_value=value))


def expression(key: str, text: str, *, skip_if_error: bool = True) -> Action:
    """An entry of a CEL expression. If the expression has no value, Envoy skips the entry, or the whole descriptor."""
    config = any_pb2.Any()
    config.Pack(
        expr_pb2.Descriptor(descriptor_key=key, text=text, skip_if_error=skip_if_error), deterministic=True
    )
    extension = extension_pb2.TypedExtensionConfig(
        name="envoy.rate_limit_descriptors.expr", typed_config=config
    )
    return Action(extension=extension)


def of_identity(key: str, *, skip_if_absent: bool = True) -> Action:
    """An entry of a text of the caller's identity metadata.

    If it is absent, Envoy skips the entry, or the whole descriptor. This action is cheaper than a CEL expression.
    """
    metadata = metadata_pb2.MetadataKey(key=NAMESPACE)
    metadata.path.add(key=key)
    return Action(
        metadata=Action.MetaData(descriptor_key=key, metadata_key=metadata, skip_if_absent=skip_if_absent)
    )


def identity(path: Iterable[str]) -> str:
    """A CEL expression of a value of the caller's identity metadata."""
    return f"metadata.filter_metadata['{NAMESPACE}']" + "".join(f"[{_literal(one)}]" for one in path)


def _literal(text: str) -> str:
    """A text as a CEL literal."""
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"


def inputs(by: str) -> Iterator[Action]:
    """The entries of one part of a key, or of a cost's header: ``header:NAME``, ``claim:NAME`` or a word."""
    kind, _, name = by.partition(":")
    if kind == "header":
        # Envoy's own action for headers would send only the first of several headers with one name.
        yield expression(by, f"request.headers[{_literal(name.lower())}]")
    elif kind == "claim":
        # The text that the identity script wrote, because Envoy rounds numbers and has one word for all lists.
        yield expression(by, identity((COUNTED, by)))


def who() -> Iterator[Action]:
    """The consumer, the plan and the client's address. IPv6 counts by /64, because one client has a whole /64."""
    yield of_identity(CONSUMER)
    yield of_identity(PLAN)
    yield address()


def request_id() -> Action:
    """The request's id, which is part of the body of a rejection."""
    return Action(
        request_headers=Action.RequestHeaders(
            header_name="x-request-id", descriptor_key=REQUEST_ID, skip_if_absent=True
        )
    )


def address() -> Action:
    """The client's address."""
    return Action(
        masked_remote_address=Action.MaskedRemoteAddress(
            v4_prefix_mask_len=wrappers_pb2.UInt32Value(value=32),
            v6_prefix_mask_len=wrappers_pb2.UInt32Value(value=64),
        )
    )


def lease() -> Iterator[Action]:
    """The entries that identify this request, even if clients choose its id."""
    yield expression(CONNECTION, "connection.id")
    yield expression(BEGAN, "request.time")


def checked_lease() -> Iterator[Action]:
    """The name of the slot that the Check took."""
    yield expression(LEASE, f"metadata.filter_metadata['{CHECKED}']['{CHECKED_LEASE}']")


def ended(*, graphql: bool) -> Iterator[Action]:
    """The entries that are known only at the end of a request."""
    if graphql:
        # not an expression: those of descriptors see no headers of the response
        metadata = metadata_pb2.MetadataKey(key=COST_NAMESPACE)
        metadata.path.add(key=GRAPHQL)
        yield Action(
            metadata=Action.MetaData(descriptor_key=GRAPHQL, metadata_key=metadata, skip_if_absent=True)
        )
    yield word(DONE, "true")
    yield expression(STATUS, "response.code")
    yield expression(DETAILS, "response.code_details")
    yield expression(SENT, "response.size")
    yield expression(RECEIVED, _RECEIVED)
