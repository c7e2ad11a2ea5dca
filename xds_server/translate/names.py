"""The names of all resources. No name has a position in it, so reordering renames and re-warms no resource."""

from __future__ import annotations

import re
from collections.abc import Iterable

from filters.policy import cluster_of_url as cluster_of_url
from filters.policy_server import POLICY_SERVER as POLICY_SERVER
from filters.reasons import BAD_REQUEST, METHOD_NOT_ALLOWED, REJECTED
from filters.reasons import MISDIRECTED as MISDIRECTED
from filters.reasons import NOT_FOUND as NOT_FOUND
from xds_server.gateway.model.ports import WILDCARD_ADDRESSES, Port


def cluster(upstream: str) -> str:
    """Return the name of an upstream's cluster. All routes to the upstream share it."""
    return upstream


def listener(port: Port) -> str:
    """Return the name of the listener of a port in Envoy.

    It does not name the listeners of the gateway that share the port, so that one can be added or removed while the
    connections of the others stay open.
    """
    address = f"[{port.address}]" if ":" in port.address else port.address
    return f"{address}:{port.number}" + ("/udp" if port.transport == "udp" else "")


def quic(port: Port) -> str:
    """Return the name of the UDP listener for HTTP/3."""
    return f"{listener(port)}/quic"


def filter_chain(listener_name: str, stream_route: str | None) -> str:
    """Return the name of a filter chain of a listener."""
    return listener_name if stream_route is None else f"{listener_name}/{stream_route}"


def chain_origin(name: str) -> tuple[str, str]:
    """Return the path in the gateway that a filter chain comes from."""
    return ("listeners", name.partition("/")[0])


def stream_statistics(stream_route: str) -> str:
    """Return the prefix of the statistics of a stream route. Envoy would cut it at a dot."""
    return stream_route.replace(".", "_")


def routes(port: Port, listener_name: str) -> str:
    """Return the name of the route configuration of a listener, for TCP and QUIC. Listeners for plain HTTP share one."""
    if not port.plain:
        return listener_name
    return listener(port) if port.destination is None else f"{listener(port)}/to/{port.destination}"


def statistics(port: Port) -> str:
    """Return the prefix of the statistics of a port that listeners share. Envoy would cut it at a dot."""
    address = (
        "" if port.address in WILDCARD_ADDRESSES else re.sub(r"[.:]+", "_", port.address).strip("_") + "_"
    )
    return f"{address}{port.number}" + ("" if port.destination is None else f"_to_{port.destination}")


def certificate(secret: str) -> str:
    """Return the name of the SDS secret of a certificate with its private key."""
    return secret


def upstream_ca(upstream: str) -> str:
    """Return the name of the SDS secret with the authorities of an upstream's certificate."""
    return f"upstream/{upstream}/ca"


def client_ca(listener_name: str) -> str:
    """Return the name of the SDS secret with the authorities of client certificates."""
    return f"listener/{listener_name}/client-ca"


def method_not_allowed(route: str) -> str:
    """Return the name of the route that answers 405 for a route. Local replies recognize its prefix."""
    return f"{METHOD_NOT_ALLOWED}{route}"


def rejection(status: int, route: str, kind: str = "") -> str:
    """Return the name of the route that rejects a kind of requests of a route. Local replies recognize its prefix."""
    return f"{status}/{route}/{kind}" if kind else f"{status}/{route}"


def rejected(route: str) -> str:
    """Return the name of the route that answers 503 instead of a rejected route. Local replies recognize its prefix."""
    return f"{REJECTED}{route}"


REDIRECT_TO_HTTPS = "redirect-to-https"
BAD_PATH = f"{BAD_REQUEST}path"
"""The route that rejects dot segments with parameters; local replies recognize it."""
BAD_AUTHORITY = f"{BAD_REQUEST}authority"
"""The route that rejects an authority with a comma; local replies recognize it."""


def route_origin(route: str) -> tuple[str, ...]:
    """Return the path in the gateway that one route of Envoy comes from; empty if the gateway adds it itself."""
    if route in (NOT_FOUND, MISDIRECTED, BAD_PATH, BAD_AUTHORITY, REDIRECT_TO_HTTPS):
        return ()
    own = route
    for prefix in (METHOD_NOT_ALLOWED, REJECTED, NOT_FOUND, BAD_REQUEST):
        own = own.removeprefix(prefix)
    return ("routes", own.partition("/")[0])


def origins(type_name: str, resource: str, ports: Iterable[Port]) -> tuple[tuple[str, str], ...]:
    """Return the paths of the objects in the gateway that a resource comes from: several listeners if they share it.

    It is empty for a resource that belongs to no object. `ports` are those of the gateway.
    """
    first, slash, rest = resource.partition("/")
    if type_name == "listener":
        found = (port for port in ports if resource in (listener(port), quic(port)))
        return tuple(("listeners", name) for port in found for name in port.listeners)
    if type_name == "route":
        return tuple(
            ("listeners", name) for port in ports for name in port.http if resource == routes(port, name)
        )
    if not slash and type_name in ("cluster", "endpoint"):
        return (("upstreams", resource),)
    if type_name == "secret":
        owner = {"upstream": "upstreams", "listener": "listeners"}.get(first) if slash else "secrets"
        return ((owner, rest.partition("/")[0] if slash else resource),) if owner else ()
    return ()
