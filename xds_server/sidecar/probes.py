"""Probes of an application by way of its sidecar: the kubelet has no certificate of the mesh.

A probe with `httpGet` goes to the port of the sidecar that is not captured, which asks the application on loopback.
Other probes stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from xds_server.proxy.probes import Probe

_KINDS = ("readinessProbe", "livenessProbe", "startupProbe")


def rewritten(
    containers: Iterable[Mapping[str, Any]], port: int
) -> tuple[list[Mapping[str, Any]], dict[str, Probe]]:
    """Return containers whose probes go to a port of the sidecar, and what each path of it asks the application."""
    made: list[Mapping[str, Any]] = []
    probes: dict[str, Probe] = {}
    for container in containers:
        changed = copy.deepcopy(dict(container))
        for kind, get, target in _probes(changed):
            path = f"/probe/{changed.get('name')}/{kind}"
            probes[path] = Probe(port=target, path=get.get("path") or "/")
            get |= {"port": port, "path": path}
        made.append(changed)
    return made, probes


def _probes(container: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Yield each probe in plain HTTP to the pod itself, with its port."""
    named = {one.get("name"): one.get("containerPort") for one in container.get("ports") or ()}
    for kind in _KINDS:
        get = (container.get(kind) or {}).get("httpGet")
        if not get or str(get.get("scheme") or "HTTP").upper() != "HTTP" or get.get("host"):
            continue
        port = named.get(get.get("port"), get.get("port"))
        if isinstance(port, int):
            yield kind, get, port
