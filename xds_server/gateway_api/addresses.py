"""Addresses that a Gateway asks for: whether their type is supported, and whether it has them."""

from __future__ import annotations

from collections.abc import Collection

from xds_server.gateway_api.conditions import Condition, accepted
from xds_server.gateway_api.specs import GatewaySpec

_IP = "IPAddress"


def wanted(spec: GatewaySpec) -> tuple[str, ...]:
    """Return the addresses that a Gateway asks for. An empty value asks for any address."""
    return tuple(one.value for one in spec.addresses if one.type == _IP and one.value)


def unsupported(spec: GatewaySpec) -> Condition | None:
    """Return the condition of a Gateway that asks for an address of a type that no Service can ask for."""
    types = sorted({one.type for one in spec.addresses} - {_IP})
    if not types:
        return None
    message = f"addresses of the type {', '.join(types)} are not supported; ask for one of the type {_IP}"
    return accepted("UnsupportedAddress", message)


def missing(asked: Collection[str], assigned: Collection[str]) -> Condition | None:
    """Return the condition of a Gateway that does not have each address that it asks for."""
    absent = [one for one in asked if one not in assigned]
    if not absent:
        return None
    has = f"it has {', '.join(assigned)}" if assigned else "it has none yet"
    several = "; a Service can ask for one address" if len(asked) > 1 else ""
    message = f"the load balancer has not assigned {', '.join(absent)}: {has}{several}"
    return Condition("Programmed", False, "AddressNotUsable", message)
