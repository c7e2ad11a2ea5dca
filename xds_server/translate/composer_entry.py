"""What Envoy's configuration and the composer agree on. It imports nothing large, because the composer needs nothing else."""

from __future__ import annotations

import json
from typing import NamedTuple

from filters.rules import RuleType
from protos import rules_pb2

SERVICE = "composer"
"""The name of our own service that answers routes by several calls."""
NODE_CLUSTER = "composers"
"""The `cluster` in the xDS node of composers."""
COMPOSITION_HEADER = "x-gateway-composition"
"""The request header with the name of the rule of a route."""
CALLER_HEADER = "x-gateway-caller"
"""The request header with what authentication has found (filters.model.identity.NAMESPACE), as JSON."""
CLIENT_ADDRESS_HEADER = "x-gateway-client-address"
"""The request header with the address of the client."""
UPSTREAM_HEADER = "x-gateway-upstream"
"""The header of a call with the name of its upstream."""
CALL_HEADER, CALL_VALUE = "x-gateway-call", "127.0.0.1"
"""The header by which Envoy trusts the time limit and the retries of a call. It has to be an address."""
TRUSTED_HEADERS = (CALL_HEADER, CALLER_HEADER, CLIENT_ADDRESS_HEADER, COMPOSITION_HEADER, UPSTREAM_HEADER)
"""Request headers between Envoy and the composer. Those of clients are removed."""
VERSION_HEADER = "x-gateway-version"
"""The request header with the version of the gateway and its commit as JSON, if problems have them. A filter of the
listener sets it, or removes that of a client."""
REASON_HEADER = "x-gateway-composer-reason"
"""The response header with the reason of an error of the composer. Envoy gives it the name that its own errors have, and
removes a header of that name from all upstreams."""
PARTIAL_HEADER = "x-gateway-partial"
"""The response header with the names of the calls whose answers are missing."""
CALLS = "xds/composer-calls"
"""The name of the listener through which the composer calls upstreams."""
DEFAULT_CALLS = "unix:/run/xds/composer-calls.sock"
"""The address of that listener, unless an operator chooses another one."""


class Composition(NamedTuple):
    """The rule of one route: its kind, and its content as JSON."""

    kind: str
    content: bytes


def _message(name: str, value: Composition) -> rules_pb2.Composition:
    return rules_pb2.Composition(name=name, kind=value.kind, content=value.content)


COMPOSITION = RuleType(name="composition", message=rules_pb2.Composition, build=_message)


def as_json(content: object) -> bytes:
    """Return the content of a rule, the same for the same value."""
    return json.dumps(
        content, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=dict
    ).encode()
