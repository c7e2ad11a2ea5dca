"""What routes that the composer answers use of the caller: somebody has to identify it, and caches have to tell callers apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from filters.language import Path, Place, Problem
from filters.language.problems import short_repr
from filters.model.methods import methods

OF_CALLER = frozenset(("claim", "consumer", "plan"))
"""Kinds of sources that authentication finds."""


@dataclass(frozen=True, slots=True)
class CallerUse:
    """A use of what is known of the caller: `plan`, `consumer` or `claim:NAME`, as in `by` of a cache. `what` names it."""

    source: str
    what: str
    path: Path
    place: Place | None = None


def unidentified(uses: Iterable[CallerUse], effective: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a warning for the first use on a route without authentication. `effective` are the policies of the route."""
    if not methods(effective):
        for use in uses:
            yield Problem(
                path=use.path,
                message=f"no caller is identified here, so {use.source} never has a value",
                remedy="add a way to authenticate to the route",
                place=use.place,
                severity="warning",
            )
            return


def shared(uses: Iterable[CallerUse], effective: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem if the cache of a route gives a response that was made for one caller to others.

    `effective` are the policies of the route. Without `by`, the cache keeps callers apart by all that is known of them.
    """
    owners = getattr(effective.get("cache"), "owners", None)
    if owners is None or not methods(effective):
        return  # it keeps callers apart, or there is nobody of whom something is known
    for use in uses:
        if not _is_told(use.source, owners):
            yield Problem(
                path=use.path,
                message=f"the cache does not keep callers apart by {use.source}, so it gives {use.what} to others",
                remedy="remove 'by' of the cache, or write by: caller",
                value=short_repr(", ".join(owners)),
                place=use.place,
            )
            return


def _is_told(source: str, owners: tuple[str, ...]) -> bool:
    """True if two callers who differ in a source have responses of their own."""
    return source in owners or "caller" in owners or (source == "plan" and "consumer" in owners)
