"""`@auth` of a schema against the gateway around it: names that do not exist, callers that nobody identifies, and the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from filters.language import Path, Place, Problem
from filters.language.problems import did_you_mean, short_repr
from filters.model.methods import methods
from xds_server.gateway import caller_uses
from xds_server.gateway.caller_uses import CallerUse
from xds_server.gateway.model.gateway import Sections


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthUse:
    """One `@auth` of a schema. `sources` are what must match: `plan`, `consumer` and `claim:NAME`, as in `by` of a cache."""

    place: Place | None
    plans: tuple[str, ...]
    consumers: tuple[str, ...]
    sources: tuple[str, ...]


def problems(
    name: str,
    uses: Iterable[AuthUse],
    templates: Iterable[CallerUse],
    effective: Mapping[str, Any],
    sections: Sections,
) -> Iterator[Problem]:
    """Yield the problems of the `@auth` of a route, and of its `templates` for the cache. `effective` are its policies."""
    path = ("routes", name, "graphql")
    uses = tuple(uses)
    for use in uses:
        yield from _unknown(path, use, "plans", use.plans, sections.plans)
        if not sections.portal.declared:  # which has consumers that the files do not name
            yield from _unknown(path, use, "consumers", use.consumers, sections.consumers)
    if uses and not methods(effective):
        message = "no caller is identified here, so nobody gets what has @auth"
        remedy = "add a way to authenticate to the route"
        place = uses[0].place
        yield Problem(path=path, message=message, remedy=remedy, place=place, severity="warning")
    found = (
        CallerUse(source, "what has this @auth", path, use.place) for use in uses for source in use.sources
    )
    templates = tuple(templates)
    yield from caller_uses.shared(chain(found, templates), effective)
    yield from caller_uses.unidentified(templates, effective)


def _unknown(
    path: Path, use: AuthUse, section: str, names: Iterable[str], known: Mapping[str, Any]
) -> Iterator[Problem]:
    for name in names:
        if name not in known:
            yield Problem(
                path=path,
                message=f"@auth: there is no '{name}' in {section}",
                remedy=did_you_mean(name, known) or f"add it under '{section}:'",
                value=short_repr(name),
                place=use.place,
            )
