"""Limits as a user writes them: requests, bytes and concurrency, on routes and on plans."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from filters.language import Mistake, Rate, Shorthand, Size, option, scalars
from filters.language.scalars import Period
from filters.language.tokens import TOKEN
from filters.model import claims

MOST = 2**32 - 1
"""Envoy carries limits and hits as unsigned 32-bit numbers."""
MOST_BYTES = 2**53
"""Redis counts exactly up to this number, because its scripts have only the whole numbers of a double."""

RATE_SCHEMA = {"type": "string", "pattern": r"^\d[\d_]*\s*/\s*(second|minute|hour|day|month)$"}
_HEADER = re.compile(rf"header:{TOKEN}")
_CLAIM = re.compile(r"claim:[^\x00-\x1f]+")
GRAPHQL = "graphql"
"""The cost of operations, which the composer reports in a header of its response."""
GRAPHQL_COST_HEADER = "x-graphql-cost"
"""That header."""
BY_SHAPE = "consumer, ip, route, header:NAME or claim:NAME"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit on the requests in each window."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a rate such as 1000/hour", RATE_SCHEMA)
    requests: int = option("Requests that each window allows.", minimum=1, maximum=MOST)
    per: Period = option("The window.")
    by: str | tuple[str, ...] | None = option(
        "The key of the count: consumer, ip, route, header:NAME, claim:NAME; a list combines them. "
        "Default: the consumer if one is identified, else the client address.",
        default=None,
        narrows=True,
    )
    algorithm: Literal["fixed_window", "sliding_window", "token_bucket"] | None = option(
        "The algorithm; default fixed_window, or token_bucket if `burst` is set.", default=None
    )
    burst: int | None = option(
        "Size of the token bucket, refilled with `requests` per `per`.", default=None, minimum=1, maximum=MOST
    )
    align: Literal["calendar", "rolling"] = option(
        "The begin of windows: with those of the calendar, or with the first request.", default="calendar"
    )
    timezone: str = option("Time zone of calendar windows (IANA name).", default="UTC")
    scope: Literal["global", "local"] = option(
        "Count for all proxies together, or in each proxy.", default="global"
    )
    on_error: Literal["allow", "deny"] = option(
        "The decision if the counters cannot be reached.", default="allow"
    )
    shadow: bool = option("Count and report but never reject.", default=False)
    count: tuple[int, ...] = option("Count only responses with these statuses.", default=(), narrows=True)
    cost: int | str = option(
        "The cost of a request: a number, header:NAME, or graphql for that of its operations, which is counted at the end.",
        default=1,
    )
    exact: bool = option(
        "Ask the policy server about each request, and let Envoy admit none by a lease.", default=False
    )

    @property
    def bucket(self) -> bool:
        """True if it is a token bucket, by its algorithm or because it has a burst."""
        return self.burst is not None or self.algorithm == "token_bucket"

    @classmethod
    def short(cls, value: Any) -> Limit:
        """The limit that ``1000/hour`` stands for. Raises Mistake."""
        rate = _rate(value, scalars.rate, MOST, "requests")
        return cls(requests=rate.amount, per=rate.per)

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of keys that do not go together."""
        if self.burst is not None and self.algorithm not in (None, "token_bucket"):
            yield Mistake("'burst' is for algorithm token_bucket", "leave out one of them", path=("burst",))
        most = (self.burst or self.requests) if self.bucket else self.requests
        if isinstance(self.cost, int) and not 1 <= self.cost <= most:
            yield Mistake("no request could cost this", f"write 1 to {most}", path=("cost",), value=self.cost)
        if isinstance(self.cost, str) and self.cost != GRAPHQL and not _HEADER.fullmatch(self.cost):
            remedy = "write a number, header:NAME or graphql"
            yield Mistake("not a cost", remedy, path=("cost",), value=self.cost)
        for number, status in enumerate(self.count):
            if not 100 <= status <= 599:
                yield Mistake("not a status", "write one such as 200", path=("count", number), value=status)
        if self.scope == "local":
            yield from self._check_local()
        else:
            yield from self._check_windows()
        yield from _check_counted(self)

    def _check_windows(self) -> Iterator[Mistake]:
        """Yield mistakes for keys that only have an effect on windows of the calendar."""
        calendar = self.align == "calendar" and not self.bucket and self.algorithm != "sliding_window"
        if self.timezone != "UTC" and not calendar:
            message = "only windows of the calendar have a time zone"
            yield Mistake(message, "leave out 'timezone'", path=("timezone",), value=self.timezone)
        if self.align == "rolling" and (self.bucket or self.algorithm == "sliding_window"):
            yield Mistake("only fixed windows are aligned", "leave out 'align'", path=("align",))

    def _check_local(self) -> Iterator[Mistake]:
        """Yield mistakes for keys that only the policy server can apply."""
        if self.algorithm not in (None, "token_bucket"):
            yield Mistake("a local limit is a token bucket", "leave out 'algorithm'", path=("algorithm",))
        remedy = "use scope: global"
        if self.count:
            yield Mistake("a local limit counts before the response is known", remedy, path=("count",))
        if self.cost != 1:
            yield Mistake("each request costs a local limit 1", remedy, path=("cost",))
        if self.shadow:
            yield Mistake("a local limit always rejects", remedy, path=("shadow",))
        if self.exact:
            yield Mistake("a local limit does not ask the policy server", remedy, path=("exact",))
        if self.align != "calendar" or self.timezone != "UTC":
            where = "align" if self.align != "calendar" else "timezone"
            yield Mistake(
                "a local limit has no windows, its bucket is refilled evenly", remedy, path=(where,)
            )
        if any(
            name.startswith("claim:")
            for name in (self.by if isinstance(self.by, tuple) else (self.by or "",))
        ):
            yield Mistake("a local limit cannot count by claims", remedy, path=("by",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A limit on the bytes in each window."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "bytes of a period such as 100MB/day")
    bytes: Size = option("Bytes that each window allows.", minimum=1, maximum=MOST_BYTES)
    per: Period = option("The window.")
    direction: Literal["in", "out", "both"] = option(
        "The bodies that count: of requests, of responses, or of both.", default="both"
    )
    by: str | tuple[str, ...] | None = option(
        "The key of the count, as for rate_limit.", default=None, narrows=True
    )
    timezone: str = option("Time zone of the windows (IANA name).", default="UTC")
    shadow: bool = option("Count and report but never reject.", default=False)

    @classmethod
    def short(cls, value: Any) -> Quota:
        """The quota that ``100MB/day`` stands for. Raises Mistake."""
        rate = _rate(value, scalars.byte_rate, MOST_BYTES, "bytes")
        return cls(bytes=Size(rate.amount), per=rate.per)

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of keys that do not go together."""
        yield from _check_counted(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLimit:
    """A limit on the requests at the same time."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand(
        (int,), "a number of requests", {"type": "integer", "minimum": 1}
    )
    requests: int = option("Requests that may be in progress at the same time.", minimum=1, maximum=2**31)
    by: str | tuple[str, ...] | None = option(
        "The key of the count, as for rate_limit.", default=None, narrows=True
    )
    lease: timedelta = option(
        "The time after which a request no longer counts, even if it is in progress. It frees the slots of a crashed proxy.",
        default=timedelta(minutes=10),
        minimum=1,
    )
    shadow: bool = option("Count and report but never reject.", default=False)

    @classmethod
    def short(cls, value: int) -> ConcurrencyLimit:
        """The limit that ``10`` stands for. Raises Mistake."""
        if isinstance(value, bool) or not 1 <= value <= 2**31:
            raise Mistake("not a number of requests", f"write 1 to {2**31}")
        return cls(requests=value)

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of keys that do not go together."""
        yield from _check_by(self.by)


def _check_counted(limit: Limit | Quota) -> Iterator[Mistake]:
    yield from _check_by(limit.by)
    try:
        ZoneInfo(limit.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a directory of the database
        remedy = "write an IANA name such as Europe/Berlin"
        yield Mistake("unknown time zone", remedy, path=("timezone",), value=limit.timezone)


def _check_by(by: str | tuple[str, ...] | None) -> Iterator[Mistake]:
    seen = set()
    for name in (by,) if isinstance(by, str) else by or ():
        if not (name in ("consumer", "ip", "route") or _HEADER.fullmatch(name) or _CLAIM.fullmatch(name)):
            yield Mistake("unknown way to count", f"write {BY_SHAPE}", path=("by",), value=name)
        elif name.startswith("claim:") and (fault := claims.check(name.removeprefix("claim:"))) is not None:
            yield Mistake(fault.message, fault.remedy, path=("by",), value=name)
        if name in seen:
            yield Mistake(f"'{name}' is listed twice", "keep one", path=("by",))
        seen.add(name)


def _rate(value: Any, parse: Any, most: int, unit: str) -> Rate:
    try:
        rate: Rate = parse(value)
    except ValueError as error:
        raise Mistake(str(error)) from None
    if rate.amount < 1:
        raise Mistake("a limit of nothing would reject everything", "write at least 1, or remove the route")
    if rate.amount > most:
        raise Mistake(f"at most {most} {unit} can be counted", "write a smaller limit")
    return rate


def repeated_windows(key: str, limits: Limit | Quota | tuple[Limit | Quota, ...] | None) -> Iterator[Mistake]:
    """Yield a mistake for each limit that has the same count, key and window as an earlier limit."""
    seen = set()
    for number, limit in enumerate(limits if isinstance(limits, tuple) else ()):
        count = (limit.per, _counts(limit))
        if count in seen:
            remedy = "keep the smaller of the two"
            yield Mistake(f"a second limit per {limit.per} on the same count", remedy, path=(key, number))
        seen.add(count)


def _counts(limit: Limit | Quota) -> tuple[object, ...]:
    """The key and the kind of a limit's count. Without `by` the key is the consumer, as if that were written."""
    by = frozenset((limit.by,) if isinstance(limit.by, str) else limit.by or ("consumer",))
    if isinstance(limit, Quota):
        return by, limit.direction
    return by, limit.scope, frozenset(limit.count), limit.cost == GRAPHQL
