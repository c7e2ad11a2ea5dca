"""Requests to the admin address of a policy server, or of the `xds run` that has started it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from typing import Any

from xds_server.cli import admin_address
from xds_server.errors import EnvironmentFailed
from xds_server.processes.addresses import split

ADMIN_HELP = (
    "admin address of a policy server, or of `xds run` if that has started one: HOST:PORT or unix:/PATH"
)


def each(admin: str, resolve: Callable[..., Any] = socket.getaddrinfo) -> tuple[str, ...]:
    """Return all addresses if the host of an admin address is a name with several, else the address as it is.

    A headless Service of Kubernetes is such a name. Raises WrongUsage.
    """
    host, port = split("--admin", admin)
    if not port:
        return (admin,)
    try:
        known = resolve(host, port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return (admin,)  # an address of IPv6, or a name that the request itself will find missing
    addresses = sorted({f"{one[4][0]}:{port}" for one in known})
    return tuple(addresses) if len(addresses) > 1 else (admin,)


def found(admin: str, method: str, path: str, body: str | None = None) -> tuple[str, int, Any]:
    """Ask the policy server behind an admin address. Returns its own address, the status and the JSON of the response.

    Raises EnvironmentFailed.
    """
    status, answer = call(admin, method, path, body)
    if status == admin_address.NOT_FOUND:
        admin = _policy_server_of(admin)
        status, answer = call(admin, method, path, body)
    return admin, status, answer


def _policy_server_of(admin: str) -> str:
    """Return the admin address of the policy server that the `xds run` at this address has started."""
    status, body = call(admin, "GET", "/status")
    address = body.get("policy_server", {}).get("admin") if status == http.client.OK else None
    if not address:
        raise EnvironmentFailed(f"the control plane at {admin} has started no policy server; see --admin")
    return str(address)


def call(admin: str, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
    """Return status and JSON of a response. Raises EnvironmentFailed."""
    return admin_address.call(admin, method, path, body, who="policy server")
