"""Decisions on requests that cannot be counted, and pauses after failures of a store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter

from filters.rate_limit.engine.decision import Figure, Hit, LimitDecision, Taken
from filters.rate_limit.engine.windows import SECOND

log = logging.getLogger(__name__)

FAILURES = 5
"""Failures in a row after which a store gets no calls for a pause."""
PAUSE = 1.0
"""Seconds of that pause."""
QUIET = 60 * SECOND
"""Microseconds between two log lines about a store, or a memory, that is full."""


class Breaker:
    """The circuit breaker of a remote store. `lost` and `found` are the lines of the log when it fails and when it answers again.

    After some failures in a row the store gets no calls for a pause. `pause` and `clock` are in seconds.
    """

    def __init__(
        self, lost: str, found: str, *, pause: float = PAUSE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lost, self._found = lost, found
        self._pause = pause
        self._clock = clock
        self._failures = 0
        self._until = 0.0

    @property
    def is_open(self) -> bool:
        """True if the store gets no calls now."""
        return self._until > 0 and self._clock() < self._until

    def answered(self) -> None:
        """The store answered."""
        if self._failures >= FAILURES:
            log.warning("%s", self._found)
        self._failures, self._until = 0, 0.0

    def failed(self, error: BaseException) -> None:
        """The store did not answer, because of `error`."""
        if self.is_open:
            return
        self._failures += 1
        if self._failures == FAILURES:
            log.error("%s error=%s", self._lost, str(error) or type(error).__name__)
        if self._failures >= FAILURES:
            self._until = self._clock() + self._pause


class Circuit(Breaker):
    """The circuit breaker of a remote store of counters, which is `store` in metrics and `called` in the log.

    If the store does not answer, a request passes unless one of its limits has `on_error: deny`. The log has one line
    when the store stops answering, and one line when it answers again. `pause` and `clock` are in seconds.
    """

    def __init__(
        self,
        store: str,
        called: str,
        registry: CollectorRegistry,
        *,
        pause: float = PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            f"{called} does not answer; limits are not counted, and requests pass unless on_error is deny",
            f"{called} answers again; limits are counted",
            pause=pause,
            clock=clock,
        )
        self._store = store
        self._called = called
        self._quiet_until = 0.0
        self._crowded_until = 0.0
        self._unanswered = Counter(
            "xds_rate_limit_store_failures",
            "Decisions without an answer of the counters' store. outcome: allowed or denied (by the limits' on_error), "
            "failed (the on_error of Envoy's filter decides) or shed (too many requests waited for the store).",
            ["store", "outcome"],
            registry=registry,
        )

    def refused(self, error: BaseException) -> None:
        """The store answered with `error`, for example because it is full or read-only.

        It still knows the exhausted keys, so it gets the next calls at once. The log has one line a minute.
        """
        if self._clock() >= self._quiet_until:
            self._quiet_until = self._clock() + QUIET / SECOND
            log.error(
                "%s cannot count; requests that it cannot count pass unless on_error is deny error=%s",
                self._called,
                error,
            )

    def uncounted(self, now: int, hits: Sequence[Hit | Taken]) -> LimitDecision:
        """The decision on `hits` without counters."""
        answers = {hit.limit.allow_on_error for hit in hits}
        admitted = answers <= {True}
        outcome = "failed" if None in answers else "allowed" if admitted else "denied"
        self._unanswered.labels(self._store, outcome).inc()
        return LimitDecision(admitted, now, (), uncounted=True)

    def overloaded(self, now: int, hits: Sequence[Hit | Taken]) -> LimitDecision:
        """The decision on `hits` if too many others wait for the store already: each limit rejects, except in shadow.

        `on_error` does not apply, because the store works: many requests must not be a way past a limit. The log has
        one line a minute.
        """
        if self._clock() >= self._crowded_until:
            self._crowded_until = self._clock() + QUIET / SECOND
            log.error(
                "%s has more waiting requests than it can answer; their limits reject the others",
                self._called,
            )
        self._unanswered.labels(self._store, "shed").inc()
        figures = tuple(Figure(hit.limit, 0, now + SECOND, SECOND, True) for hit in hits)
        admitted = all(hit.limit.shadow for hit in hits)
        return LimitDecision(admitted, now, figures, uncounted=admitted)


class FullMemory:
    """Logs at most once a minute that the memory has no room for a new counter."""

    def __init__(self) -> None:
        self._quiet_until = 0

    def report(self, now: int) -> None:
        """A request could not be counted."""
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            log.error(
                "memory is full of exhausted counters; requests of new clients pass uncounted unless on_error is deny"
            )
