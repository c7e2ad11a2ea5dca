"""Brings batches from the spool to the store, in a thread of its own, as long as there are any."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from xds_server.database import DatabaseFailed
from xds_server.translate.usage_entry import SEPARATOR
from xds_server.usage import rollup
from xds_server.usage.metrics import UsageMetrics
from xds_server.usage.rollup import Batch, Counted, Seen
from xds_server.usage.spool import Part, Position, Spool
from xds_server.usage.spool_format import Found
from xds_server.usage.store import KEPT, Store, StoreReplacedError

log = logging.getLogger(__name__)

PART = 1 << 20
"""Bytes of the spool for one transaction."""
SHORTEST, LONGEST = 0.1, 5.0
"""Seconds before the store is tried again. The time doubles with each failure."""
FORGET = 600.0
"""Seconds between two removals of batches that are too old to be sent again."""


class Roller:
    """Counts the batches of a spool in a store. `interval` is the time in seconds between two transactions.

    `failure` is the last error of the store, or None if the store works. `oldest` is the arrival of the oldest batch
    that is not counted, or None if there is none.
    """

    def __init__(
        self,
        spool: Spool,
        store: Store,
        metrics: UsageMetrics,
        *,
        interval: float = 1.0,
        window: int = rollup.WINDOW,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.failure: str | None = None
        self.oldest: int | None = None
        self._spool, self._store, self._metrics = spool, store, metrics
        self._interval, self._clock = interval, clock
        self._seen, self._window = Seen(window), window
        self._segments: deque[tuple[int, int]] = deque()
        """Segments and the number of their entries, the oldest first: the window of entries must stay on disk."""
        self._at = self._stored = Position(0, 0)
        """How far the spool is read, and how far the store says that it is counted."""
        self._forget_at = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="roller", daemon=True)

    def start(self) -> None:
        """Begin to count."""
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Count what is in the spool, for at most some seconds. Returns False if some of it is left."""
        self._ending.set()
        self._thread.join(seconds)
        return not self._thread.is_alive() and self._at >= self._spool.durable

    @property
    def age(self) -> float:
        """Seconds since the arrival of the oldest batch that is not in the store, or 0."""
        oldest = self.oldest
        return 0.0 if oldest is None else max(0.0, self._clock() - oldest)

    def _run(self) -> None:
        if not self._patiently(self.begin):
            return
        while True:
            ending = self._ending.is_set()
            self._spool.wait(self._at, 0.0 if ending else self._interval)
            if not self._patiently(self.counted_next()):
                return
            self._patiently(self._forget)
            behind = self._at < self._spool.durable
            if ending and not behind:
                return
            if not behind:
                self._ending.wait(self._interval)

    def _patiently(self, work: Callable[[], None]) -> bool:
        """Do work with the store until it succeeds. Returns False if the server ends and the work fails."""
        pause = SHORTEST
        while True:
            try:
                work()
            except DatabaseFailed as failure:
                self._failed(str(failure))
            except Exception as error:  # the entries stay in the spool, and the next start tries them again
                self._failed(repr(error))
                log.exception("counting failed")
            else:
                if self.failure is not None:
                    log.info("the usage store works again store=%s", self._store.name)
                self.failure = None
                return True
            if self._ending.wait(pause):
                return False
            pause = min(2 * pause, LONGEST)

    def _failed(self, why: str) -> None:
        self._metrics.store_failures.inc()
        if self.failure != why:
            log.error(
                "the usage store failed; entries wait in the spool until it works store=%s error=%s",
                self._store.name,
                why,
            )
        self.failure = why

    def begin(self) -> None:
        """Find out how far the spool is counted, and remember the entries before that."""
        self._store.migrate()
        end = self._store.position(self._spool.name)
        self._seen = Seen(self._window)
        self._segments.clear()
        at = self._spool.first
        while at < end:
            part = self._spool.read(at, PART)
            for found in part.records:
                if Position(at.segment, at.offset + found.end) <= end:
                    self._remember(at.segment, found)
            if part.end == at:
                break
            at = part.end
        self._at = self._stored = end
        self._spool.rolled(end, self._keep())

    def counted_next(self) -> Callable[[], None]:
        """Count the next part of the spool. Returns a function that adds the counts to the store; it may be repeated."""
        part = self._spool.read(self._at, PART)
        batches = [_batch(found) for found in part.records]
        return partial(self._add, part, batches, self._counted(part, batches))

    def _remember(self, segment: int, found: Found) -> None:
        entries = _batch(found).entries
        for entry in entries:
            self._seen.new(entry.split(SEPARATOR, 2)[1])
        self._note(segment, len(entries))

    def _counted(self, part: Part, batches: Sequence[Batch]) -> Counted:
        if batches:
            self.oldest = batches[0].arrival
            self._note(self._at.segment, sum(len(batch.entries) for batch in batches))
        if part.corrupt:
            self._metrics.corrupt.inc(part.corrupt)
            log.error("the spool is damaged; entries in it are lost bytes=%d", part.corrupt)
        return rollup.count(batches, self._seen)

    def _add(self, part: Part, batches: Sequence[Batch], counted: Counted) -> None:
        """Bring a part of the spool to the store."""
        now = self._clock()
        if batches:
            name, begin = self._spool.name, self._stored
            try:
                added = self._store.add(name, begin, part.end, batches, counted, int(now))
            except StoreReplacedError:
                log.warning("the usage store was replaced; the spool is counted again from where it is")
                self.begin()
                return
            self._stored = part.end
            self._metrics.counted.labels("counted").inc(added)
            self._metrics.counted.labels("duplicate").inc(sum(len(one.entries) for one in batches) - added)
            self._metrics.misdated.inc(counted.misdated)
        if part.end != self._at:
            self._at = part.end
            self._spool.rolled(self._at, self._keep())
        if self._at >= self._spool.durable:
            self.oldest = None

    def _forget(self) -> None:
        """Remove batches from the store that are not sent again."""
        now = self._clock()
        if now >= self._forget_at:
            self._store.forget(int(now) - KEPT)
            self._forget_at = now + FORGET

    def _note(self, segment: int, entries: int) -> None:
        """Count the entries of a segment, and forget the segments before the window."""
        if self._segments and self._segments[-1][0] == segment:
            entries += self._segments.pop()[1]
        self._segments.append((segment, entries))
        in_window = sum(number for _, number in self._segments)
        while in_window - self._segments[0][1] >= self._window:
            in_window -= self._segments.popleft()[1]

    def _keep(self) -> int:
        """Return the oldest segment that the window needs, so that it can be remembered after a restart."""
        return self._segments[0][0] if self._segments else self._at.segment


def _batch(found: Found) -> Batch:
    arrival, identity, payload = found.record
    return Batch(identity, arrival, payload.decode("utf-8", "replace").split("\n"))
