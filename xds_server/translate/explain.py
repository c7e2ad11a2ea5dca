"""The route that a request takes, and why other routes do not match: what Envoy will do, without an Envoy."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from itertools import takewhile
from typing import Any
from urllib.parse import urlsplit

from filters.language.options import OFF
from filters.model import escapes
from filters.policy import Policy
from xds_server.gateway.effective_policies import of_portal
from xds_server.gateway.model import regex
from xds_server.gateway.model.actions import Backend, Redirect, Respond
from xds_server.gateway.model.aggregate import Aggregate
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.model.listeners import Listener
from xds_server.gateway.model.policies import by_key
from xds_server.gateway.model.ports import Port, most_specific, ports
from xds_server.gateway.model.precedence_rank import Ranked
from xds_server.gateway.model.routes import Route, ValueMatch
from xds_server.translate import virtual_hosts

_DOTS_WITH_PARAMETERS = re.compile(r"/(?:\.|%2e){1,2};", re.IGNORECASE)
_ESCAPED_SLASH = re.compile(r"%2f|%5c", re.IGNORECASE)


OTHER_PATH = "the path differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request for `xds explain`. Names of headers are in lower case."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One route, in the order in which Envoy tries them. `why_not` is empty for the route that matches."""

    route: str
    path: str
    why_not: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """One policy of the matching route, and where it is enforced."""

    key: str
    stage: str
    enforced: str
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The handling of a request. `route` is None if none matches; `notes` describe earlier steps."""

    listener: str
    host: str
    path: str
    candidates: tuple[Candidate, ...]
    route: str | None
    action: str
    policies: tuple[Applied, ...] = ()
    notes: tuple[str, ...] = ()


def explain(gateway: Gateway, request: Request, listener: str | None = None) -> Explanation:
    """Return the explanation of a request. Raises ValueError if the URL or the listener's name is wrong."""
    parts = urlsplit(request.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"'{request.url}' is not a URL; write http://api.example.com/path")
    host = parts.hostname.rstrip(".").lower()
    port, name = _connection(gateway, parts.scheme, parts.port, host, listener)
    found = port.listeners[name]
    path, notes = _normalized(parts.path or "/", found)
    owner = port.owner(host)
    if owner is None:
        action = (
            "404: no listener at this port is for this host"
            if port.plain or listener is not None
            else "the connection is closed: no listener at this port is for this server name (SNI)"
        )
        return _answer(name, host, path, (), None, action, notes=notes)
    if owner != name:
        action = f"421: at this port, the host belongs to the listener {owner}"
        return _answer(name, host, path, (), None, action, notes=notes)
    if found.protocol != "http":
        by_name = port.server_names(name)
        taker = most_specific(host, {one: other for one, other in by_name.items() if other is not None})
        action = (
            f"the connection is forwarded by the stream route {taker}"
            if taker
            else "the connection is closed"
        )
        return _answer(name, host, path, (), None, action, notes=notes)
    if "," in parts.netloc:
        return _answer(name, host, path, (), None, "400: a host has no comma", notes=notes)
    if found.redirect_to_https is not False:
        return _answer(name, host, path, (), None, "308 to https (redirect_to_https)", notes=notes)
    request = replace(request, headers={**request.headers, ":authority": parts.netloc})
    hosts = virtual_hosts.by_host(gateway.ranked.values(), port, name)
    chosen = _virtual_host(host, hosts)
    if chosen is None:
        return _answer(name, host, path, (), None, "404: no route is for this host", notes=notes)
    candidates = []
    for member, route in ((one.name, one.route) for one in hosts[chosen]):
        why_not = _why_not(route, path, parts.query, request)
        candidates.append(Candidate(route=member, path=route.path, why_not=why_not))
        if not why_not:
            policies = tuple(applied(gateway, member))
            action = _action(route) + _mocked(gateway, member)
            return _answer(name, chosen, path, tuple(candidates), member, action, policies, notes)
    allowed = _allowed(hosts[chosen], path, parts.query, request)
    action = f"405 with Allow: {allowed}" if allowed else "404: no route matches"
    return _answer(name, chosen, path, tuple(candidates), None, action, notes=notes)


def nearest(explanation: Explanation, most: int) -> tuple[tuple[Candidate, ...], int]:
    """Return the most relevant candidates in their order, and the number of others, whose paths differ.

    Of the candidates with another path, `most` are returned: those with the most equal segments, then letters.
    """
    differing = [candidate for candidate in explanation.candidates if candidate.why_not == OTHER_PATH]
    if len(differing) <= most:
        return explanation.candidates, 0
    kept = sorted(differing, key=lambda candidate: _likeness(candidate.path, explanation.path), reverse=True)[
        :most
    ]
    shown = tuple(
        candidate
        for candidate in explanation.candidates
        if candidate.why_not != OTHER_PATH or candidate in kept
    )
    return shown, len(explanation.candidates) - len(shown)


