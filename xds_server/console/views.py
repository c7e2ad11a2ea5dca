"""What the pages of the console show, as plain values for the templates. Nothing here does IO."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from filters.language.options import OFF
from xds_server.control_plane.control_loop import GatewayState, Published
from xds_server.control_plane.status import ObjectStatus
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.model.routes import Route
from xds_server.translate import diff
from xds_server.translate.explain import Explanation, Request, applied, explain, nearest

NEAREST = 5
"""Routes with another path that the page of a URL shows."""
RULES = 50
"""Rules of the firewall that its page shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRow:
    """One route in the table of all routes."""

    name: str
    hosts: str
    path: str
    methods: str
    listeners: tuple[str, ...]
    action: str
    targets: tuple[str, ...]
    policies: tuple[str, ...]


def route_rows(gateway: Gateway) -> list[RouteRow]:
    """Return all routes in the order of their names."""
    names = tuple(name for name, one in gateway.sections.listeners.items() if one.protocol == "http")
    return [
        RouteRow(
            name=name,
            hosts=", ".join(route.hosts) or "any host",
            path=route.path,
            methods=", ".join(route.methods) or "any method",
            listeners=route.listeners or names,
            action=action(route),
            targets=route.targets,
            policies=tuple(key for key, value in gateway.policies[name].items() if value is not OFF),
        )
        for name, route in gateway.sections.routes.items()
    ]


def action(route: Route) -> str:
    """Return what a route does, in a few words."""
    if route.targets:
        return "forward"
    if route.aggregate is not None:
        return f"aggregate {len(route.aggregate.calls)} calls"
    if route.graphql is not None:
        return "graphql"
    if route.redirect is not None:
        return f"redirect {route.redirect.status}"
    return f"respond {route.respond.status}" if route.respond is not None else "answered by a policy"


def listener_rows(gateway: Gateway) -> Iterator[Mapping[str, str]]:
    """Yield all listeners with their address."""
    for name, one in gateway.sections.listeners.items():
        scheme = one.protocol if one.protocol != "http" else "https" if one.tls is not None else "http"
        yield {
            "name": name,
            "address": f"{scheme}://{one.address}:{one.port}",
            "hosts": ", ".join(one.hosts),
            "http3": "HTTP/3" if one.http3 else "",
        }


def upstream_rows(gateway: Gateway, clusters: str | None) -> list[Mapping[str, Any]]:
    """Return all upstreams with their endpoints. `clusters` is Envoy's own JSON about them, None if it is unknown."""
    health = _health(clusters)
    rows: list[Mapping[str, Any]] = []
    for name, upstream in gateway.sections.upstreams.items():
        seen = health.get(name, {})
        endpoints = [
            {
                "address": one.address,
                "state": seen.get(one.address, "unknown" if clusters is None else "not seen"),
            }
            for one in upstream.endpoints
        ]
        if seen and not any(one["state"] in ("healthy", "unhealthy", "ejected") for one in endpoints):
            endpoints = [{"address": address, "state": state} for address, state in sorted(seen.items())]
        bad = sum(one["state"] in ("unhealthy", "ejected") for one in endpoints)
        state = "empty" if not endpoints else "bad" if bad == len(endpoints) else "partly" if bad else "good"
        rows.append({"name": name, "endpoints": endpoints, "state": state, "protocol": upstream.protocol})
    return rows


def _health(clusters: str | None) -> dict[str, dict[str, str]]:
    """Return the state of each endpoint by upstream and address, as Envoy sees it."""
    if clusters is None:
        return {}
    found: dict[str, dict[str, str]] = {}
    for cluster in json.loads(clusters).get("cluster_statuses", ()):
        for host in cluster.get("host_statuses", ()):
            address = host.get("address", {})
            socket, pipe = address.get("socket_address"), address.get("pipe")
            text = (
                f"{socket['address']}:{socket['port_value']}"
                if socket
                else f"unix:{pipe['path']}"
                if pipe
                else "?"
            )
            status = host.get("health_status", {})
            ejected = status.get("failed_outlier_check")
            bad = status.get("failed_active_health_check") or status.get("eds_health_status") == "UNHEALTHY"
            found.setdefault(cluster["name"], {})[text] = (
                "ejected" if ejected else "unhealthy" if bad else "healthy"
            )
    return found


