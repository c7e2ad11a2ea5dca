"""TLSRoutes, TCPRoutes and UDPRoutes as stream routes of the gateway language."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xds_server.gateway_api.conditions import Condition
from xds_server.gateway_api.objects import Object
from xds_server.gateway_api.route_specs import BackendRef, StreamRouteSpec, TlsRouteSpec
from xds_server.gateway_api.upstreams import NO_BACKEND, Resolve, ServiceUpstream


def stream_values(
    route: Object[TlsRouteSpec] | Object[StreamRouteSpec], find: Resolve
) -> tuple[dict[str, Any], list[ServiceUpstream], list[Condition]]:
    """Return the target of the connections of a route, the upstreams that it needs, and what is wrong.

    The share of a backend that cannot be used is closed.
    """
    references: Iterable[BackendRef] = (one for rule in route.spec.rules for one in rule.backend_refs)
    weights: dict[str, int] = {}
    used: list[ServiceUpstream] = []
    faults: list[Condition] = []
    for reference in references:
        found = find(reference)
        name = NO_BACKEND
        if isinstance(found, Condition):
            faults.append(found)
        else:
            name = found.name if found.usable else NO_BACKEND
            used += [found] if reference.weight else []
        if reference.weight:
            weights[name] = weights.get(name, 0) + reference.weight
    if len(weights) > 1:
        return {"split": weights}, used, faults
    return {"upstream": next(iter(weights), NO_BACKEND)}, used, faults
