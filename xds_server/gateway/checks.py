"""Checks of the whole gateway: names that do not exist, and routes that no request reaches."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from operator import is_
from typing import Any
from urllib.parse import urlsplit

from filters import composer_reasons
from filters.language import Mistake, Path, Problem
from filters.language.options import OFF
from filters.language.problems import did_you_mean, short_repr
from filters.model import escapes
from filters.model.identity import Consumer
from filters.model.shared_credentials import conflicts
from filters.pipeline import POLICIES
from filters.policy import Context, Policy, Shape
from filters.reasons import BY_STATUS, OTHER, REASONS
from xds_server.gateway import (
    aggregate_checks,
    catalog_checks,
    exposure,
    listener_checks,
    precedence,
    telemetry_checks,
)
from xds_server.gateway.files import File
from xds_server.gateway.model.actions import Redirect, Respond
from xds_server.gateway.model.gateway import FileRoutes, Sections
from xds_server.gateway.model.listeners import Listener
from xds_server.gateway.model.policies import by_key
from xds_server.gateway.model.precedence_rank import Ranked
from xds_server.gateway.model.routes import Route

_PORTS = {"http": 80, "https": 443}
"""RFC 9110 section 4.2."""
_COLON = re.compile(r"/:([A-Za-z_]\w*)(?=/|$)")


class FileProblems:
    """The problems of the routes of each file. They are kept while their inputs are the same objects."""

    def __init__(self) -> None:
        self._kept: dict[FileRoutes, tuple[tuple[object, ...], tuple[Problem, ...]]] = {}

    def of(
        self,
        routes: Iterable[FileRoutes],
        inputs: tuple[object, ...],
        find: Callable[[FileRoutes], Iterable[Problem]],
    ) -> list[Problem]:
        """Return the problems that `find` returns for each file."""
        kept, self._kept = self._kept, {}
        for file in routes:
            known = kept.get(file)
            if known is None or not all(map(is_, known[0], inputs)):
                known = (inputs, tuple(find(file)))
            self._kept[file] = known
        return [problem for _, problems in self._kept.values() for problem in problems]


@dataclass(slots=True)
class CheckCache:
    """Consumers without problems, and the problems of routes.

    `own` are those of a route and its policies, `around` those of its listeners and upstreams, and `unused` is the
    same for `unused.unused`.
    """

    consumers: Mapping[str, Consumer] | None = None
    own: FileProblems = field(default_factory=FileProblems)
    around: FileProblems = field(default_factory=FileProblems)
    unused: FileProblems = field(default_factory=FileProblems)


def check(
    sections: Sections,
    routes: Sequence[FileRoutes],
    ranked: Mapping[str, Ranked],
    files: Iterable[File],
    context: Context,
    memo: CheckCache,
) -> list[Problem]:
    """Return all problems across objects, without names that do not exist."""
    problems: list[Problem] = []
    problems += listener_checks.check(sections)
    problems += _reasons(sections.errors)
    problems += telemetry_checks.check(sections, routes, context)
    problems += catalog_checks.check(sections, routes)
    own_headers = frozenset(header for policy in POLICIES for header in policy.own_headers(context))
    problems += memo.own.of(routes, (context,), lambda file: _own(file, sections, context, own_headers))
    around = (sections.listeners, sections.upstreams, context)
    problems += memo.around.of(routes, around, lambda file: _around(file, sections, context))
    problems += _consumers(sections.consumers, memo)
    problems += (problem for policy in POLICIES for problem in policy.cross_checks(context))
    problems += exposure.check(routes, context)
    problems += precedence.conflicts([file.keys for file in files], ranked, _of_http(sections.listeners))
    return problems


def _consumers(consumers: Mapping[str, Consumer], memo: CheckCache) -> list[Problem]:
    if memo.consumers is consumers:
        return []
    problems = [_mistake(mistake, ("consumers",)) for mistake in conflicts(consumers)]
    memo.consumers = None if problems else consumers
    return problems


def references(file: File, names: frozenset[Path]) -> Iterator[Problem]:
    """Yield a problem for each name that does not exist. A name with problems of its own exists."""
    if file.targets <= names:
        return
    for path, section, name in file.refers:
        if (section, name) not in names:
            known = [str(known_name[1]) for known_name in names if known_name[0] == section]
            remedy = did_you_mean(name, known) or f"add it under '{section}:'"
            yield Problem(
                path=path, message=f"there is no '{name}' in {section}", remedy=remedy, value=short_repr(name)
            )


def _reasons(errors: Iterable[str]) -> Iterator[Problem]:
    for name in errors:
        if name not in _known_reasons():
            message, remedy = f"the gateway has no reason '{name}'", did_you_mean(name, _known_reasons())
            yield Problem(path=("errors", name), message=message, remedy=remedy, at_key=True)


@cache
def _known_reasons() -> frozenset[str]:
    """Return the names of all reasons with which the gateway itself can respond."""
    rows = [
        *REASONS,
        *composer_reasons.REASONS,
        *(reason for policy in POLICIES for reason in policy.reasons),
    ]
    return frozenset([*(row.name for row in rows), *(name for _, name, _ in BY_STATUS), OTHER[0]])


def _own(
    file: FileRoutes, sections: Sections, context: Context, own_headers: Collection[str]
) -> Iterator[Problem]:
    """Yield the problems of each route with its policies."""
    for name, ranked in file.ranked.items():
        yield from _twice(name, ranked.route)
        yield from _spoofable(name, ranked.route, own_headers)
        yield from _names_with_colons(name, ranked.route)
        yield from _policies(name, ranked.route, file.policies[name], sections, context)


def _around(file: FileRoutes, sections: Sections, context: Context) -> Iterator[Problem]:
    """Yield the problems of each route with its listeners and upstreams."""
    unverified = frozenset(
        name
        for name, one in sections.listeners.items()
        if one.accepts_any_certificate and one.protocol == "http"
    )
    for name, ranked in file.ranked.items():
        route = ranked.route
        yield from aggregate_checks.check(name, route, file.policies[name], sections)
        if route.targets:
            yield from _streams(name, route, file.policies[name], sections, context)
        if route.session_affinity is not None:
            yield from _affinity(name, route, sections)
        if not route.targets:
            yield from _to_itself(name, route, sections.listeners)
        yield from _without_http(name, route, sections)
        if unverified.intersection(route.listeners or unverified):
            yield from _unverified(name, route, file.policies[name], unverified, sections)
        if "%" in route.path:
            yield from _escaped_slash(name, route, sections.listeners)


def _of_http(listeners: Mapping[str, Listener]) -> list[str]:
    """Return the listeners that have routes."""
    return [name for name, listener in listeners.items() if listener.protocol == "http"]


def _without_http(name: str, route: Route, sections: Sections) -> Iterator[Problem]:
    """Yield a problem for each listener and each upstream of a route that is not for HTTP."""
    for target in (*route.targets, *(mirror.upstream for mirror in route.mirrors)):
        if target in sections.upstreams and sections.upstreams[target].protocol == "tcp":
            message = f"the upstream '{target}' has protocol: tcp, which is for stream routes"
            remedy = "write another protocol there, or name another upstream"
            yield Problem(path=("routes", name), message=message, remedy=remedy)
    listeners = sections.listeners
    for number, one in enumerate(route.listeners):
        if one in listeners and listeners[one].protocol != "http":
            protocol = listeners[one].protocol
            message = f"the listener '{one}' has protocol: {protocol}, so it has stream routes and no routes"
            remedy = "name a listener with protocol: http, or write a stream route"
            yield Problem(path=("routes", name, "listeners", number), message=message, remedy=remedy)


_OF_CERTIFICATE = re.compile(r"%DOWNSTREAM_PEER_|\bmtls\b|_peer_certificate")
"""What Envoy knows of a client certificate, verified or not, in a header or in a condition in CEL."""


def _unverified(
    name: str, route: Route, settings: Mapping[str, Any], unverified: frozenset[str], sections: Sections
) -> Iterator[Problem]:
    """Yield a problem for what a route says or decides by a client certificate, if a listener does not verify it."""
    first = min(unverified.intersection(route.listeners or unverified))
    for path in _by_certificate(name, route, settings, sections):
        yield Problem(
            path=path,
            message=f"the listener '{first}' does not verify client certificates, so any client can claim this",
            also_path=("listeners", first, "tls", "client_certificate", "verify"),
            route=name,
            remedy="remove it, or verify the certificates; the policy mtls knows which ones are verified",
        )


def _by_certificate(
    name: str, route: Route, settings: Mapping[str, Any], sections: Sections
) -> Iterator[Path]:
    """Yield the paths of headers and conditions that contain values of the client certificate."""
    headers = [
        (_attached(name, route, key, sections), settings[key])
        for key in ("request_headers", "response_headers")
        if settings.get(key, OFF) is not OFF
    ]
    headers += [
        (("routes", name, "split", number, key), getattr(backend, key))
        for number, backend in enumerate(route.split if isinstance(route.split, tuple) else ())
        for key in ("request_headers", "response_headers")
        if getattr(backend, key) is not None
    ]
    for path, mutation in headers:
        for key, texts in (("set", mutation.set), ("add", mutation.add)):
            yield from (
                (*path, key, header) for header, text in texts.items() if _OF_CERTIFICATE.search(text)
            )
    rules = settings.get("authorize", OFF)
    if rules is not OFF:
        some = rules if isinstance(rules, tuple) else (rules,)
        if any(one.clients or (one.when is not None and _OF_CERTIFICATE.search(one.when)) for one in some):
            yield _attached(name, route, "authorize", sections)


def _affinity(name: str, route: Route, sections: Sections) -> Iterator[Problem]:
    if route.session_affinity is None or route.session_affinity.cookie is not None:
        return
    for target in route.targets:
        upstream = sections.upstreams.get(target)
        if upstream and upstream.load_balancing.policy not in ("ring_hash", "maglev"):
            message = f"this needs hashing, and '{target}' balances by {upstream.load_balancing.policy}"
            remedy = "use a cookie, or load_balancing: ring_hash or maglev there"
            yield Problem(path=("routes", name, "session_affinity"), message=message, remedy=remedy)


def _twice(name: str, route: Route) -> Iterator[Problem]:
    for key in ("request_headers", "response_headers"):
        if key in route.policies and getattr(route, key) is not None:
            message = f"'{key}' is also under 'policies'"
            yield Problem(path=("routes", name, key), message=message, remedy="keep one")


def _escaped_slash(name: str, route: Route, listeners: Mapping[str, Listener]) -> Iterator[Problem]:
    """Yield a problem for a path for which only a listener with `escaped_slashes: keep` has requests."""
    here = route.listeners or tuple(_of_http(listeners))
    if route.match.escaped_slash and not any(
        listeners[listener].escaped_slashes == "keep" for listener in here if listener in listeners
    ):
        message = "no request has an escaped slash when Envoy matches it"
        remedy = "write a plain /, or escaped_slashes: keep on a listener of the route"
        path = ("routes", name, "path")
        yield Problem(path=path, message=message, remedy=remedy, value=short_repr(route.path))


def _to_itself(name: str, route: Route, listeners: Mapping[str, Listener]) -> Iterator[Problem]:
    """Yield a problem for a redirect that sends the client to the same route again, without end.

    A condition on a header may differ the next time, because the response may set a cookie. A condition on the query
    differs if the redirect changes the query.
    """
    redirect, key = route.redirect, "redirect"
    if route.respond is not None:
        redirect, key = _as_redirect(route.respond), "respond"
    if redirect is None or route.headers or not _repeats(redirect, route):
        return
    path, _, query = redirect.new_path.partition("?")
    stays = path in ("", str(route.match)) or (
        route.match.kind == "exact" and escapes.canonical(path) == route.match.value
    )
    if not stays or (route.query and (query or redirect.strip_query)):
        return
    here = [listeners[one] for one in route.listeners or _of_http(listeners) if one in listeners]
    ports = {one.port for one in listeners.values()}
    if here and all(_is_here(redirect, route, one, ports) for one in here):
        message = "this sends the client to the same route again, without end"
        remedy = "name another path, host or scheme"
        value = short_repr(redirect.to or redirect.path or route.path)
        yield Problem(path=("routes", name, key), message=message, remedy=remedy, value=value)


def _as_redirect(respond: Respond) -> Redirect | None:
    """Return a response as a redirect, or None if it is none or cannot be checked here."""
    location = respond.location if 300 <= respond.status <= 399 else None
    if location is None or not re.fullmatch(r"(https?://[^/?#\s]+)?/[!-~]*", location):
        return None
    return Redirect(to=location, status=307 if respond.status in (307, 308) else 302, strip_query=True)


def _repeats(redirect: Redirect, route: Route) -> bool:
    """True if the client's next request has a method of the route: a GET, unless the status keeps the method."""
    return redirect.status in (307, 308) or not route.methods or not {"GET", "HEAD"}.isdisjoint(route.methods)


