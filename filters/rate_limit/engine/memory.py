"""Deciding on any number of limits at once, all or nothing, and the counters in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from filters.rate_limit.engine.algorithms import Concurrency, Counter
from filters.rate_limit.engine.decision import Decision, Figure, Hit


class Memory:
    """Counters in memory, at most `capacity` of them.

    Where it is full, ended counters go first, then the oldest that is not exhausted. An exhausted one stays until its
    own end; where nothing can go, a new key passes or not as `on_error` says, and `uncounted` says how often.
    """

    name = "memory"
    LOOK = 64
    """Keys that one new key may look at to find its place."""

    def __init__(self, capacity: int = 1_000_000) -> None:
        self.uncounted = 0
        self._capacity = capacity
        self._counters: dict[str, Counter] = {}
        self._order: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._counters)

    def decide(self, now: int, hits: Sequence[Hit]) -> Decision:
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
        return Decision(admitted, now, tuple(figures), self.uncounted != uncounted)

    def _decide_one(self, now: int, hit: Hit) -> Decision:
        """The same for one limit, as most routes have it."""
        limit, key, cost, lease = hit
        counter = self._counters.get(key)
        room = limit.room(counter, now, cost or limit.least)
        if room < 0 or not cost:
            figure = self._figure(now, hit, counter, room, False)
            return Decision(room >= 0 or limit.shadow, now, (figure,))
        if counter is None and self._must_not_pass(now, (hit,), (None,)):
            return self._refused(now)
        taken = limit.take(counter, now, cost, lease)
        kept = counter is not None or self._keep(key, taken, now)
        return Decision(True, now, (Figure(limit, room, limit.reset(taken, now), 0, False),), not kept)

    def _must_not_pass(self, now: int, hits: Sequence[Hit], found: Sequence[Counter | None]) -> bool:
        """Whether a limit that nobody passes uncounted finds no place for its new counter."""
        if len(self._counters) + len(hits) <= self._capacity:
            return False
        new = [hit for hit, counter in zip(hits, found, strict=True) if counter is None]
        if all(hit.limit.allow_on_error for hit in new):
            return False
        for _ in new:
            self._look(now, self.LOOK, len(new))
        return len(self._counters) + len(new) > self._capacity

    def _refused(self, now: int) -> Decision:
        self.uncounted += 1
        return Decision(False, now, (), uncounted=True)

    def _figure(self, now: int, hit: Hit, counter: Counter | None, room: int, admitted: bool) -> Figure:
        """Take what an admitted request costs, and say how the limit stands then."""
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
        """Count what has already happened, such as the bytes of an answer, even beyond the limit."""
        for limit, key, cost, lease in hits:
            counter = self._counters.get(key)
            taken = limit.take(counter, now, cost, lease)
            if counter is None:
                self._keep(key, taken, now)

    def release(self, hits: Iterable[Hit]) -> None:
        """Give slots back."""
        for limit, key, _, lease in hits:
            counter = self._counters.get(key)
            if counter is not None and isinstance(limit, Concurrency):
                limit.give_back(counter, lease)

    def listed(self, prefix: str = "") -> tuple[int, list[tuple[str, Counter]]]:
        """`uncounted`, and the counters whose key begins with `prefix`, in no order; also for another thread."""
        found = list(self._counters.items())
        return self.uncounted, [one for one in found if one[0].startswith(prefix)]

    def close(self) -> None:
        """Nothing is held."""

    def reset(self, prefix: str) -> int:
        """Forget the counters whose key begins with `prefix`, also from another thread. Returns how many."""
        keys = [key for key in list(self._counters) if key.startswith(prefix)]
        return sum(self._counters.pop(key, None) is not None for key in keys)

    def _keep(self, key: str, counter: Counter, now: int) -> bool:
        """Store a new counter where there is a place, and look at old ones, so that those that ended go by themselves."""
        counters = self._counters
        self._look(now, 2 if len(counters) < self._capacity else self.LOOK, 1)
        if len(counters) >= self._capacity:
            self.uncounted += 1
            return False
        counters[key] = counter
        self._order.append(key)
        return True

    def _look(self, now: int, count: int, wanted: int) -> None:
        """Look at the oldest `count` counters: what ended goes, and while `wanted` have no place what is not full."""
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
