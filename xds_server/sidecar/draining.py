"""The end of a pod: its application goes on to serve while endpoints are withdrawn, because its sidecar holds the hook up.

The kubelet runs hooks before it ends containers, and a native sidecar ends after the application.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from xds_server.proxy.probes import DRAIN, TOKEN_HEADER

SECONDS = 5
"""How long an application goes on by default. Envoys know in less that an endpoint is withdrawn."""
_GRACE = 30
"""The default of `terminationGracePeriodSeconds`."""
_SHARE = 2
"""The application has at least this part of the grace period to end after its hook."""


def seconds(wanted: int, spec: Mapping[str, Any]) -> int:
    """Return for how long the application of a pod goes on, of at most half of its grace period; 0 for not at all."""
    given = spec.get("terminationGracePeriodSeconds")
    return min(wanted, int(_GRACE if given is None else given) // _SHARE)


def waiting(containers: Iterable[Mapping[str, Any]], port: int, token: str) -> list[Mapping[str, Any]]:
    """Return containers of which each without a hook of its own ends after the sidecar at a port has drained."""
    get = {"path": DRAIN, "port": port, "httpHeaders": [{"name": TOKEN_HEADER, "value": token}]}
    return [
        one
        if (one.get("lifecycle") or {}).get("preStop")
        else {**one, "lifecycle": {**(one.get("lifecycle") or {}), "preStop": {"httpGet": get}}}
        for one in containers
    ]
