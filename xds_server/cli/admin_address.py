"""Requests of commands to the admin address of a running process."""

from __future__ import annotations

import http.client
import json
from typing import Any

from xds_server.admin import ask
from xds_server.errors import EnvironmentFailed
from xds_server.processes.addresses import split

NOT_FOUND = 404
HELP = "admin address of `xds run`: HOST:PORT or unix:/PATH"
_TIMEOUT = 90.0
"""Seconds: the control plane may have to fetch something first."""


def call(
    address: str,
    method: str,
    path: str,
    body: str | None = None,
    *,
    flag: str = "--admin",
    who: str = "control plane",
) -> tuple[int, Any]:
    """Return status and JSON of a response. `flag` is the one that gave the address. Raises EnvironmentFailed, WrongUsage."""
    try:
        response = ask(split(flag, address), method, path, body, timeout=_TIMEOUT)
        return response.status, json.loads(response.body)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise EnvironmentFailed(f"no {who} answers at {address}: {error}; see {flag}") from None


def page(address: str, path: str, *, flag: str = "--admin") -> Any:
    """Return the JSON of a page of a control plane, whatever its status. Raises EnvironmentFailed, WrongUsage."""
    return call(address, "GET", path, flag=flag)[1]
