"""Rules of routes as routes of the gateway language: one for each match, and one for all connections of a stream."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, cast

from xds_server.gateway_api import names
from xds_server.gateway_api.cluster import Cluster, Route
from xds_server.gateway_api.conditions import Condition, accepted
from xds_server.gateway_api.filters import Unsupported, filter_values
from xds_server.gateway_api.memory import remembered
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.route_specs import (
    BackendRef,
    GrpcMatch,
    GrpcRule,
    HttpMatch,
    HttpRouteSpec,
    HttpRule,
    PathMatch,
    RetrySpec,
    StreamRouteSpec,
    TlsRouteSpec,
    ValueMatch,
)
from xds_server.gateway_api.streams import stream_values
from xds_server.gateway_api.upstreams import NO_BACKEND, Resolve, ServiceUpstream, resolve

_ERROR = {"status": 500}
"""What requests get that a rule with a fault would have handled, as the specification says."""
_NO_CONNECTION = ("connect-failure", "refused-stream", "reset-before-request", "reset")
_SERVICE = r"[^/]+"
_SYNTAX = frozenset("*{}")
_REDIRECTS = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Translated:
    """A route object in the gateway language, without listeners and hosts: its routes by name, each with its condition.

    `section` is `routes` or `stream_routes`. It `closes` connections if it needs the upstream without endpoints.
    `faults` are conditions that say what is wrong. `upstreams` are those that its routes use.
    """

    section: str
    routes: Mapping[str, tuple[Any, Mapping[str, Any]]]
    upstreams: tuple[ServiceUpstream, ...]
    faults: tuple[Condition, ...]
    closes: bool = False
    rule_names: Mapping[str, str] = field(default_factory=dict)
    """The name of the rule of each route of the language, if it has one."""


@remembered
def translate(route: Route, permitted: frozenset[Key], cluster: Cluster) -> Translated:
    """Return a route in the gateway language. It may refer to the Services `permitted` in any namespace."""
    find = partial(
        resolve, kind=route.kind, namespace=route.meta.namespace, cluster=cluster, permitted=permitted
    )
    if isinstance(route.spec, TlsRouteSpec | StreamRouteSpec):
        return _stream(cast("Object[StreamRouteSpec]", route), find)
    return _requests(cast("Object[HttpRouteSpec]", route), find)


def _name(route: Object[Any]) -> tuple[str, ...]:
    """Return the parts of the name of a route, which differ for routes of several kinds with the same name.

    A name in Kubernetes has no upper case, so the kind is no part of another name.
    """
    kind = () if route.kind == "HTTPRoute" else (route.kind.removesuffix("Route"),)
    return (*route.meta.key, *kind)


def _stream(route: Object[StreamRouteSpec], find: Resolve) -> Translated:
    values, upstreams, faults = stream_values(route, find)
    return Translated(
        section="stream_routes",
        routes={names.of(*_name(route)): ("stream", values)},
        closes=NO_BACKEND in (values.get("upstream"), *values.get("split", ())),
        upstreams=tuple(dict.fromkeys(upstreams)),
        faults=tuple(dict.fromkeys(faults)),
    )


def _requests(route: Object[HttpRouteSpec], find: Resolve) -> Translated:
    routes: dict[str, tuple[Any, Mapping[str, Any]]] = {}
    rule_names: dict[str, str] = {}
    upstreams: list[ServiceUpstream] = []
    faults: list[Condition] = []
    unsupported: dict[int, str] = {}
    order = _order(route.meta.created)
    every: tuple[HttpRule | GrpcRule, ...] = route.spec.rules
    for number, rule in enumerate(every):
        for place, condition in enumerate(_conditions(rule)):
            found, used, wrong = _action(rule, condition, find)
            values = {**condition, **found, "wrong_method": 404, **({"order": order} if order else {})}
            name = names.of(*_name(route), f"{number:03}", f"{place:03}")
            routes[name] = (_key(condition), values)
            if rule.name is not None:
                rule_names[name] = rule.name
            upstreams += used
            faults += (one for one in wrong if one.type != "Accepted")
            unsupported.update((number, one.message) for one in wrong if one.type == "Accepted")
    faults += _unsupported(unsupported, len(every))
    return Translated(
        section="routes",
        routes=routes,
        rule_names=rule_names,
        upstreams=tuple(dict.fromkeys(upstreams)),
        faults=tuple(dict.fromkeys(faults)),
    )


def _unsupported(rules: Mapping[int, str], count: int) -> Iterator[Condition]:
    """Yield the condition of a route that has rules with values that are not supported."""
    if len(rules) == count:
        yield accepted("UnsupportedValue", next(iter(rules.values())))
    elif rules:
        told = "; ".join(f"rule {number}: {message}" for number, message in rules.items())
        yield Condition("PartiallyInvalid", True, "UnsupportedValue", f"these rules answer with 500: {told}")


def _order(created: str) -> int:
    """Return the age of a route as a number, so that the older one of two equally specific routes wins."""
    try:
        return int(datetime.fromisoformat(created).timestamp())
    except ValueError:
        return 0


def _key(condition: Mapping[str, Any]) -> Any:
    """Return the condition as a value that is the same for routes that no request can tell apart."""
    return tuple(
        (
            key,
            tuple(sorted((name, repr(match)) for name, match in value.items()))
            if isinstance(value, dict)
            else str(value),
        )
        for key, value in sorted(condition.items())
    )


def _conditions(rule: HttpRule | GrpcRule) -> Iterator[dict[str, Any]]:
    """Yield the conditions of the matches of a rule."""
    if isinstance(rule, HttpRule):
        yield from map(_http, rule.matches or (HttpMatch(),))
    else:
        yield from map(_grpc, rule.matches or (GrpcMatch(),))


def _http(match: HttpMatch) -> dict[str, Any]:
    values: dict[str, Any] = {"path": path_text(match.path)}
    if match.method is not None:
        values["methods"] = [match.method]
    values |= _named("headers", match.headers, insensitive=True)
    return values | _named("query", match.query_params)


def path_text(path: PathMatch) -> str:
    """Return a path in the gateway language, for which * and braces are plain text in an object of Kubernetes."""
    if path.type == "RegularExpression":
        return f"~^(?:{path.value})$"
    if not _SYNTAX.isdisjoint(path.value):
        end = "(/.*)?" if path.type == "PathPrefix" else ""
        return f"~^{re.escape(path.value.rstrip('/') if end else path.value)}{end}$"
    return f"{path.value.rstrip('/')}/*" if path.type == "PathPrefix" else path.value


def _named(key: str, matches: Iterable[ValueMatch], *, insensitive: bool = False) -> dict[str, Any]:
    """Return the conditions on headers or parameters. The first one of several for a name counts (HTTPHeaderMatch)."""
    found: dict[str, Any] = {}
    for one in matches:
        kind = "exact" if one.type == "Exact" else "regex"
        found.setdefault(one.name.lower() if insensitive else one.name, {kind: one.value})
    return {key: found} if found else {}


def _grpc(match: GrpcMatch) -> dict[str, Any]:
    values = {"path": "/*", "methods": ["POST"]}
    method = match.method
    if method is not None and (method.service or method.method):
        if method.type == "Exact" and method.service and method.method:
            values["path"] = f"/{method.service}/{method.method}"
        elif method.type == "Exact" and method.service:
            values["path"] = f"/{method.service}/*"
        else:
            parts = [method.service or _SERVICE, method.method or _SERVICE]
            if method.type == "Exact":
                parts[1] = re.escape(parts[1])
            values["path"] = f"~^/(?:{parts[0]})/(?:{parts[1]})$"
    return values | _named("headers", match.headers, insensitive=True)


def _action(
    rule: HttpRule | GrpcRule, condition: Mapping[str, Any], find: Resolve
) -> tuple[dict[str, Any], list[ServiceUpstream], list[Condition]]:
    """Return what happens to the requests of a match, the upstreams that it needs, and what is wrong."""
    prefix = str(condition["path"]).endswith("/*")
    try:
        values, upstreams, faults = filter_values(rule.filters, prefix, find)
    except Unsupported as error:
        return {"respond": _ERROR}, [], [error.condition]
    if "redirect" in values:
        return _to_itself(_local(values)), [], faults
    backends, used, wrong = _backends(rule.backend_refs, prefix, find)
    faults += wrong
    if not any(one.usable for one in used):
        return _local(values) | {"respond": _ERROR}, used, faults
    if len(backends) == 1 and backends[0].keys() == {"upstream"}:
        values["upstream"] = backends[0]["upstream"]
    else:
        values["split"] = backends
    if any(one.websocket for one in used):
        values["websocket"] = True
    if isinstance(rule, HttpRule):
        values |= _times(rule)
    return values, [*upstreams, *used], faults


def _to_itself(values: dict[str, Any]) -> dict[str, Any]:
    """Return a redirect that may name nothing but a status: it repeats the URL, which the language takes for a mistake."""
    status = values["redirect"]["status"]
    if len(values["redirect"]) > 1:
        return values
    rest = {key: value for key, value in values.items() if key != "redirect"}
    return {**rest, "respond": _ERROR, "envoy": {"redirect": {"response_code": _REDIRECTS[status]}}}


def _local(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a route keeps if the gateway itself responds."""
    return {
        key: value for key, value in values.items() if key in ("redirect", "response_headers", "policies")
    }