def _is_here(redirect: Redirect, route: Route, listener: Listener, ports: Collection[int]) -> bool:
    """True if the address of a redirect is this route on this listener. `ports` are those of all listeners."""
    written = urlsplit(redirect.to or "")
    own = "http" if listener.tls is None else "https"
    scheme, host = redirect.scheme or written.scheme or None, redirect.host or written.hostname
    port = redirect.port or written.port
    if port is None and (scheme or host):  # without a port, the default port may be that of any listener
        default = _PORTS[scheme or own]
        port = default if default in ports else listener.port
    same_host = host is None or {one.lower() for one in route.hosts} == {host.lower()}
    return same_host and scheme in (None, own) and port in (None, listener.port)


def _spoofable(name: str, route: Route, own_headers: Collection[str]) -> Iterator[Problem]:
    """Yield a warning for a route with a condition on a header that the gateway sets later: clients can send it."""
    for header in route.headers:
        if header.lower() in own_headers:
            message = "every client can send this header: routes are chosen before the gateway sets its own"
            path = ("routes", name, "headers", header)
            remedy = "match on something else, and use authorize to allow callers"
            yield Problem(path=path, message=message, remedy=remedy, at_key=True, severity="warning")


def _names_with_colons(name: str, route: Route) -> Iterator[Problem]:
    """Yield a warning for segments that are names in other gateways."""
    if route.match.kind != "regex" and (segment := _COLON.search(route.match.value)):
        message = f"':{segment[1]}' is plain text here, and matches no other segment"
        remedy = f"write {{{segment[1]}}} for any segment"
        yield Problem(path=("routes", name, "path"), message=message, remedy=remedy, severity="warning")


