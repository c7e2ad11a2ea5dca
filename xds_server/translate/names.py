"""The names of all resources. No name has a position in it, so reordering renames and re-warms no resource."""

from __future__ import annotations

from filters.policy import cluster_of_url as cluster_of_url
from filters.policy_server import POLICY_SERVER as POLICY_SERVER
from filters.reasons import BAD_REQUEST, METHOD_NOT_ALLOWED, REJECTED
from filters.reasons import NOT_FOUND as NOT_FOUND


def cluster(upstream: str) -> str:
    """Return the name of an upstream's cluster. All routes to the upstream share it."""
    return upstream


def listener(name: str) -> str:
    """Return the name of the TCP listener."""
    return name


def quic(name: str) -> str:
    """Return the name of the UDP listener for HTTP/3."""
    return f"{name}/quic"


def routes(listener_name: str) -> str:
    """Return the name of the route configuration of a listener, for TCP and QUIC."""
    return listener_name


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
    if route in (NOT_FOUND, BAD_PATH, BAD_AUTHORITY, REDIRECT_TO_HTTPS):
        return ()
    own = route
    for prefix in (METHOD_NOT_ALLOWED, REJECTED, NOT_FOUND, BAD_REQUEST):
        own = own.removeprefix(prefix)
    return ("routes", own.partition("/")[0])


def origin(type_name: str, resource: str) -> tuple[str, ...]:
    """Return the path in the gateway that a resource comes from; empty if no single object made it."""
    first, slash, rest = resource.partition("/")
    if type_name in ("listener", "route"):
        return ("listeners", first)
    if not slash and type_name in ("cluster", "endpoint"):
        return ("upstreams", resource)
    if type_name == "secret":
        owner = {"upstream": "upstreams", "listener": "listeners"}.get(first) if slash else "secrets"
        return (owner, rest.partition("/")[0] if slash else resource) if owner else ()
    return ()