def _backends(
    references: Iterable[BackendRef], prefix: bool, find: Resolve
) -> tuple[list[dict[str, Any]], list[ServiceUpstream], list[Condition]]:
    """Return the shares of the backends of a rule. A backend that cannot be used answers its share with 500."""
    shares: list[dict[str, Any]] = []
    used: list[ServiceUpstream] = []
    faults: list[Condition] = []
    unusable: list[ServiceUpstream] = []
    several = sum(one.weight > 0 for one in references) > 1
    for reference in references:
        found = find(reference)
        share: dict[str, Any] = {"weight": reference.weight} if several else {}
        if isinstance(found, Condition):
            faults.append(found)
            share["respond"] = _ERROR
        elif not found.usable:
            unusable.append(found)
            share["respond"] = _ERROR
        else:
            try:
                values, mirrors, wrong = filter_values(reference.filters, prefix, find, of_backend=True)
            except Unsupported as error:
                faults.append(error.condition)
                share["respond"] = _ERROR
            else:
                faults += wrong
                share |= values
                if "redirect" not in values:
                    share["upstream"] = found.name
                    if reference.weight:
                        used += [found, *mirrors]
        if reference.weight:
            shares.append(share)
    return shares, [*used, *unusable], faults


def _times(rule: HttpRule) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if rule.timeouts.request is not None:
        values["timeout"] = rule.timeouts.request
    try_ = rule.timeouts.backend_request
    limited = try_ is not None and re.search("[1-9]", try_) is not None
    if rule.retry is not None:
        values["retry"] = _retry(rule.retry)
    if limited:
        values["retry"] = {**values.get("retry", {"attempts": 0}), "per_try_timeout": try_}
    return values


def _retry(retry: RetrySpec) -> dict[str, Any]:
    values: dict[str, Any] = {
        "attempts": 1 if retry.attempts is None else min(retry.attempts, 20),
        "on": [*_NO_CONNECTION, *map(str, retry.codes)],
    }
    if retry.backoff is not None:
        values |= {"backoff": retry.backoff, "max_backoff": "1h"}
    return values