def _policies(
    name: str, route: Route, settings: Mapping[str, Any], sections: Sections, context: Context
) -> Iterator[Problem]:
    for key in _with_route_key().intersection(settings):
        same = None if settings[key] is OFF else by_key()[key].route_key(settings[key])
        if same is not None and getattr(route, same) is not None:
            message = f"'{same}' is also in the policy '{key}' of this route"
            yield Problem(path=("routes", name, same), message=message, remedy="keep one")
    for key, value in route.policies.items():
        if not route.forwards and _is_lost(key, value):
            message = f"'{key}' has no effect if the gateway itself responds"
            path = ("routes", name, "policies", key)
            yield Problem(path=path, message=message, remedy=by_key()[key].remedy_if_local)
    yield from _without_effect(name, route, sections)
    keys = _checked().intersection(settings)
    if not keys:
        return
    shape = Shape(
        path=route.match.regex,
        targets=route.targets,
        rewrites_path=route.rewrite is not None and (route.rewrite.path or route.rewrite.regex) is not None,
        upgrades=route.websocket,
    )
    context = context.on_route(name, settings, route.match.named_regex, shape=shape)
    for key in settings:
        if key in keys:
            for mistake in by_key()[key].check(settings[key], context):
                yield replace(_mistake(mistake, _attached(name, route, key, sections)), route=name)


