"""From entries to counts by hour, consumer, plan, route and status; each entry once. It does no IO and reads no clock."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from xds_server.translate.usage_entry import SEPARATOR
from xds_server.usage.entries import ABSENT
from xds_server.usage.latency import COLUMNS, bucket

HOUR = 3600
EARLY, LATE = 24 * HOUR, 31 * 24 * HOUR
"""Seconds by which the start of a request may be after and before the arrival of its entry. An entry of another
time is counted in the hour in which it arrived."""
WINDOW = 1 << 19
"""An entry that arrives again in another batch is recognized among at least so many entries before it."""
_MASK = (1 << 63) - 1
_FIRST_BUCKET = 4
WIDTH = _FIRST_BUCKET + len(COLUMNS)
"""The number of sums of a key."""


Key = tuple[int, str, str, str, str]
"""What is counted together: the hour since 1970 in UTC, consumer, plan, route and status. An absent value is ``-``."""
Sums = dict[Key, list[int]]
"""By key: the number of requests, the bytes of their bodies received and sent, their milliseconds, and how many of them
are in each bucket of `latency`."""


class Batch(NamedTuple):
    """The entries of one message. `identity` is a hash of them; `arrival` is in Unix seconds."""

    identity: bytes
    arrival: int
    entries: Sequence[str]


class Counted(NamedTuple):
    """The sums over some batches. `repeated` are the entries that were there before, as numbers of batch and entry.

    `misdated` entries are those counted in the hour of their arrival.
    """

    sums: Sums
    taken: int
    repeated: frozenset[tuple[int, int]]
    misdated: int


class Seen:
    """The last entries, so that none is counted twice: between `window` and twice as many.

    Two hash tables of 64-bit numbers with open addressing. A new table begins when one is half full, and the older
    one is dropped. A set of Python would need ten times the memory.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._size = 1 << (2 * window - 1).bit_length()
        self._young, self._in_young = self._table(), 0
        self._old = array("Q", [0])

    def new(self, identity: str) -> bool:
        """Remember an entry. Returns False if it was there before."""
        number = hash(identity) & _MASK or 1
        old, young = self._old, self._young
        mask = len(old) - 1
        slot = number & mask
        while found := old[slot]:
            if found == number:
                return False
            slot = (slot + 1) & mask
        mask = len(young) - 1
        slot = number & mask
        while found := young[slot]:
            if found == number:
                return False
            slot = (slot + 1) & mask
        young[slot] = number
        self._in_young += 1
        if self._in_young >= self._window:
            self._old, self._young, self._in_young = young, self._table(), 0
        return True

    def _table(self) -> array[int]:
        return array("Q", [0]) * self._size


def count(batches: Sequence[Batch], seen: Seen) -> Counted:
    """Return the sums over the entries that are new."""
    sums: Sums = {}
    repeated = set()
    taken = misdated = 0
    new = seen.new
    for at, (_, arrival, entries) in enumerate(batches):
        earliest, latest = arrival - LATE, arrival + EARLY
        for number, entry in enumerate(entries):
            _, identity, start, status, received, sent, lasted, route, consumer, plan = entry.split(SEPARATOR)
            if not new(identity):
                repeated.add((at, number))
                continue
            taken += 1
            begun = int(start)
            if not earliest <= begun <= latest:
                misdated += 1
                begun = arrival
            _add(sums, (begun // HOUR, consumer, plan, route, status), received, sent, lasted)
    return Counted(sums, taken, frozenset(repeated), misdated)


def count_again(batches: Sequence[Batch], before: Counted, without: AbstractSet[bytes]) -> Counted:
    """Return the same without some batches, which another server has counted."""
    fresh = [
        batch._replace(
            entries=[]
            if batch.identity in without
            else [entry for number, entry in enumerate(batch.entries) if (at, number) not in before.repeated]
        )
        for at, batch in enumerate(batches)
    ]
    again = count(fresh, Seen(sum(len(batch.entries) for batch in fresh) + 1))
    return again._replace(repeated=before.repeated)


def _add(sums: Sums, key: Key, received: str, sent: str, lasted: str) -> None:
    total = sums.get(key)
    if total is None:
        total = sums[key] = [0] * WIDTH
    total[0] += 1
    total[1] += int(received)
    total[2] += int(sent)
    if lasted != ABSENT:
        milliseconds = int(lasted)
        total[3] += milliseconds
        total[_FIRST_BUCKET + bucket(milliseconds)] += 1
