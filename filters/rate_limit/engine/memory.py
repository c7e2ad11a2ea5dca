"""Counters in memory, and decisions on any number of limits at once: all are counted, or none."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from filters.rate_limit.engine.algorithms import Concurrency, Counter
from filters.rate_limit.engine.decision import Figure, Hit, LimitDecision, Taken


class Memory:
    """Counters in memory, at most `capacity` of them.

    If the memory is full, a new counter replaces one that has ended, or else the oldest that is not exhausted. An
    exhausted counter stays until its own end. If no counter can be replaced, `on_error` decides on the new key, and
    `uncounted` is the number of such decisions.
    """

    name = "memory"
    LOOK = 64
    """Counters that one new key may inspect to find room."""

    def __init__(self, capacity: int = 1_000_000) -> None:
        self.uncounted = 0
        self._capacity = capacity
        self._counters: dict[str, Counter] = {}
        self._order: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._counters)

    def decide(self, now: int, hits: Sequence[Hit]) -> LimitDecision:
        """Admit and count all, or count nothing."""
        if len(hits) == 1:
            return self._decide_one(now, hits[0])
        get = self._counters.get
        found = [get(hit[1]) for hit in hits]
        rooms = [
            limit.room(counter, now, cost or limit.least)
            for (limit, _, cost, _), counter in zip(hits, found, strict=True)
        ]
        admitted = all(room >= 0 or hit[0].shadow for hit, room in zip(hits, rooms, strict=True))
        if admitted and None in found and self._must_not_pass(now, hits, found):
            return self._refused(now)
        uncounted = self.uncounted
        figures = [
            self._figure(now, hit, counter, room, admitted)
            for hit, counter, room in zip(hits, found, rooms, strict=True)
        ]
        return LimitDecision(admitted, now, tuple(figures), self.uncounted != uncounted)

    def _decide_one(self, now: int, hit: Hit) -> LimitDecision:
        """The same as `decide` for one limit, because most routes have one."""
        limit, key, cost, lease = hit
        counter = self._counters.get(key)
        room = limit.room(counter, now, cost or limit.least)
        if room < 0 or not cost:
            figure = self._figure(now, hit, counter, room, False)
            return LimitDecision(room >= 0 or limit.shadow, now, (figure,))
        if counter is None and self._must_not_pass(now, (hit,), (None,)):
            return self._refused(now)
        taken = limit.take(counter, now, cost, lease)
        kept = counter is not None or self._keep(key, taken, now)
        return LimitDecision(True, now, (Figure(limit, room, limit.reset(taken, now), 0, False),), not kept)

    def _must_not_pass(self, now: int, hits: Sequence[Hit], found: Sequence[Counter | None]) -> bool:
        """True if a limit with `on_error: deny` has no room for its new counter."""
        if len(self._counters) + len(hits) <= self._capacity:
            return False
        new = [hit for hit, counter in zip(hits, found, strict=True) if counter is None]
        if all(hit.limit.allow_on_error for hit in new):
            return False
        for _ in new:
            self._look(now, self.LOOK, len(new))
        return len(self._counters) + len(new) > self._capacity

    def _refused(self, now: int) -> LimitDecision:
        self.uncounted += 1
        return LimitDecision(False, now, (), uncounted=True)

    def _figure(self, now: int, hit: Hit, counter: Counter | None, room: int, admitted: bool) -> Figure:
        """Take the cost of an admitted request. Returns the state of the limit after that."""
        limit, key, cost, lease = hit
        if room < 0:
            if counter is not None:
                counter.full = True
            asked = cost or limit.least
            wait = limit.wait(counter, now, asked)
            return Figure(limit, max(0, room + asked), limit.reset(counter, now), wait, True)
        if not admitted or not cost:
            return Figure(limit, room + (cost or limit.least), limit.reset(counter, now), 0, False)
        taken = limit.take(counter, now, cost, lease)
        if counter is None:
            self._keep(key, taken, now)
        return Figure(limit, room, limit.reset(taken, now), 0, False)

    def charge(self, now: int, hits: Iterable[Hit]) -> None:
        """Count a cost that has already occurred, such as the bytes of a response, even beyond the limit."""
        for limit, key, cost, lease in hits:
            counter = self._counters.get(key)
            taken = limit.take(counter, now, cost, lease)
            if counter is None:
                self._keep(key, taken, now)

    def give_back(self, now: int, taken: Iterable[Taken]) -> None:
        """Give back a part of what decisions took, each in its window only."""
        for limit, key, cost, since, until in taken:
            counter = self._counters.get(key)
            if counter is not None:
                limit.give_back(counter, now, cost, since, until)

    def release(self, hits: Iterable[Hit]) -> None:
        """Give slots back."""
        for limit, key, _, lease in hits:
            counter = self._counters.get(key)
            if counter is not None and isinstance(limit, Concurrency):
                limit.release(counter, lease)

    def listed(self, prefix: str = "") -> tuple[int, list[tuple[str, Counter]]]:
        """`uncounted`, and the counters whose key begins with `prefix`, in no order. Any thread may call it."""
        found = list(self._counters.items())
        return self.uncounted, [one for one in found if one[0].startswith(prefix)]

    def close(self) -> None:
        """Do nothing: memory holds no resource."""

    def reset(self, prefix: str) -> int:
        """Remove the counters whose key begins with `prefix`. Any thread may call it. Returns the number of them."""
        keys = [key for key in list(self._counters) if key.startswith(prefix)]
        return sum(self._counters.pop(key, None) is not None for key in keys)

    def _keep(self, key: str, counter: Counter, now: int) -> bool:
        """Store a new counter if there is room, and inspect old ones to remove those that ended."""
        counters = self._counters
        self._look(now, 2 if len(counters) < self._capacity else self.LOOK, 1)
        if len(counters) >= self._capacity:
            self.uncounted += 1
            return False
        counters[key] = counter
        self._order.append(key)
        return True

    def _look(self, now: int, count: int, wanted: int) -> None:
        """Inspect the oldest `count` counters.

        Remove those that ended, and, while `wanted` find no room, those not full.
        """
        counters, order = self._counters, self._order
        for _ in range(min(count, len(order))):
            oldest = order.popleft()
            known = counters.get(oldest)
            if known is None:
                continue
            missing = len(counters) + wanted > self._capacity
            if known.until <= now or (missing and not known.full):
                del counters[oldest]
                if missing and len(counters) + wanted <= self._capacity:
                    break
            else:
                order.append(oldest)
