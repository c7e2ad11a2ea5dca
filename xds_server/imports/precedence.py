"""Precedence: the source chooses one route for a request, and here the most specific route would take it.

Each importer notes the rank that a route has in its source (`RANK`). At the end, `keep` looks for two routes that one request can
match, of which the source prefers the one and the language the other. It lets the one that the source prefers win: with a copy of it
that is more specific, or without the other route if no request reached that in the source either. If it can do neither, it closes the
other route, or reports both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from filters.language import Problems
from filters.language.decode import decoder_for
from xds_server.gateway.model.precedence_rank import Ranked, ranked
from xds_server.gateway.model.routes import Route
from xds_server.imports import route_overlap
from xds_server.imports.draft import BELOW, CLOSED, NEVER, RANK, UNKNOWN, Draft, Rank
from xds_server.imports.protections import lacks
from xds_server.imports.text_prefixes import TEXT

CONDITIONS = ("hosts", "listeners", "path", "methods", "headers", "query", "order")
_MOST = 2000
"""Routes of a gateway up to which copies are added. Above, the routes that would need one are closed or reported."""
_route = decoder_for(Route)


@dataclass(frozen=True, slots=True)
class _Known:
    """A route of the draft: its name, its conditions as the language ranks them, and its rank in the source."""

    name: str
    here: Ranked
    rank: Rank
    unknown: bool = False
    """Whether the source has conditions that are not in `here`."""
    bare: bool = True
    """Whether a prefix `/x/*` has `/x` itself in the source."""


def keep(draft: Draft) -> None:
    """Let the routes win that the source prefers, as far as that can be written, and close or report the others."""
    routes = draft.sections.setdefault("routes", {})
    known: list[_Known] = []
    for name, one in routes.items():
        rank, unknown, below = (one.pop(key, None) for key in (RANK, UNKNOWN, BELOW))
        here = _decoded(name, one if unknown is None else unknown)
        if here is None and unknown is None and rank is not None:
            unknown, here = _without_conditions(draft, name, one, rank)
        if unknown is not None:
            one["path"] = f"/{name}/*"  # no two of them are alike
            one.pop("rewrite", None)
        if rank is not None and here is not None:
            known.append(_Known(name, here, rank, unknown is not None, not below))
    written = tuple(known)
    known += _of_all_bare(draft, known, written)
    by_rank = sorted(known, key=lambda one: one.rank.value)
    lower: list[_Known] = []
    lost: list[tuple[_Known, _Known]] = []
    for one in by_rank:
        copies = _closed(draft, one, lower) if one.unknown else _won(draft, one, lower, lost)
        lost += [(low, copy) for copy in copies for low in lower if _wrong(low, copy)]
        lower += copies if any(copy.name == one.name for copy in copies) else [*copies, one]
    for one, other in lost:
        if one.name in routes and other.name in routes:
            _lost(draft, one, other)
    # copies of routes are at other hosts, or more specific
    lower += _of_all_bare(draft, [one for one in lower if one not in known and one.name in routes], written)
    newest = {one.name: one for one in lower if one.name in routes}  # a route may have got other conditions
    _apart(draft, list(newest.values()))
    draft.drop_unused()


def _without_conditions(
    draft: Draft, name: str, one: dict[str, Any], rank: Rank
) -> tuple[dict[str, Any], Ranked]:
    """Let a route never match whose conditions the language does not have. Return those that are known of it."""
    draft.warn(
        rank.field,
        f"the conditions of the path {one.get('path')} have no equal, so the route never matches",
        "write others",
    )
    written = {key: one.pop(key) for key in CONDITIONS if key in one} | {"path": "/*"}
    one |= NEVER
    for keys in (CONDITIONS, ("hosts", "listeners", "path"), ("path",)):
        known = {key: value for key, value in written.items() if key in keys}
        if (here := _decoded(name, known)) is not None:
            return known, here
    raise AssertionError("a route with the path /* is one of the language")


def _apart(draft: Draft, known: Sequence[_Known]) -> None:
    """Leave one of several routes that no request can tell apart: the one that the source prefers, or the one with more protections."""
    routes = draft.sections.get("routes", {})
    taken: dict[tuple[Any, ...], list[_Known]] = {}
    for one in sorted(known, key=lambda one: (one.rank.value, _protections(draft, one)), reverse=True):
        if one.unknown:
            continue
        keys = {host: (host, one.here.condition, one.here.methods) for host in one.here.hosts}
        winners = {
            host: winner
            for host, key in keys.items()
            for winner in taken.get(key, ())
            if route_overlap.listeners_meet(winner.here, one.here)
        }
        for host, key in keys.items():
            if host not in winners:
                taken.setdefault(key, []).append(one)
        if not winners:
            continue
        winner = next(iter(winners.values()))
        if winner.rank.value == one.rank.value and lacks(draft, routes[one.name], routes[winner.name]):
            _lost(draft, one, winner)
        left = [host for host in one.here.hosts if host not in winners]
        if left:
            routes[one.name]["hosts"] = left
        else:
            _left_out(draft, winner, one)


def _protections(draft: Draft, one: _Known) -> int:
    return len(lacks(draft, draft.sections["routes"][one.name], {}))


def _decoded(name: str, conditions: Mapping[str, Any]) -> Ranked | None:
    """Return a route with these conditions, None if they are none of the language."""
    wanted = {key: conditions[key] for key in CONDITIONS if key in conditions}
    problems = Problems()
    decoded = _route({**wanted, "respond": {"status": 200}}, ("routes", name), problems)
    if not isinstance(decoded, Route) or any(one.severity == "error" for one in problems):
        return None
    return ranked({name: decoded})[name]


def _prefers(one: Rank, other: Rank) -> bool:
    """Whether the source prefers the first of two routes."""
    if one.scope != other.scope:
        return False
    if one.prefix is not None and other.prefix is not None:
        return one.prefix > other.prefix
    return one.value > other.value


def _of_all_bare(draft: Draft, some: Sequence[_Known], known: Sequence[_Known]) -> list[_Known]:
    found: list[_Known] = []
    for one in some:
        if not one.bare and not one.unknown:
            found += _of_bare(
                draft, one, [other for other in known if other.name in draft.sections["routes"]]
            )
    return found


def _of_bare(draft: Draft, one: _Known, known: Sequence[_Known]) -> list[_Known]:
    """Return copies of the protected routes that have the bare path `/x` in the source, where this route has `/x/*` only."""
    path = one.here.route.path.removesuffix("/*")
    routes = draft.sections["routes"]
    copies = []
    for other in known:
        if not path or other.unknown or not lacks(draft, routes[other.name], routes[one.name]):
            continue
        if not other.bare and other.here.route.path == one.here.route.path:
            continue
        exact = _decoded(one.name, {"path": path})
        if exact is None or not route_overlap.path_covers(other.here.route.match, exact.route.match):
            continue
        pairs = route_overlap.common_hosts(one.here.hosts, other.here.hosts)
        hosts = list(dict.fromkeys(route_overlap.narrower(*pair) for pair in pairs))
        conditions = {key: value for key, value in routes[other.name].items() if key in CONDITIONS}
        conditions |= {"path": path, **({} if hosts == ["*"] else {"hosts": hosts})}
        if not hosts:
            continue
        if copy := _copied(draft, other, None, conditions):
            copies.append(copy)
    return copies


def _wrong(one: _Known, other: _Known) -> list[str]:
    """Return the hosts at which the source prefers one route, and the language the other, and a request can match both."""
    if one.unknown and other.unknown:
        return []
    match, exact = one.here.route.match, other.here.route.match
    if not one.bare and exact.kind == "exact" and exact.value == match.value:
        return []
    if not _prefers(one.rank, other.rank):
        return []
    if not route_overlap.may_meet(one.here, other.here):
        return []
    hosts = route_overlap.common_hosts(one.here.hosts, other.here.hosts)
    found = []
    for mine, theirs in hosts:
        if one.rank.by_host and mine != theirs:
            continue
        ours, its = (route_overlap.host_order(mine), one.here.rank), (
            route_overlap.host_order(theirs), other.here.rank)  # fmt: skip
        if one.unknown or its < ours:
            found.append(route_overlap.narrower(mine, theirs))
    return list(dict.fromkeys(found))


def _closed(draft: Draft, one: _Known, lower: Sequence[_Known]) -> list[_Known]:
    """Close what a route of which not all conditions are known may have had: others would take it without protection.

    Return the closed routes that this adds.
    """
    routes = draft.sections["routes"]
    copies: list[_Known] = []
    for other in lower:
        if other.name not in routes or not (hosts := _wrong(one, other)):
            continue
        if not lacks(draft, routes[one.name], routes[other.name]):
            continue
        path = {"path": one.here.route.path}
        common = route_overlap.common(one.here, other.here, path, routes[other.name], hosts)
        copy = common and _copied(draft, one, other, common)
        if copy and not route_overlap.covers(one.here, other.here):
            routes[copy.name].setdefault("policies", {}).update(CLOSED)
            copies.append(copy)
            _report(draft, one, other, lacks(draft, routes[one.name], routes[other.name]), f"'{copy.name}'")
        else:
            if copy:
                del routes[copy.name]
            _lost(draft, one, other)
    return copies


def _won(
    draft: Draft, one: _Known, lower: Sequence[_Known], lost: list[tuple[_Known, _Known]]
) -> list[_Known]:
    """Let a route win over those that the source ranks lower. Return the copies of it, and add to `lost` what it cannot."""
    routes = draft.sections["routes"]
    copies: list[_Known] = []
    raised: dict[tuple[str, ...], list[_Known]] = {}
    for other in lower:
        if other.name not in routes or other.unknown or not (hosts := _wrong(one, other)):
            continue
        if route_overlap.covers(one.here, other.here) and set(hosts) >= set(other.here.hosts):
            _left_out(draft, one, other)
            continue
        if _same_effect(routes[one.name], routes[other.name]):
            continue
        if len(routes) > _MOST:
            lost.append((one, other))
            continue
        common = route_overlap.common(one.here, other.here, routes[one.name], routes[other.name], hosts)
        copy = common and _copied(draft, one, other, common)
        if copy:
            copies.append(copy)
        elif route_overlap.can_raise(one.here, other.here):
            raised.setdefault(tuple(hosts), []).append(other)
        else:
            lost.append((one, other))
    for hosts_, others in raised.items():
        longest = max(
            (len(other.here.route.path) for other in others if other.here.route.path.startswith("~")),
            default=0,
        )
        conditions = route_overlap.raised(one.here, routes[one.name], list(hosts_), longest)
        if set(hosts_) == set(one.here.hosts) and (changed := _changed(draft, one, conditions)):
            copies.append(changed)
        elif copy := _copied(draft, one, None, conditions):
            copies.append(copy)
        else:
            lost += [(one, other) for other in others]
    return copies


def _changed(draft: Draft, one: _Known, conditions: Mapping[str, Any]) -> _Known | None:
    """Give a route other conditions, which match the same requests. Return None if it cannot do the same with them."""
    routes = draft.sections["routes"]
    rest = {key: value for key, value in routes[one.name].items() if key not in CONDITIONS}
    moved = route_overlap.moved(rest, one.here.route.match, conditions["path"])
    here = _decoded(one.name, conditions)
    if here is None or moved is None:
        return None
    routes[one.name] = {**conditions, **moved}
    return replace(one, here=here)


def _copied(draft: Draft, one: _Known, other: _Known | None, conditions: Mapping[str, Any]) -> _Known | None:
    """Add a route with these conditions that does what a route does. Return None if it would not win over the other one."""
    routes = draft.sections["routes"]
    rest = {key: value for key, value in routes[one.name].items() if key not in CONDITIONS}
    moved = route_overlap.moved(rest, one.here.route.match, conditions["path"])
    here = _decoded(one.name, conditions)
    if here is None or moved is None:
        return None
    if other is not None and here.rank[:-2] > other.here.rank[:-2]:
        return None
    draft.share_limits(one.name)
    rest = {**{key: routes[one.name][key] for key in ("use", "policies") if key in routes[one.name]}, **{
        key: value for key, value in moved.items() if key not in ("use", "policies")}}  # fmt: skip
    name = draft.add("routes", f"{one.name}-first", {**conditions, **rest})
    return _Known(name, replace(here, name=name), one.rank, bare=one.bare)


def _same_effect(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    mine, theirs = (
        {key: value for key, value in each.items() if key not in CONDITIONS} for each in (one, other)
    )
    moves = any("path" in mine.get(key, {}) for key in ("rewrite", "redirect"))
    return mine == theirs and not moves and not mine.get("use")


def _left_out(draft: Draft, one: _Known, other: _Known) -> None:
    del draft.sections["routes"][other.name]
    draft.warn(
        other.rank.field,
        f"the route '{one.name}' had all requests of '{other.name}' there, so '{other.name}' is left out",
        "remove it, or give it a higher rank in the source",
    )


def _lost(draft: Draft, one: _Known, other: _Known) -> None:
    """Close a route that would take requests of another one without its protections, or report both."""
    routes = draft.sections["routes"]
    if _same_effect(routes[one.name], routes[other.name]):
        return
    missing = lacks(draft, routes[one.name], routes[other.name])
    if missing:
        _report(draft, one, other, missing, "it")
        routes[other.name].setdefault("policies", {}).update(CLOSED)
    elif not one.unknown:
        draft.warn(
            other.rank.field,
            _why(one, other),
            f"see xds explain, and write the conditions of '{one.name}' at this path too",
        )


def _report(draft: Draft, one: _Known, other: _Known, missing: Sequence[str], closed: str) -> None:
    draft.insecure(
        other.rank.field,
        f"{_why(one, other)} without {', '.join(missing)}, so {closed} is closed for everybody",
        f"write a route with the conditions of '{one.name}' that is more specific than '{other.name}', and remove ip_access",
    )


def _why(one: _Known, other: _Known) -> str:
    place = f"{one.rank.field.place.file}:{one.rank.field.place.line}"
    if one.unknown:
        return f"not all conditions of the route '{one.name}' ({place}) are imported, and '{other.name}' would take its requests"
    return f"the route '{one.name}' ({place}) had the requests that both match, and here '{other.name}' would take them"


def never(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions of a route of which only some are known: it never matches."""
    found = {key: value for key, value in known.items() if key in CONDITIONS}
    if text := known.get(TEXT):
        found["path"] = f"~^{re.escape(text)}.*$"
    return {**NEVER, "path": "/*", UNKNOWN: found}
