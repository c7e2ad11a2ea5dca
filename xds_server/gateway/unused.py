"""Objects without effect. They are worth a warning, and never an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from filters.language import Path, Problem
from filters.pipeline import POLICIES
from filters.policy import Policy
from xds_server.gateway import listener_checks
from xds_server.gateway.checks import CheckCache
from xds_server.gateway.files import File
from xds_server.gateway.model.gateway import FileRoutes, Sections
from xds_server.gateway.model.hosts import ANY_HOST
from xds_server.gateway.model.ports import Port, ports
from xds_server.gateway.model.precedence_rank import Ranked
from xds_server.gateway.model.routes import Route, ValueMatch

EVENTS = "text/event-stream"
"""The media type of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
REFERRED = ("secrets", "upstreams", "identity", "plans", "policy_sets")
"""Sections whose objects have no effect unless another object refers to them."""


def unused(
    sections: Sections,
    routes: Sequence[FileRoutes],
    files: Iterable[File],
    memo: CheckCache,
    called: Iterable[str] = (),
) -> Iterator[Problem]:
    """Yield warnings for unused objects, consumers that no route can identify, and routes without listeners.

    `called` are upstreams that schemas of GraphQL call.
    """
    targets = frozenset(("upstreams", name) for name in called).union(*(file.targets for file in files))
    idle = [
        (section, name)
        for section in REFERRED
        for name in getattr(sections, section)
        if (section, name) not in targets
    ]
    raw = _raw_texts(sections) if idle else frozenset()
    for section, name in idle:
        if name not in raw:
            yield _warning((section, name), "no object uses this", "remove it, or refer to it")
    used_keys = frozenset[str]().union(*(file.used for file in routes))
    identifying = [policy for policy in POLICIES if type(policy).identifies is not Policy.identifies]
    used = [policy for policy in identifying if policy.key in used_keys]
    for name, consumer in sections.consumers.items():
        if any(policy.identifies(consumer) for policy in used):
            continue
        keys = [policy.key for policy in identifying if policy.identifies(consumer)]
        if not keys:
            remedy = "add api_keys, jwt, basic_auth or certificates"
            yield _warning(("consumers", name), "this consumer has no credentials", remedy)
        else:
            message = f"no route has the policy {' or '.join(keys)}, which would identify this consumer"
            yield _warning(("consumers", name), message, "add the policy to a route")

    @cache
    def served() -> list[Port]:
        return [port for port in ports(sections) if port.http]

    yield from memo.unused.of(
        routes,
        (sections.upstreams, sections.listeners, sections.stream_routes),
        lambda file: _of_routes(file, sections, served()),
    )
    yield from listener_checks.unreached(sections)
    if sections.routes and not any(one.protocol == "http" for one in sections.listeners.values()):
        message = "no listener answers, so no request reaches these routes"
        yield _warning(("routes",), message, "add listeners: {http: {port: 8080}}")


def _of_routes(file: FileRoutes, sections: Sections, shared: Sequence[Port]) -> Iterator[Problem]:
    restricted = any(set(port.owners) != {ANY_HOST} for port in shared)
    for name, ranked in file.ranked.items():
        route = ranked.route
        if restricted and not _reached(ranked, shared):
            message = "no listener of this route has its hosts, so no request reaches it"
            remedy = "change the hosts of the route or of a listener"
            path = ("routes", name, "hosts") if route.hosts else ("routes", name)
            yield _warning(path, message, remedy)
        if route.headers or route.idle_timeout is not None:  # a gateway has many routes, and few of these
            yield from _cut_off(name, route, sections)


def _reached(ranked: Ranked, shared: Sequence[Port]) -> bool:
    """True if a host of a route belongs to one of its listeners."""
    wanted = ranked.route.listeners
    for port in shared:
        if any(
            owner in (wanted or port.http) and owner in port.http for owner in map(port.owner, ranked.hosts)
        ):
            return True
    return any(
        bool(port.hosts(name, ranked.hosts))
        for port in shared
        for name in wanted or port.http
        if name in port.http
    )


def _cut_off(name: str, route: Route, sections: Sections) -> Iterator[Problem]:
    """Yield warnings for long responses that the timeout of the route ends."""
    events = [key for key, match in route.headers.items() if key.lower() == "accept" and _is_of_events(match)]
    idle = None if route.websocket else route.idle_timeout
    if not route.targets or not (events or idle):
        return
    upstreams = [sections.upstreams.get(upstream) for upstream in route.targets]
    limit = route.time_limit(
        all(upstream is not None and upstream.protocol == "grpc" for upstream in upstreams)
    )
    if not limit:
        return
    message = f"the timeout ends every response after {limit.total_seconds():g}s"
    remedy = "write timeout: 0, or a longer one"
    if idle is not None and idle > limit:
        yield _warning(("routes", name, "idle_timeout"), f"{message}, before this", remedy)
    if route.timeout is None:
        for key in events:
            yield _warning(("routes", name, "headers", key), f"{message}, server-sent events too", remedy)


def _is_of_events(match: ValueMatch) -> bool:
    """True if a condition on accept matches server-sent events, by any part of their media type."""
    texts = (match.exact, match.prefix, match.contains, match.suffix, match.regex)
    texts_of_condition = [text.lower().replace("\\", "") for text in texts if text]
    part = any("event-stream" in text or ("event" in text and text in EVENTS) for text in texts_of_condition)
    return not match.invert and (part or (match.regex is not None and "event" in match.regex.lower()))


def _warning(path: Path, message: str, remedy: str) -> Problem:
    return Problem(path=path, message=message, remedy=remedy, at_key=True, severity="warning")


def _raw_texts(sections: Sections) -> frozenset[str]:
    """Return all texts in raw Envoy fields, because a name among them may be a reference."""
    owners: Iterable[Any] = (
        *sections.listeners.values(),
        *sections.upstreams.values(),
        *sections.routes.values(),
    )
    return frozenset(text for owner in owners if owner.envoy is not None for text in _texts(owner.envoy))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