def _likeness(path: str, wanted: str) -> tuple[int, float]:
    segments = takewhile(
        lambda pair: pair[0] == pair[1], zip(path.split("/"), wanted.split("/"), strict=False)
    )
    return len(list(segments)), SequenceMatcher(None, path, wanted).ratio()


def _answer(
    listener: str,
    host: str,
    path: str,
    candidates: tuple[Candidate, ...],
    route: str | None,
    action: str,
    policies: tuple[Applied, ...] = (),
    notes: tuple[str, ...] = (),
) -> Explanation:
    return Explanation(
        listener=listener,
        host=host,
        path=path,
        candidates=candidates,
        route=route,
        action=action,
        policies=policies,
        notes=notes,
    )


def _connection(
    gateway: Gateway, scheme: str, number: int | None, host: str, wanted: str | None
) -> tuple[Port, str]:
    """Return the port of a connection and its listener: `wanted`, or the one that the host chooses among several."""
    found = [
        port
        for port in ports(gateway.sections)
        if port.transport == "tcp" and (port.destination is None or wanted in port.listeners)
    ]
    if wanted is not None:
        port = next((one for one in found if wanted in one.listeners), None)
        if port is None:
            names = ", ".join(gateway.sections.listeners) or "none"
            raise ValueError(f"there is no listener '{wanted}'; there are: {names}")
        return port, (port.owner(host) or wanted) if port.plain else wanted
    asked = number or (443 if scheme == "https" else 80)
    by_number = [port for port in found if port.number == asked]
    by_scheme = [port for port in found if port.plain == (scheme == "http")] if number is None else []
    some = by_number or by_scheme
    if not some:
        known = ", ".join(f"{name} at {one.number}" for one in found for name in one.listeners) or "none"
        raise ValueError(f"no listener for {scheme} at port {asked}; there are: {known}")
    port = next((one for one in some if one.owner(host) is not None), some[0])
    return port, port.owner(host) or next(iter(port.listeners))


def _normalized(path: str, listener: Listener) -> tuple[str, tuple[str, ...]]:
    """Return the path that routes are matched against (RFC 3986 section 5.2.4), with notes."""
    notes = []
    if _ESCAPED_SLASH.search(path):
        became = {
            "redirect": "a redirect (307) to",
            "reject": "400 for",
            "unescape": "read as",
            "keep": "kept in",
        }
        plain = re.sub(r"%5c", r"\\", re.sub(r"%2f", "/", path, flags=re.IGNORECASE), flags=re.IGNORECASE)
        notes.append(f"an escaped slash: {became[listener.escaped_slashes]} {plain}")
        path = path if listener.escaped_slashes == "keep" else plain
    path = escapes.normalized(path)
    segments: list[str] = []
    for segment in path.replace("\\", "/").split("/")[1:]:
        plainly = segment.partition(";")[0]
        if plainly == "..":
            segments = segments[:-1]
        elif plainly != ".":
            segments.append(segment)
    if path.endswith(("/.", "/..")):
        segments.append("")
    result = "/" + "/".join(segments)
    if listener.merge_slashes:
        result = re.sub(r"/{2,}", "/", result)
    if result != path:
        notes.append(f"the path is normalized to {result}")
    return result, tuple(notes)


def _virtual_host(host: str, hosts: Collection[str]) -> str | None:
    if host in hosts:
        return host
    wildcards = [
        pattern
        for pattern in hosts
        if pattern.startswith("*.") and host.endswith(pattern[1:]) and len(host) >= len(pattern)
    ]
    if wildcards:
        return max(wildcards, key=len)
    return "*" if "*" in hosts else None


def _why_not(route: Route, path: str, query: str, request: Request) -> str:
    if not _path_matches(route, path):
        return OTHER_PATH
    if route.methods and request.method not in route.methods:
        return f"the method is none of {', '.join(route.methods)}"
    for name, match in route.headers.items():
        if not value_matches(match, request.headers.get(name.lower())):
            return f"the header {name} differs"
    values = _query(query)
    for name, match in route.query.items():
        if not _query_matches(match, values.get(name, [])):
            return f"the query parameter {name} differs"
    return ""


def _path_matches(route: Route, path: str) -> bool:
    match = route.match
    if match.spelled:
        return re.fullmatch(match.regex, path) is not None
    if match.kind == "exact":
        return path == match.value
    if match.kind == "prefix":
        base = match.value.rstrip("/")
        return path == base or path.startswith(base + "/")
    return regex.matches(match.regex, path)


