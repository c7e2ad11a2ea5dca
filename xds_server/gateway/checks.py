"""What only shows when the whole gateway is seen: names that lead nowhere, routes that no request reaches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from filters.credentials import conflicts
from filters.language import Mistake, Path, Problem
from filters.language.problems import did_you_mean, shown
from filters.policy import Context
from xds_server.gateway import precedence
from xds_server.gateway.model.attached import by_key
from xds_server.gateway.model.gateway import Sections
from xds_server.gateway.model.listeners import Listener
from xds_server.gateway.model.routes import Route

NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?")

Names = set[Path]
"""(section, name) of everything that was written, also where it had problems of its own."""


@dataclass(slots=True)
class Memo:
    """Routes that were found in order, and the surroundings for which that holds."""

    surroundings: tuple[Any, ...] = ()
    routes: dict[str, tuple[Route, Mapping[str, Any]]] = field(default_factory=dict)


def check(
    sections: Sections, policies: Mapping[str, Mapping[str, Any]], context: Context, memo: Memo
) -> list[Problem]:
    """All problems across objects but for names that lead nowhere."""
    problems: list[Problem] = []
    problems += _listeners(sections.listeners)
    problems += _routes(sections, policies, context, memo)
    problems += (_mistake(one, ("consumers",)) for one in conflicts(sections.consumers))
    problems += precedence.conflicts(sections.routes)
    return problems


def references(references: Iterable[tuple[Path, str, str]], names: Names) -> Iterator[Problem]:
    """Names that lead nowhere. A name that exists but has problems of its own is no second problem."""
    for path, section, name in references:
        if (section, name) not in names:
            known = [str(one[1]) for one in names if one[0] == section]
            remedy = did_you_mean(name, known) or f"add it under '{section}:'"
            yield Problem(
                path=path, message=f"there is no '{name}' in {section}", remedy=remedy, value=shown(name)
            )


def _listeners(listeners: Mapping[str, Listener]) -> Iterator[Problem]:
    taken: dict[int, str] = {}
    for name, listener in listeners.items():
        if listener.port in taken and _overlap(listener.address, listeners[taken[listener.port]].address):
            message = f"port {listener.port} is taken by the listener '{taken[listener.port]}'"
            yield Problem(path=("listeners", name, "port"), message=message, remedy="choose another port")
        taken.setdefault(listener.port, name)


def _overlap(one: str, other: str) -> bool:
    return one == other or bool({"0.0.0.0", "::"} & {one, other})


def _routes(
    sections: Sections, policies: Mapping[str, Mapping[str, Any]], context: Context, memo: Memo
) -> Iterator[Problem]:
    others = (sections.listeners, sections.upstreams, sections.policy_sets, sections.policies)
    surroundings = (*others, context.providers, context.consumers, context.plans, frozenset(context.contents))
    same = len(memo.surroundings) == len(surroundings) and all(
        one is other or one == other for one, other in zip(memo.surroundings, surroundings, strict=True)
    )
    fine = memo.routes if same else {}
    memo.surroundings, memo.routes = surroundings, {}
    for name, route in sections.routes.items():
        known = fine.get(name)
        if known is None or known[0] is not route or known[1] is not policies[name]:
            problems = [
                *_route(name, route, sections),
                *_policies(name, route, policies[name], sections, context),
            ]
            yield from problems
            if problems:
                continue
        memo.routes[name] = (route, policies[name])


def _route(name: str, route: Route, sections: Sections) -> Iterator[Problem]:
    at: Path = ("routes", name)
    affinity = route.session_affinity
    if affinity is not None and affinity.cookie is None:
        for target in route.targets:
            upstream = sections.upstreams.get(target)
            if upstream and upstream.load_balancing.policy not in ("ring_hash", "maglev"):
                message = f"this needs hashing, and '{target}' balances by {upstream.load_balancing.policy}"
                remedy = "use a cookie, or load_balancing: ring_hash or maglev there"
                yield Problem(path=(*at, "session_affinity"), message=message, remedy=remedy)
    for key in ("request_headers", "response_headers"):
        if getattr(route, key) is not None and key in route.policies:
            yield Problem(path=(*at, key), message=f"'{key}' also stands under 'policies'", remedy="keep one")


def _policies(
    name: str, route: Route, settings: Mapping[str, Any], sections: Sections, context: Context
) -> Iterator[Problem]:
    if route.max_body is not None and getattr(settings.get("validate"), "max_body", None) is not None:
        message, remedy = "'validate' limits the body here too", "keep one"
        yield Problem(path=("routes", name, "max_body"), message=message, remedy=remedy)
    context = replace(context, route=name, beside=settings)
    for key, value in settings.items():
        for mistake in by_key()[key].check(value, context):
            yield _mistake(mistake, _attached(name, route, key, sections))


def _attached(name: str, route: Route, key: str, sections: Sections) -> Path:
    """Where the effective settings of a policy were written."""
    if key in route.policies:
        return ("routes", name, "policies", key)
    if getattr(route, key, None) is not None:
        return ("routes", name, key)
    for one in reversed(route.use):
        if key in sections.policy_sets.get(one, ()):
            return ("policy_sets", one, key)
    return ("policies", key)


def _mistake(mistake: Mistake, path: Path) -> Problem:
    value = None if mistake.value is ... else shown(mistake.value)
    return Problem(path=(*path, *mistake.path), message=mistake.message, remedy=mistake.remedy, value=value)
