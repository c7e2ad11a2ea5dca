"""The commands that run the script of the counters in Redis: packed limits, keys and operations.

limits.lua describes the form of the arguments.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

from filters.rate_limit.engine.algorithms import Concurrency, FixedWindow, Limit, SlidingWindow, TokenBucket
from filters.rate_limit.engine.decision import Hit, LimitDecision, Taken
from filters.rate_limit.engine.windows import SECOND, end_of, has_even_windows

SCRIPT = resources.files(__package__).joinpath("limits.lua").read_text()
SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
PREFIX = "xds:2:"
"""Every key begins with it. Its number changes with the form of the counters, so that no script reads an unknown form."""
DESCRIBED = 10_000
"""Limits whose description for the script is kept."""
DECIDE, CHARGE, RELEASE, GIVE_BACK = range(1, 5)
"""The operations of the script."""
_KINDS: dict[type[Limit], int] = {FixedWindow: 1, SlidingWindow: 2, TokenBucket: 3, Concurrency: 4}
_ONE, _LIMIT = struct.Struct("<Bdd"), struct.Struct("<8d")


class Call(NamedTuple):
    """One operation of the script. `asked` are all hits of the request, whose `on_error` decides without an answer."""

    operation: int
    now: int
    hits: Sequence[Hit | Taken]
    asked: Sequence[Hit | Taken]
    answer: asyncio.Future[LimitDecision]

    def answered(self, decision: LimitDecision) -> None:
        """Set the answer, unless the caller has given up."""
        if not self.answer.done():
            self.answer.set_result(decision)


class Script:
    """Builds the commands. Descriptions of limits are packed once and kept."""

    def __init__(self) -> None:
        self._described: dict[int, tuple[Limit, bytes, int, int]] = {}
        """By identity, which is cheaper than equality. The value holds the limit, so its identity stays valid."""

    def command(self, batch: Sequence[Call], *script: str) -> tuple[str | bytes | int, ...]:
        """The command that runs a `script`: EVAL with its text, or EVALSHA with its hash."""
        numbers: dict[int, int] = {}
        limits: list[bytes] = []
        keys: list[bytes] = []
        values: list[bytes | str] = []
        for operation, now, hits, _, _ in batch:
            packed: list[int] = []
            names: list[str] = []
            for hit in hits:
                limit = hit[0]
                number = numbers.get(id(limit))
                if number is None:
                    limits.append(self._description(limit, now))
                    number = numbers[id(limit)] = len(limits)
                keys.append(stored(hit[1]))
                packed += (number, hit[2])
                if isinstance(hit, Taken):
                    packed += (hit.since, hit.until)
                elif type(limit) is Concurrency:
                    names.append(hit[3])
            if len(packed) == 2:
                values.append(_ONE.pack(operation, *packed))
            else:
                values.append(struct.pack(f"<B{len(packed)}d", operation, *packed))
            values += names
        return (*script, len(keys), *keys, len(limits), *limits, *values)

    def _description(self, limit: Limit, now: int) -> bytes:
        known = self._described.get(id(limit))
        if known is not None and known[2] <= now < known[3]:
            return known[1]
        if len(self._described) >= DESCRIBED:
            self._described.clear()
        more, begin, end = _more(limit, now)
        packed = _LIMIT.pack(
            _KINDS[type(limit)], limit.amount, limit.length, limit.shadow, limit.least, *more
        )
        self._described[id(limit)] = limit, packed, begin, end
        return packed


def tag(key: str) -> str:
    """The part of a key that identifies the client, so that the keys of one client share a slot of a cluster."""
    return "|".join(part for part in key.split("|") if "=" in part)


@lru_cache(maxsize=16_384)
def stored(key: str) -> bytes:
    """The key in Redis."""
    return f"{PREFIX}{{{tag(key)}}}{key}".encode()


def _more(limit: Limit, now: int) -> tuple[tuple[int, int, int], int, int]:
    """Three more numbers of a limit for the script, and the moments between which they are valid.

    Of a fixed window: the ends of the present window and of its neighbours, of which the clock of Redis selects one; 0
    for windows of equal length, -1 for those that begin with a request.
    """
    always = 0, 2**63
    if isinstance(limit, TokenBucket):
        return (limit.burst, 0, 0), *always
    if isinstance(limit, Concurrency):
        return (limit.lease, 0, 0), *always
    if not isinstance(limit, FixedWindow) or (not limit.rolling and has_even_windows(limit.per, limit.zone)):
        return (0, 0, 0), *always
    if limit.rolling:
        return (-1, 0, 0), *always
    begin = now - SECOND * 60
    first = end_of(begin, limit.per, limit.zone)
    second = end_of(first, limit.per, limit.zone)
    return (first, second, end_of(second, limit.per, limit.zone)), begin, first + SECOND * 60