def _streams(
    name: str, route: Route, settings: Mapping[str, Any], sections: Sections, context: Context
) -> Iterator[Problem]:
    """Yield a problem for policies that need whole messages, on a route whose messages may be streams."""
    keys = _needing_messages().intersection(settings)
    upstreams = (sections.upstreams.get(target) for target in route.targets)
    if keys and (route.websocket or any(one is not None and one.protocol == "grpc" for one in upstreams)):
        context = context.on_route(name, settings)
        for key in sorted(keys):
            for mistake in by_key()[key].check_streams(settings[key], context):
                yield replace(_mistake(mistake, _attached(name, route, key, sections)), route=name)


@cache
def _needing_messages() -> frozenset[str]:
    """Return the keys of policies that may need whole messages."""
    return frozenset(
        policy.key for policy in POLICIES if type(policy).check_streams is not Policy.check_streams
    )


def _is_lost(key: str, value: Any) -> bool:
    """True if a part of these settings has no effect in a response of the gateway itself."""
    return value is not OFF and by_key()[key].for_local_answers(value) != value


def _without_effect(name: str, route: Route, sections: Sections) -> Iterator[Problem]:
    """Yield a warning for policies of a set that need an upstream, unless the route switches them off."""
    if route.forwards or route.policies.answering is not None:
        return
    for number, used in enumerate(route.use):
        for key, value in sections.policy_sets.get(used, {}).items():
            if _is_lost(key, value) and route.policies.get(key) is not OFF:
                message = f"'{key}' of this set has no effect if the gateway itself responds"
                remedy = f"write {key}: off under 'policies' here, or leave out the set"
                path = ("routes", name, "use", number)
                yield Problem(path=path, message=message, remedy=remedy, severity="warning")


@cache
def _with_route_key() -> frozenset[str]:
    """Return the policies whose settings a key of the route can have too."""
    return frozenset(policy.key for policy in POLICIES if type(policy).route_key is not Policy.route_key)


@cache
def _checked() -> frozenset[str]:
    """Return the policies that check their settings against the rest of the gateway."""
    return frozenset(policy.key for policy in POLICIES if type(policy).check is not Policy.check)


def _attached(name: str, route: Route, key: str, sections: Sections) -> Path:
    """Return the path of the effective settings of a policy."""
    if key in route.policies:
        return ("routes", name, "policies", key)
    if getattr(route, key, None) is not None:
        return ("routes", name, key)
    for used in reversed(route.use):
        if key in sections.policy_sets.get(used, ()):
            return ("policy_sets", used, key)
    return ("policies", key)


def _mistake(mistake: Mistake, path: Path) -> Problem:
    value = None if mistake.value is ... else short_repr(mistake.value)
    return Problem(path=(*path, *mistake.path), message=mistake.message, remedy=mistake.remedy, value=value)
