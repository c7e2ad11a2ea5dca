"""The protocol between workers and the owner process: its frames, and both sides of a connection.

This module handles bytes and values and does no IO. A frame is its length (4 bytes, little-endian) and a value in the
format of `marshal`, which needs one call of C for all decisions of a turn. Both sides are forked from one program and
meet in a folder that no other user can enter.

A worker sends a list of operations in each frame. The owner answers each frame in order, with its clock and the figures
of each decision. A worker announces a limit once on a connection, and uses its number from then on.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from filters.rate_limit.engine.algorithms import (
    Concurrency,
    Counter,
    FixedWindow,
    Limit,
    SlidingWindow,
    TokenBucket,
)
from filters.rate_limit.engine.decision import Figure, Hit, LimitDecision, Taken
from filters.rate_limit.engine.memory import Memory

ANNOUNCE, DECIDE, CHARGE, RELEASE, RESET, LIST, GIVE_BACK = range(7)
HELLO = "counters"
"""The value of an owner's first frame, so that a worker does not wait for an owner that has not started."""
LONGEST = 1 << 28
"""Bytes of the longest frame."""
MOST_LIMITS = 100_000
"""Limits that are announced on one connection. After that the numbers begin again."""
_LENGTH = 4
_KINDS: dict[str, type[Limit]] = {
    one.kind: one for one in (FixedWindow, SlidingWindow, TokenBucket, Concurrency)
}


def frame(value: Any) -> bytes:
    """The frame of a value."""
    body = marshal.dumps(value)
    return len(body).to_bytes(_LENGTH, "little") + body


class Frames:
    """Bytes in, the values of complete frames out, however the bytes are split."""

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, data: bytes) -> list[Any]:
        """The values of the frames that are complete now. Raises ValueError for a frame that is too long."""
        if self._rest:
            data = self._rest + data
        begin, values = 0, []
        while len(data) - begin >= _LENGTH:
            length = int.from_bytes(data[begin : begin + _LENGTH], "little")
            if length > LONGEST:
                raise ValueError(f"a frame of {length} bytes")
            end = begin + _LENGTH + length
            if len(data) < end:
                break
            values.append(marshal.loads(data[begin + _LENGTH : end]))  # noqa: S302 - written by ourselves
            begin = end
        self._rest = data[begin:]
        return values


class Asking:
    """The worker's side of a connection: numbers for at most `most_limits` limits, and frames of operations."""

    def __init__(self, most_limits: int = MOST_LIMITS) -> None:
        self._most_limits = most_limits
        self._numbers: dict[int, tuple[int, Limit]] = {}
        """By identity, which is cheaper than equality. The value holds the limit, so its identity stays valid."""

    def frame(self, asked: Iterable[tuple[int, Sequence[Hit | Taken]]]) -> bytes:
        """The frame of operations with their hits, or with what they give back.

        It begins with the limits that the owner does not know yet.
        """
        operations: list[tuple[Any, ...]] = []
        numbers = self._numbers
        for operation, hits in asked:
            if len(numbers) >= self._most_limits:
                numbers.clear()
            told = []
            for hit in hits:
                limit = hit[0]
                known = numbers.get(id(limit))
                if known is None:
                    known = numbers[id(limit)] = len(numbers), limit
                    operations.append((ANNOUNCE, known[0], limit.kind, _described(limit)))
                told.append((known[0], *hit[1:]))
            operations.append((operation, told))
        return frame(operations)


def _described(limit: Limit) -> dict[str, Any]:
    return {one.name: getattr(limit, one.name) for one in fields(limit) if one.init}


def decision(hits: Sequence[Hit | Taken], now: int, answer: Sequence[Any]) -> LimitDecision:
    """The decision on `hits` by the owner's figures. There are none if the owner had no room for a counter."""
    figures = [
        Figure(hit[0], *answer[place : place + 4])
        for hit, place in zip(hits, range(2, len(answer), 4), strict=False)
    ]
    return LimitDecision(answer[0], now, tuple(figures), answer[1])


class Answering:
    """The owner's side of one connection, with the counters of all."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._limits: dict[int, Limit] = {}

    def answer(self, operations: Iterable[Sequence[Any]], now: int) -> bytes:
        """The frame that answers a frame of operations, at the moment `now`."""
        limits, memory = self._limits, self._memory
        answers = []
        for operation in operations:
            if operation[0] == ANNOUNCE:
                _, number, kind, described = operation
                limits[number] = _KINDS[kind](**described)
                continue
            if operation[0] == GIVE_BACK:
                memory.give_back(now, [Taken(limits[number], *rest) for number, *rest in operation[1]])
                continue
            hits = [Hit(limits[number], key, cost, lease) for number, key, cost, lease in operation[1]]
            if operation[0] == DECIDE:
                answers.append(_figures(memory.decide(now, hits)))
            elif operation[0] == CHARGE:
                memory.charge(now, hits)
            else:
                memory.release(hits)
        return frame((now, answers))


def _figures(decision: LimitDecision) -> tuple[Any, ...]:
    """The flags `admitted` and `uncounted`, and four plain numbers for each limit."""
    admitted, _, figures, uncounted = decision
    if len(figures) == 1:
        return (admitted, uncounted, *figures[0][1:])
    return (admitted, uncounted, *(number for one in figures for number in one[1:]))


def listed(counters: Iterable[tuple[str, Counter]]) -> list[tuple[Any, ...]]:
    """Counters with their keys, as plain values."""
    return [
        (key, one.born, one.until, one.used, one.since, one.before, one.full, one.leases)
        for key, one in counters
    ]


def unlisted(values: Iterable[Sequence[Any]]) -> Iterator[tuple[str, Counter]]:
    """The counters of plain values, the inverse of `listed`."""
    for key, born, *state in values:
        one = Counter(born)
        one.until, one.used, one.since, one.before, one.full, one.leases = state
        yield key, one
