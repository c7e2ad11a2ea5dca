"""What Envoy tells the policy server of a request: one descriptor before, and one at the end where that is needed.

Sizes and the status travel as entries of CEL expressions and not as hits_addend, which Envoy bounds to 1,000,000,000
and drops with the whole descriptor above that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envoy.config.core.v3 import extension_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.rate_limit_descriptors.expr.v3 import expr_pb2
from google.protobuf import any_pb2, wrappers_pb2

from filters.model.identity import NAMESPACE

DOMAIN = "xds"
"""The domain of our own compiled gateways."""
RULE, PLANS, STYLE, DONE, ROUTE = "rule", "plans", "style", "done", "route"
CONSUMER, PLAN, ADDRESS = "consumer", "plan", "masked_remote_address"
COUNTED = "counted"
"""Under which the identity script tells the claims that limits count by, as texts."""
UNUSABLE = "\tunusable"
"""What it tells for a claim that has no exact text; no text is the same, as it has no control characters."""
REQUEST_ID, CONNECTION, BEGAN, LEASE = "request_id", "connection", "began", "lease"
STATUS, DETAILS, SENT, RECEIVED = "status", "details", "sent", "received"
REJECTED = "request_rate_limited"
"""What Envoy says in the details of an answer when the rate limit service rejected a request."""
CHECKED, TOLD_LEASE = "envoy.filters.http.ext_authz", "xds.lease"
"""Where Envoy keeps what a Check told, and the name of the slot there."""

_RECEIVED = "request.size < request.total_size ? request.size : request.total_size"
"""The size is what a content-length promises, and the total size, with the headers, what came: a promise alone is free."""

Action = route_components_pb2.RateLimit.Action


def word(key: str, value: str) -> Action:
    """An entry that is always the same."""
    return Action(generic_key=Action.GenericKey(descriptor_key=key, descriptor_value=value))


def expression(key: str, text: str, *, skip_if_error: bool = True) -> Action:
    """An entry of a CEL expression; where it has no value none, or no descriptor at all."""
    config = any_pb2.Any()
    config.Pack(
        expr_pb2.Descriptor(descriptor_key=key, text=text, skip_if_error=skip_if_error), deterministic=True
    )
    extension = extension_pb2.TypedExtensionConfig(
        name="envoy.rate_limit_descriptors.expr", typed_config=config
    )
    return Action(extension=extension)


def identity(path: Iterable[str]) -> str:
    """A CEL expression of who calls."""
    return f"metadata.filter_metadata['{NAMESPACE}']" + "".join(f"[{_literal(one)}]" for one in path)


def _literal(text: str) -> str:
    """A text as CEL writes it."""
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"


def inputs(by: str) -> Iterator[Action]:
    """The entries of one way of counting or of a cost's header: ``header:NAME``, ``claim:NAME`` or a word."""
    kind, _, name = by.partition(":")
    if kind == "header":
        # Not Envoy's own action for headers: of several with one name that would send the first alone.
        yield expression(by, f"request.headers[{_literal(name.lower())}]")
    elif kind == "claim":
        # The text that the identity script made of it: Envoy itself rounds numbers and has one word for all lists.
        yield expression(by, identity((COUNTED, by)))


def who() -> Iterator[Action]:
    """The consumer, the plan and the client's address; IPv6 by /64, of which one client has all."""
    yield expression(CONSUMER, identity([CONSUMER]))
    yield expression(PLAN, identity([PLAN]))
    yield address()


def address() -> Action:
    """The client's address."""
    return Action(
        masked_remote_address=Action.MaskedRemoteAddress(
            v4_prefix_mask_len=wrappers_pb2.UInt32Value(value=32),
            v6_prefix_mask_len=wrappers_pb2.UInt32Value(value=64),
        )
    )


def lease() -> Iterator[Action]:
    """What tells this request from all others, also where clients choose its id."""
    yield expression(CONNECTION, "connection.id")
    yield expression(BEGAN, "request.time")


def told_lease() -> Iterator[Action]:
    """What the Check called the slot that it took."""
    yield expression(LEASE, f"metadata.filter_metadata['{CHECKED}']['{TOLD_LEASE}']")


def ended() -> Iterator[Action]:
    """What is known at the end."""
    yield word(DONE, "true")
    yield expression(STATUS, "response.code")
    yield expression(DETAILS, "response.code_details")
    yield expression(SENT, "response.size")
    yield expression(RECEIVED, _RECEIVED)
