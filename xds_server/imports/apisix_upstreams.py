"""Upstreams of APISIX: nodes, balancing, health checks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from xds_server.imports.draft import Draft, duration, network, usable
from xds_server.imports.source import Field

_IGNORED = ("id", "desc", "description", "labels", "create_time", "update_time", "status")
_BALANCING = {
    "roundrobin": "round_robin",
    "least_conn": "least_request",
    "ewma": "least_request",
    "chash": "ring_hash",
}
_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}


class Upstreams:
    """Imports upstreams. `declared` has those with an id."""

    def __init__(self, draft: Draft, declared: Mapping[str, Field]) -> None:
        self._draft, self._declared = draft, declared
        self._known: dict[tuple[str | int, ...], str] = {}

    def of(self, route: Field, service: Field | None) -> str | None:
        """Return the upstream of a route, None if it has none."""
        for owner in (route, service):
            if owner is None:
                continue
            declared = self._declared.get(owner.text("upstream_id"))
            upstream = declared if declared is not None else owner.get("upstream")
            if upstream is not None:
                return self._upstream(upstream, name_of(owner) if declared is None else name_of(declared))
        self._draft.warn(route, "the route has no upstream, so it answers 503", "write one")
        return None

    def _upstream(self, upstream: Field, name: str) -> str:
        if upstream.path in self._known:
            return self._known[upstream.path]
        ignore(upstream)
        scheme = upstream.text("scheme", default="http")
        value: dict[str, Any] = {"endpoints": self._endpoints(upstream, _PORTS.get(scheme, 80))}
        if scheme.startswith("grpc"):
            value["protocol"] = "grpc"
        if scheme in ("https", "grpcs"):
            value["tls"] = {"verify": upstream.true("tls", "verify")}
        balancing = _BALANCING.get(upstream.text("type", default="roundrobin"), "round_robin")
        if balancing != "round_robin":
            value["load_balancing"] = balancing
        if connect := upstream.number("timeout", "connect"):
            value["connect_timeout"] = duration(connect * 1000)
        for unused in ("pass_host", "upstream_host", "name", "timeout"):
            upstream.read(unused)
        for key in ("hash_on", "key"):
            if field := upstream.get(key):
                field.read()
                self._draft.warn(
                    field,
                    "the key of consistent hashing belongs to routes here",
                    "write session_affinity at the routes",
                )
        self._health(upstream, value)
        if retries := upstream.get("retries"):
            self._draft.warn(retries, "retries belong to routes here", "write retry at the routes")
            retries.read()
        found = self._draft.add("upstreams", upstream.text("name") or name or "upstream", value)
        self._known[upstream.path] = found
        return found

    def _endpoints(self, upstream: Field, port: int) -> list[Any]:
        nodes = upstream.get("nodes")
        if nodes is None:
            self._draft.warn(upstream, "nodes of service discovery are not imported", "write endpoints")
            for name in ("service_name", "discovery_type", "discovery_args"):
                upstream.read(name)
            return []
        found: list[tuple[str, float, float]] = []
        if isinstance(nodes.value, list):
            for node in nodes.elements():
                address = network(node.text("host"), int(node.number("port") or port))
                found.append((address, _weight(node.get("weight")), node.number("priority") or 0))
        else:
            found = [
                (name if re.search(r":\d+$", name) else network(name, port), _weight(weight), 0)
                for name, weight in nodes.items()
            ]
        used = [one for one in found if one[1] > 0]
        levels = sorted({priority for _, _, priority in used}, reverse=True)
        is_weighted = len({weight for _, weight, _ in used}) > 1
        endpoints: list[Any] = []
        for address, weight, priority in used:
            more: dict[str, Any] = {"weight": max(1, int(weight))} if is_weighted else {}
            if level := levels.index(priority):
                more["priority"] = level
            endpoints.append({"address": address, **more} if more else address)
        return endpoints

    def _health(self, upstream: Field, value: dict[str, Any]) -> None:
        active = upstream.get("checks", "active")
        if active is not None:
            kind = active.text("type", default="http")
            check: dict[str, Any] = (
                {"type": "tcp"} if kind == "tcp" else {"path": active.text("http_path", default="/")}
            )
            if seconds := active.number("healthy", "interval"):
                check["interval"] = duration(seconds * 1000)
            if seconds := active.number("timeout"):
                check["timeout"] = duration(seconds * 1000)
            if host := active.text("host"):
                check["host"] = host
            if number := active.number("healthy", "successes"):
                check["healthy_after"] = int(number)
            if number := active.number("unhealthy", "http_failures"):
                check["unhealthy_after"] = int(number)
            if statuses := active.numbers("healthy", "http_statuses"):
                check["expected_statuses"] = statuses
            value["health_check"] = check
            active.read("unhealthy", "interval")
        passive = upstream.get("checks", "passive")
        if passive is not None:
            if number := passive.number("unhealthy", "http_failures"):
                value["outlier_detection"] = {"consecutive_5xx": int(number)}
            passive.read()

    def host(self, route: Field, service: Field | None) -> str | None:
        """Return the host that the upstream gets, None for that of the client."""
        for owner in (route, service):
            if owner is None:
                continue
            upstream = self._declared.get(owner.text("upstream_id")) or owner.get("upstream")
            if upstream is not None:
                kind = upstream.text("pass_host", default="pass")
                return {"node": "auto", "rewrite": upstream.text("upstream_host")}.get(kind)
        return None


def name_of(field: Field) -> str:
    """Return the name of an object."""
    return usable(field.text("name") or field.text("id") or "unnamed")


def ignore(field: Field) -> None:
    """Read the keys that change nothing."""
    for name in _IGNORED:
        field.read(name)


def _weight(field: Field | None) -> float:
    number = field.number() if field is not None else None
    return 1 if number is None else number