def _query(text: str) -> dict[str, list[str]]:
    """Return the values of each parameter without decoding, as Envoy compares them."""
    values: dict[str, list[str]] = {}
    for part in text.split("&"):
        name, _, value = part.partition("=")
        values.setdefault(name, []).append(value)
    return values


def _query_matches(match: ValueMatch, values: Sequence[str]) -> bool:
    """True if the first value matches; for an inverted condition, no value may match."""
    if match.invert and match.present is None:
        return bool(values) and all(value_matches(match, value) for value in values)
    return value_matches(match, values[0] if values else None)


def value_matches(match: ValueMatch, value: str | None) -> bool:
    """True if a header or a parameter with this value, None if it is absent, meets a condition."""
    if match.present is not None:
        return ((value is not None) == match.present) is not match.invert
    if value is None:
        return False
    conditions: dict[str, Callable[[str], bool]] = {
        "exact": lambda text: value == text,
        "prefix": value.startswith,
        "suffix": value.endswith,
        "contains": lambda text: text in value,
        "regex": lambda text: regex.matches(text, value),
    }
    kind = next(kind for kind in conditions if getattr(match, kind) is not None)
    return conditions[kind](getattr(match, kind)) is not match.invert


def _allowed(members: list[Ranked], path: str, query: str, request: Request) -> str:
    """Return the methods that would match, for Allow; "" if more than the method differs."""
    for one, methods in virtual_hosts.fallbacks(members):
        asked = (Request(method=method, url=request.url, headers=request.headers) for method in methods)
        if any(not _why_not(one.route, path, query, other) for other in asked):
            return ", ".join(sorted(methods))
    return ""


def _action(route: Route) -> str:
    if route.upstream is not None:
        urgent = ", with a high priority" if route.priority == "high" else ""
        return f"forwarded to the upstream {route.upstream}{urgent}"
    if route.split is not None:
        return "split over " + ", ".join(f"{_share(one)} ({one.weight})" for one in route.backends)
    if route.aggregate is not None:
        return _calls(route.aggregate)
    if route.graphql is not None:
        return "the composer answers GraphQL; --graphql shows the calls of a query"
    return _local(route.redirect, route.respond) or f"the policy '{route.policies.answering}' responds"


def _calls(aggregate: Aggregate) -> str:
    """Return the calls in the order in which they are made: those with + run at once."""

    def written(name: str) -> str:
        call = aggregate.calls[name]
        optional = " (optional)" if call.optional else ""
        return f"{name}{optional}: {call.verb} {call.upstream} {call.path}"

    stages = (" + ".join(map(written, stage)) for stage in aggregate.stages)
    return "the composer answers with " + ", then ".join(stages)


def _mocked(gateway: Gateway, route: str) -> str:
    """Return who gets responses from a document instead."""
    mock = gateway.context.mocks.get(route)
    if mock is None:
        return ""
    return f"; callers on {', '.join(mock.plans)} get its mock" if mock.plans else ", whose mock responds"


def _local(redirect: Redirect | None, respond: Respond | None) -> str:
    if redirect is not None:
        return f"{redirect.status} to {redirect.to or 'another address'}"
    return f"the gateway responds with {respond.status}" if respond is not None else ""


def _share(backend: Backend) -> str:
    return backend.upstream or _local(backend.redirect, backend.respond)


def applied(gateway: Gateway, route: str) -> Iterator[Applied]:
    """Yield the policies of a route in the order in which they run."""
    settings = gateway.policies[route]
    for key, policy in by_key().items():
        if key in settings:
            yield Applied(
                key=key,
                stage=str(policy.stage),
                enforced=_enforced(policy, settings[key], gateway, route),
                level=_level(gateway, route, key),
            )


def _enforced(policy: Policy[Any], settings: Any, gateway: Gateway, route: str) -> str:
    if settings is not OFF and not gateway.sections.routes[route].forwards:
        settings = policy.for_local_answers(settings)
        if settings is None:
            return "not applied: the gateway itself responds"
    return policy.explain(settings, gateway.context)


def _level(gateway: Gateway, name: str, key: str) -> str:
    route: Any = gateway.sections.routes[name]
    if key in route.policies or getattr(route, key, None) is not None:
        return "route"
    for one in reversed(route.use):
        if key in gateway.sections.policy_sets.get(one, ()):
            return f"policy set {one}"
    if key not in gateway.sections.policies and key in of_portal(gateway.sections.portal):
        return "the portal"
    return "all routes"
