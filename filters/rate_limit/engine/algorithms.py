"""The algorithms: the rest of a limit, the cost of a request, and the time until more is available.

They use whole numbers only, so nothing is lost to rounding. Moments are microseconds of Unix time, and callers pass
them in. If the clock jumps back, no window opens again, because a counter keeps its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from filters.rate_limit.engine.windows import LENGTHS, SECOND, Window, end_of

Unit = Literal["requests", "content-bytes", "concurrent-requests"]
"""The quota units of draft-ietf-httpapi-ratelimit-headers-11 section 2.1."""


class Counter:
    """The count of one key. After `until` the counter can be removed. `full` is true if no more is admitted.

    The count begins at `born`. A counter that was lost or reset knows nothing of what was taken before.
    """

    __slots__ = ("before", "born", "full", "leases", "since", "until", "used")

    def __init__(self, born: int = 0) -> None:
        self.born = born
        self.until = 0
        self.used = 0
        self.since = 0
        self.before = 0
        self.full = False
        self.leases: dict[str, int] | None = None

    def copy(self) -> Counter:
        """A copy of the present state, for another thread than the one that counts."""
        result = Counter(self.born)
        result.until, result.used, result.since = self.until, self.used, self.since
        result.before, result.full = self.before, self.full
        result.leases = None if self.leases is None else self.leases.copy()
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The base of all limits. `name` is unique on a route, and clients read it.

    A limit with `shadow` counts and never rejects. `allow_on_error` is the decision if the counters cannot be reached.
    If it is None, the call fails, and the calling Envoy decides. A request of cost 0 passes if `least` is left.
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
        """The rest after `cost`: below 0 if the cost is too much."""
        raise NotImplementedError

    def take(self, counter: Counter | None, now: int, cost: int, lease: str = "") -> Counter:
        """Count `cost`, even if there is no room. Returns the counter, which may be new."""
        raise NotImplementedError

    def give_back(self, counter: Counter, now: int, cost: int, since: int, until: int) -> None:
        """Undo a part of a take. `since` is the moment of the take, and `until` is what `reset` returned after it.

        What would give room to another window, or to a counter that began after the take, is not given back.
        """
        raise NotImplementedError

    def wait(self, counter: Counter | None, now: int, cost: int) -> int:
        """Microseconds until `cost` may be admitted, at the earliest."""
        raise NotImplementedError

    def reset(self, counter: Counter | None, now: int) -> int:
        """The moment at which the whole limit is available again, if no further request comes."""
        return now if counter is None or counter.until <= now else counter.until


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedWindow(Limit):
    """A limit in each window: a window of the calendar, or one that begins with the first request (`rolling`)."""

    kind = "fixed_window"
    zone: str = "UTC"
    rolling: bool = False

    def room(self, counter: Counter | None, now: int, cost: int) -> int:
        if counter is None or counter.until <= now:
            return self.amount - cost
        return self.amount - counter.used - cost

    def take(self, counter: Counter | None, now: int, cost: int, lease: str = "") -> Counter:
        if counter is None:
            counter = Counter(now)
        if counter.until <= now:
            counter.until = now + self.length if self.rolling else end_of(now, self.per, self.zone)
            counter.used, counter.born = 0, now
        counter.used += cost
        counter.full = counter.used >= self.amount
        return counter

    def give_back(self, counter: Counter, now: int, cost: int, since: int, until: int) -> None:
        """Give back in the same window only."""
        if counter.born <= since and now < counter.until == until:
            counter.used = max(0, counter.used - cost)
            counter.full = counter.used >= self.amount

    def wait(self, counter: Counter | None, now: int, cost: int) -> int:
        return self.reset(counter, now) - now

    def reset(self, counter: Counter | None, now: int) -> int:
        if counter is not None and counter.until > now:
            return counter.until
        return now + self.length if self.rolling else end_of(now, self.per, self.zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindow(Limit):
    """A limit in any window, from two counts.

    Of the earlier count it takes the share that the window covers, rounded up.
    """

    kind = "sliding_window"

    def _counts(self, counter: Counter | None, now: int) -> tuple[int, int, int]:
        """The previous count, the present count, and the elapsed microseconds of the present window."""
        elapsed = now % self.length
        if counter is None or counter.until <= now:
            return 0, 0, elapsed
        if now < counter.since:  # the clock jumped back: go on at the counter's own moment
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
            counter = Counter(now)
        elif counter.until <= now:
            counter.born = now
        counter.before, counter.used, counter.since = before, used + cost, since
        counter.until = since + 2 * self.length
        counter.full = self.room(counter, now, 1) < 0
        return counter

    def give_back(self, counter: Counter, now: int, cost: int, since: int, until: int) -> None:
        """Give back to the window that the requests were counted in, as long as its count matters."""
        if counter.born > since or counter.until <= now:
            return
        if counter.until == until:
            counter.used = max(0, counter.used - cost)
        elif counter.until == until + self.length:
            counter.before = max(0, counter.before - cost)
        counter.full = self.room(counter, now, 1) < 0

    def wait(self, counter: Counter | None, now: int, cost: int) -> int:
        before, used, elapsed = self._counts(counter, now)
        length, stepped_back = self.length, max(0, counter.since - now) if counter is not None else 0
        if used + cost <= self.amount:
            return stepped_back + max(0, self._enough(before, self.amount - used - cost) - elapsed)
        return stepped_back + length - elapsed + self._enough(used, self.amount - cost)

    def _enough(self, before: int, room: int) -> int:
        """The elapsed microseconds of a window after which the previous count takes no more than `room`."""
        return self.length - max(0, room) * self.length // before if before > max(0, room) else 0

    def reset(self, counter: Counter | None, now: int) -> int:
        if counter is None or counter.until <= now:
            return now
        return counter.until if counter.used else counter.since + self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBucket(Limit):
    """A bucket of `burst` tokens, refilled evenly with `amount` in each period.

    A counter's `used` is the number of taken tokens times the length of the period, so a microsecond refills `amount`.
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
        if counter is None:
            counter = Counter(now)
        elif counter.until <= now:
            counter.born = now
        self._lack(counter, now, max(0, self._missing(counter, now)) + cost * self.length)
        return counter

    def _lack(self, counter: Counter, now: int, missing: int) -> None:
        since = max(now, counter.since)
        counter.used, counter.since, counter.until = missing, since, since - (-missing // self.amount)
        counter.full = missing > (self.burst - 1) * self.length

    def give_back(self, counter: Counter, now: int, cost: int, since: int, until: int) -> None:
        """Give back less the tokens that the time has refilled since the take.

        If the bucket was full in between, these tokens are in it already, and others may have taken them.
        """
        back = cost * self.length - max(0, now - since) * self.amount
        if back > 0 and counter.born <= since and counter.until > now:
            self._lack(counter, now, max(0, self._missing(counter, now) - back))

    def wait(self, counter: Counter | None, now: int, cost: int) -> int:
        missing = max(0, self._missing(counter, now)) + (min(cost, self.burst) - self.burst) * self.length
        stepped_back = max(0, counter.since - now) if counter is not None else 0
        return stepped_back - (-missing // self.amount) if missing > 0 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency(Limit):
    """A limit on the requests at the same time. Each holds a lease, which ends by itself if it is not given back.

    No lease of a counter ends before `since` or after `until`, so most requests need not inspect every lease.
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
            counter = Counter(now)
        if not self._held(counter, now) or counter.leases is None:
            counter.leases, counter.since, counter.until = {}, now + self.lease, 0
        if cost:
            counter.leases[lease] = now + self.lease
            counter.since = min(counter.since, now + self.lease)
            counter.until = max(counter.until, now + self.lease)
        counter.full = len(counter.leases) >= self.amount
        return counter

    def release(self, counter: Counter, lease: str) -> Counter:
        """End a lease. An unknown lease, or one that has ended, changes nothing."""
        if counter.leases is not None:
            counter.leases.pop(lease, None)
            counter.full = len(counter.leases) >= self.amount
            if not counter.leases:
                counter.until = 0
        return counter

    def give_back(self, counter: Counter, now: int, cost: int, since: int, until: int) -> None:
        """Do nothing, because slots are released."""

    def wait(self, counter: Counter | None, now: int, cost: int) -> int:
        """One second, because the end of a request is not known in advance."""
        return SECOND if self.room(counter, now, cost) < 0 else 0

    def reset(self, counter: Counter | None, now: int) -> int:
        return now
