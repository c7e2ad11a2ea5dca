"""The algorithms: what is left of a limit, what a request takes of it, and when there is more.

Whole numbers throughout, so that nothing is lost to rounding. Moments are microseconds of Unix time, passed in. A
clock that steps backwards never opens a window again: a counter holds until its own end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from filters.rate_limit.engine.windows import LENGTHS, SECOND, Window, end_of

Unit = Literal["requests", "content-bytes", "concurrent-requests"]
"""The quota units of draft-ietf-httpapi-ratelimit-headers-11 section 2.1."""


class Counter:
    """What is counted under one key. After `until` nothing of it matters; `full` says that no more is admitted."""

    __slots__ = ("before", "full", "leases", "since", "until", "used")

    def __init__(self) -> None:
        self.until = 0
        self.used = 0
        self.since = 0
        self.before = 0
        self.full = False
        self.leases: dict[str, int] | None = None

    def copy(self) -> Counter:
        """As it is at this moment, for another thread than that which counts."""
        result = Counter()
        result.until, result.used, result.since = self.until, self.used, self.since
        result.before, result.full = self.before, self.full
        result.leases = None if self.leases is None else self.leases.copy()
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What all limits have in common. `name` is what clients read, unique on a route.

    `shadow` counts and never rejects; `allow_on_error` is the answer where the counters cannot be reached, None
    where the call then fails and the Envoy that asks says what that means. A request that costs nothing passes where `least` is left.
    """

    kind: ClassVar[str]
    name: str
    amount: int
    per: Window = "second"
    unit: Unit = "requests"
    shadow: bool = False
    allow_on_error: bool | None = True
    least: int = 1
    length: int = field(init=False)
    """Of the window, in microseconds."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", LENGTHS[self.per])

    def room(self, counter: Counter | None, now: int, cost: int) -> int:
        """What would be left after `cost`: below 0 where it is too much."""
        raise NotImplementedError

    def take(self, counter: Counter | None, now: int, cost: int, lease: str = "") -> Counter:
        """Count `cost`, whether there is room or not. Returns the counter, which may be a new one."""
        raise NotImplementedError

    def wait(self, counter: Counter | None, now: int, cost: int) -> int:
        """Microseconds until `cost` may be admitted, at the earliest."""
        raise NotImplementedError

    def reset(self, counter: Counter | None, now: int) -> int:
        """The moment at which everything is available again, when nothing more is taken."""
        return now if counter is None or counter.until <= now else counter.until


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedWindow(Limit):
    """So many in each window: the calendar's, or one that begins with the first request (`rolling`)."""

    kind = "fixed_window"
    zone: str = "UTC"
    rolling: bool = False

    def room(self, counter: Counter | None, now: int, cost: int) -> int:
        if counter is None or counter.until <= now:
            return self.amount - cost
        return self.amount - counter.used - cost

    def take(self, counter: Counter | None, now: int, cost: int, lease: str = "") -> Counter:
        if counter is None:
            counter = Counter()
        if counter.until <= now:
            counter.until = now + self.length if self.rolling else end_of(now, self.per, self.zone)
            counter.used = 0
        counter.used += cost
        counter.full = counter.used >= self.amount
        return counter

    def wait(self, counter: Counter | None, now: int, cost: int) -> int:
        return self.reset(counter, now) - now

    def reset(self, counter: Counter | None, now: int) -> int:
        if counter is not None and counter.until > now:
            return counter.until
        return now + self.length if self.rolling else end_of(now, self.per, self.zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindow(Limit):
    """So many in any window, from two counts: the share of the one before that the window still covers, rounded up."""

    kind = "sliding_window"

    def _counts(self, counter: Counter | None, now: int) -> tuple[int, int, int]:
        """The count before, the present one, and how far the present one has come."""
        elapsed = now % self.length
        if counter is None or counter.until <= now:
            return 0, 0, elapsed
        if now < counter.since:  # the clock stepped back: wait where the counter is
            return counter.before, counter.used, 0
        if now - elapsed == counter.since:
            return counter.before, counter.used, elapsed
        return counter.used, 0, elapsed

    def room(self, counter: Counter | None, now: int, cost: int) -> int:
        before, used, elapsed = self._counts(counter, now)
        share = -(-before * (self.length - elapsed) // self.length)
        return self.amount - share - used - cost

    def take(self, counter: Counter | None, now: int, cost: int, lease: str = "") -> Counter:
        before, used, elapsed = self._counts(counter, now)
        since = max(now, counter.since if counter is not None else now) - elapsed
        if counter is None:
            counter = Counter()
        counter.before, counter.used, counter.since = before, used + cost, since
        counter.until = since + 2 * self.length
        counter.full = self.room(counter, now, 1) < 0
        return counter

    def wait(self, counter: Counter | None, now: int, cost: int) -> int:
        before, used, elapsed = self._counts(counter, now)
        length, stepped_back = self.length, max(0, counter.since - now) if counter is not None else 0
        if used + cost <= self.amount:
            return stepped_back + max(0, self._enough(before, self.amount - used - cost) - elapsed)
        return stepped_back + length - elapsed + self._enough(used, self.amount - cost)

    def _enough(self, before: int, room: int) -> int:
        """How far a window must have come so that the one before it takes no more than `room`."""
        return self.length - max(0, room) * self.length // before if before > max(0, room) else 0

    def reset(self, counter: Counter | None, now: int) -> int:
        if counter is None or counter.until <= now:
            return now
        return counter.until if counter.used else counter.since + self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBucket(Limit):
    """A bucket of `burst`, refilled evenly with `amount` in each period.

    A counter's `used` is what was taken times the length of the period, so that a microsecond refills `amount`.
    """

    kind = "token_bucket"
    burst: int

    def _missing(self, counter: Counter | None, now: int) -> int:
        if counter is None or counter.until <= now:
            return 0
        return counter.used - (now - counter.since) * self.amount if now > counter.since else counter.used

    def room(self, counter: Counter | None, now: int, cost: int) -> int:
        return (self.burst * self.length - self._missing(counter, now)) // self.length - cost

    def take(self, counter: Counter | None, now: int, cost: int, lease: str = "") -> Counter:
        missing = max(0, self._missing(counter, now)) + cost * self.length
        since = max(now, counter.since) if counter is not None else now
        if counter is None:
            counter = Counter()
        counter.used, counter.since, counter.until = missing, since, since - (-missing // self.amount)
        counter.full = missing > (self.burst - 1) * self.length
        return counter

    def wait(self, counter: Counter | None, now: int, cost: int) -> int:
        missing = max(0, self._missing(counter, now)) + (min(cost, self.burst) - self.burst) * self.length
        stepped_back = max(0, counter.since - now) if counter is not None else 0
        return stepped_back - (-missing // self.amount) if missing > 0 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency(Limit):
    """So many at the same time. Each holds a lease, which ends by itself where nobody gives it back.

    No lease of a counter ends before `since` or after `until`, so that most requests need not look at each.
    """

    kind = "concurrency"
    lease: int = 600 * SECOND
    """Microseconds after which a slot is free again."""

    def _held(self, counter: Counter | None, now: int) -> int:
        if counter is None or counter.leases is None or counter.until <= now:
            return 0
        if counter.since <= now:
            counter.leases = {name: end for name, end in counter.leases.items() if end > now}
            counter.since = min(counter.leases.values(), default=counter.until)
        return len(counter.leases)

    def room(self, counter: Counter | None, now: int, cost: int) -> int:
        return self.amount - self._held(counter, now) - cost

    def take(self, counter: Counter | None, now: int, cost: int, lease: str = "") -> Counter:
        if counter is None:
            counter = Counter()
        if not self._held(counter, now) or counter.leases is None:
            counter.leases, counter.since, counter.until = {}, now + self.lease, 0
        if cost:
            counter.leases[lease] = now + self.lease
            counter.since = min(counter.since, now + self.lease)
            counter.until = max(counter.until, now + self.lease)
        counter.full = len(counter.leases) >= self.amount
        return counter

    def give_back(self, counter: Counter, lease: str) -> Counter:
        """End a lease. One that has ended, or never was, changes nothing."""
        if counter.leases is not None:
            counter.leases.pop(lease, None)
            counter.full = len(counter.leases) >= self.amount
            if not counter.leases:
                counter.until = 0
        return counter

    def wait(self, counter: Counter | None, now: int, cost: int) -> int:
        """Nobody knows when a request ends; a second is a fair time to ask again."""
        return SECOND if self.room(counter, now, cost) < 0 else 0

    def reset(self, counter: Counter | None, now: int) -> int:
        return now
