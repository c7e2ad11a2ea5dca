"""cache as a user writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Literal

from filters.language import Mistake, Shorthand, Size, option
from filters.language.scalars import duration
from filters.language.tokens import TOKEN
from filters.model import claims

CACHEABLE = (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)
"""Statuses of which a response may be stored if it says for how long (RFC 9110 section 15.1), without parts of a body."""
DEFAULT_STATUSES = (200, 203, 301, 308, 404, 410)
BY_SHAPE = "shared, caller, consumer, plan, header:NAME or claim:NAME"
_BY = re.compile(rf"shared|caller|consumer|plan|header:{TOKEN}|claim:\S.*")
MOST_VARY = 16
"""Headers by which the responses to one URL may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """Responses to GET and HEAD that are served again, as Cache-Control allows (RFC 9111)."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a duration: the `ttl`")
    ttl: timedelta | None = option(
        "How long a response is fresh that does not say it itself. Without it only responses that say it are stored.",
        default=None,
        minimum=1,
    )
    override: bool = option(
        "True if `ttl` holds whatever the response's Cache-Control says. Responses that set cookies are never stored.",
        default=False,
    )
    obey_clients: bool = option(
        "True if Cache-Control of requests is honoured: no-cache, no-store, max-age, min-fresh, only-if-cached.",
        default=True,
    )
    vary: tuple[str, ...] = option(
        "Request headers by which responses differ, in addition to those in the response's Vary.",
        default=(),
        narrows=True,
    )
    methods: tuple[Literal["GET", "HEAD"], ...] = option(
        "The methods that are answered from the cache.", default=("GET", "HEAD"), minimum_items=1
    )
    statuses: tuple[int, ...] = option(
        "The statuses for which `ttl` holds.", default=DEFAULT_STATUSES, minimum_items=1
    )
    by: str | tuple[str, ...] | None = option(
        f"Whose responses are kept apart: {BY_SHAPE}; a list combines them. Default: caller if the route identifies "
        "callers, else shared.",
        default=None,
        narrows=True,
    )
    stale_while_revalidate: timedelta = option(
        "The time for which an old response is served while one request fetches a new one (RFC 5861).",
        default=timedelta(),
    )
    stale_if_error: timedelta = option(
        "The time for which an old response is served instead of an error (RFC 5861).", default=timedelta()
    )
    max_body: Size = option(
        "The size of the largest body that is stored.", default=Size(1 << 20), minimum=1, maximum=3 << 20
    )

    @classmethod
    def short(cls, value: str) -> CacheSettings:
        """The settings that ``5m`` stands for. Raises Mistake."""
        try:
            found = cls(ttl=duration(value))
        except ValueError as error:
            raise Mistake(str(error), "write 5m, or {ttl: 5m}", value=value) from None
        for mistake in found.check():
            raise mistake
        return found

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of keys and of keys that do not go together."""
        if self.ttl is not None and self.ttl < timedelta(seconds=1):
            yield Mistake("a response is fresh for at least a second", "write 1s or more")
        for number, name in enumerate(self.vary):
            if name == "*":
                message = "'*' would make each response fit no other request"
                yield Mistake(message, "name the headers, or leave out the cache", path=("vary", number))
            elif not re.fullmatch(TOKEN, name):
                yield Mistake(
                    "not a header's name", "write accept-language", path=("vary", number), value=name
                )
        if len(self.vary) > MOST_VARY:
            yield Mistake(f"at most {MOST_VARY} headers", "name fewer", path=("vary",))
        for number, status in enumerate(self.statuses):
            if status not in CACHEABLE:
                remedy = f"write some of {', '.join(map(str, CACHEABLE))}"
                yield Mistake(
                    "responses with this status are not stored",
                    remedy,
                    path=("statuses", number),
                    value=status,
                )
        yield from self._faults_of_owners()
        if self.override and self.ttl is None:
            yield Mistake("'override' needs a ttl", "add ttl", path=("override",))

    def _faults_of_owners(self) -> Iterator[Mistake]:
        for one in self.owners or ():
            if not _BY.fullmatch(one):
                yield Mistake(f"expected {BY_SHAPE}", "write consumer", path=("by",), value=one)
            elif one.startswith("claim:") and (fault := claims.check(one.removeprefix("claim:"))) is not None:
                yield Mistake(fault.message, fault.remedy, path=("by",), value=one)
        if self.owners is not None and "shared" in self.owners and len(self.owners) > 1:
            yield Mistake("'shared' combines with nothing", "remove it", path=("by",))

    @property
    def owners(self) -> tuple[str, ...] | None:
        """The written `by` as a tuple, or None."""
        return (self.by,) if isinstance(self.by, str) else self.by