def route_page(gateway: Gateway, name: str) -> Mapping[str, Any]:
    """Return one route with its policies in their order. Raises KeyError if there is none of that name."""
    route = gateway.sections.routes[name]
    place = gateway.place(("routes", name))
    return {
        "name": name,
        "row": next(one for one in route_rows(gateway) if one.name == name),
        "place": str(place) if place is not None else "",
        "policies": tuple(applied(gateway, name)),
        "conditions": [*(f"header {one}" for one in route.headers), *(f"query {one}" for one in route.query)],
    }


def tried(gateway: Gateway, method: str, url: str, headers: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the steps of a request through the gateway. Raises ValueError if the URL or a header is wrong."""
    request = Request(method=method.upper(), url=url, headers=headers)
    explanation: Explanation = explain(gateway, request)
    candidates, others = nearest(explanation, NEAREST)
    listener = gateway.sections.listeners[explanation.listener]
    return {
        "explanation": explanation,
        "candidates": candidates,
        "others": others,
        "port": listener.port,
        "tls": listener.tls is not None,
    }


def header_lines(text: str) -> dict[str, str]:
    """Return headers that were written as lines of ``name: value``. Raises ValueError."""
    headers: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"'{line}' is not a header; write name: value")
        headers[name.strip().lower()] = value.strip()
    return headers


def changes(history: Iterable[Published], envoys: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    """Return the published gateways, newest first, with their difference from the one before.

    `envoys` are the states of the connected Envoys with respect to the newest.
    """
    entries = list(history)
    rows = []
    for number in range(len(entries) - 1, -1, -1):
        one = entries[number]
        before = entries[number - 1].gateway if number else None
        newest = number == len(entries) - 1
        rows.append(
            {
                "at": one.at,
                "seconds": one.seconds,
                "first": before is None,
                "changes": diff.objects(before, one.gateway) if before is not None else (),
                "have": f"{envoys.count('current')} of {len(envoys)}" if newest else "",
            }
        )
    return rows


def problems(state: GatewayState) -> Sequence[Mapping[str, str]]:
    """Return the problems of the newest state of the folder."""
    found = [
        {
            "severity": one.severity,
            "place": str(one.place) if one.place else "",
            "text": one.message,
            "remedy": one.remedy,
        }
        for one in state.problems
    ]
    unreadable = (
        [{"severity": "error", "place": "", "text": state.unreadable, "remedy": ""}]
        if state.unreadable
        else []
    )
    return [*unreadable, *found]


def not_programmed(statuses: Iterable[ObjectStatus]) -> list[ObjectStatus]:
    """Return the objects that are not served everywhere as they are written."""
    return [one for one in statuses if not one.programmed]


def near_exhaustion(counters: Iterable[Mapping[str, Any]], most: int = 50) -> Sequence[Mapping[str, Any]]:
    """Return the counters of limits with the largest used share, at most `most`."""
    rows = [
        dict(one, share=min(1.0, one["used"] / one["amount"]) if one["amount"] else 1.0) for one in counters
    ]
    return sorted(rows, key=lambda one: (-one["share"], one["key"]))[:most]


def firewall(metrics: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Return what the web application firewall found since the policy server began, from its metrics.

    `routes` has the inspected requests of each route by their outcome, `rules` the rules that matched most.
    """
    routes: dict[str, dict[str, int]] = {}
    rules: Counter[str] = Counter()
    for family in text_string_to_metric_families(metrics):
        for one in family.samples:
            if one.name == "xds_waf_requests_total":
                found = routes.setdefault(one.labels["route"], {})
                found[one.labels["outcome"]] = found.get(one.labels["outcome"], 0) + int(one.value)
            elif one.name == "xds_waf_matches_total":
                rules[one.labels["rule"]] += int(one.value)
    return {
        "routes": [{"route": name, **found} for name, found in sorted(routes.items())],
        "rules": [{"rule": rule, "count": count} for rule, count in rules.most_common(RULES)],
    }
