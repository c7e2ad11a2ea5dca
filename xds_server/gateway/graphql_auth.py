"""`@auth` of a schema against the gateway around it: names that do not exist, callers that nobody identifies, and the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from filters.language import Path, Place, Problem
from filters.language.problems import did_you_mean, short_repr
from filters.model.methods import methods
from xds_server.gateway.model.gateway import Sections


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthUse:
    """One `@auth` of a schema. `sources` are what must match: `plan`, `consumer` and `claim:NAME`, as in `by` of a cache."""

    place: Place | None
    plans: tuple[str, ...]
    consumers: tuple[str, ...]
    sources: tuple[str, ...]


def problems(
    name: str, uses: Iterable[AuthUse], effective: Mapping[str, Any], sections: Sections
) -> Iterator[Problem]:
    """Yield the problems of the `@auth` of a route. `effective` are its policies."""
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
    yield from _shared(path, uses, effective)


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


def _shared(path: Path, uses: Iterable[AuthUse], effective: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem if the cache gives one caller's response to others who may not have all fields of it."""
    cache = effective.get("cache")
    owners = getattr(cache, "owners", None)
    if owners is None or not methods(effective):
        return  # it keeps callers apart, or there is none who gets the fields
    for use in uses:
        missing = next((one for one in use.sources if not _is_told(one, owners)), None)
        if missing is not None:
            yield Problem(
                path=path,
                message=f"the cache does not keep callers apart by {missing}, so it gives what has this @auth to others",
                remedy="remove 'by' of the cache, or write by: caller",
                value=short_repr(", ".join(owners)),
                place=use.place,
            )
            return


def _is_told(source: str, owners: tuple[str, ...]) -> bool:
    """True if two callers who differ in a source have responses of their own."""
    return source in owners or "caller" in owners or (source == "plan" and "consumer" in owners)
