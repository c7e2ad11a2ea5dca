"""The protocol between workers and the owner of their counters, as bytes: it changes nothing of what memory decides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.rate_limit.engine.algorithms import Concurrency, FixedWindow, Limit, SlidingWindow, TokenBucket
from filters.rate_limit.engine.decision import Hit, LimitDecision, Taken
from filters.rate_limit.engine.memory import Memory
from filters.rate_limit.engine.windows import SECOND
from filters.rate_limit.stores import owner_protocol

START = 1_792_890_000_000_000
LIMITS: tuple[Limit, ...] = (
    FixedWindow(name="fixed", amount=3, per="minute", zone="Europe/Berlin"),
    FixedWindow(name="rolling", amount=2, rolling=True, shadow=True),
    FixedWindow(name="bytes", amount=2**40, per="month", unit="content-bytes"),
    SlidingWindow(name="sliding", amount=4, per="minute", allow_on_error=False),
    TokenBucket(name="bucket", amount=2, per="second", burst=3),
    Concurrency(name="slots", amount=2, unit="concurrent-requests", lease=30 * SECOND),
)
hits = st.builds(
    lambda numbers, key, cost, lease: [Hit(LIMITS[n], f"{n}|{key}", cost, lease) for n in numbers],
    st.lists(st.integers(0, len(LIMITS) - 1), min_size=1, max_size=4, unique=True),
    st.sampled_from(["consumer=a", "ip=\u00e9", ""]),
    st.sampled_from([0, 1, 1, 2, 2**33]),
    st.sampled_from(["first", "second", "third"]),
)
turns = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.lists(
            st.tuples(
                st.sampled_from(
                    [owner_protocol.DECIDE] * 3 + [owner_protocol.CHARGE, owner_protocol.RELEASE]
                ),
                hits,
            ),
            max_size=5,
        ),
        st.sampled_from([0, 1, 400_000, SECOND, 61 * SECOND]),
    ),
    max_size=20,
)
Operations = Sequence[tuple[int, Sequence[Hit | Taken]]]


def alone(memory: Memory, now: int, operations: Operations) -> list[LimitDecision]:
    """What memory says to operations that are asked without anybody between."""
    decisions = []
    for operation, asked in operations:
        if operation == owner_protocol.DECIDE:
            decisions.append(memory.decide(now, asked))
        elif operation == owner_protocol.CHARGE:
            memory.charge(now, asked)
        else:
            memory.release(asked)
    return decisions


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(at)]


def through(frames: owner_protocol.Frames, data: bytes, cuts: list[int]) -> list[object]:
    return [value for piece in pieces(data, cuts) for value in frames.receive(piece)]


class Worker:
    """A worker and its connection, bytes and all."""

    def __init__(self, memory: Memory, asking: owner_protocol.Asking | None = None) -> None:
        self.asking = asking or owner_protocol.Asking()
        self.answering = owner_protocol.Answering(memory)
        self.there, self.back = owner_protocol.Frames(), owner_protocol.Frames()

    def ask(self, operations: Operations, now: int, cuts: list[int]) -> list[LimitDecision]:
        (asked,) = through(self.there, self.asking.frame(operations), cuts)
        ((answered_at, figures),) = through(self.back, self.answering.answer(asked, now), cuts)
        decided = [asked for operation, asked in operations if operation == owner_protocol.DECIDE]
        return [
            owner_protocol.decision(hits, answered_at, one)
            for hits, one in zip(decided, figures, strict=True)
        ]


@given(turns, st.lists(st.integers(0, 500), max_size=6))
def test_any_interleaving_and_any_split_gives_what_memory_alone_gives(given_turns, cuts) -> None:
    shared, model, now = Memory(capacity=4), Memory(capacity=4), START
    workers = [Worker(shared) for _ in range(3)]
    for number, operations, later in given_turns:
        now += later
        assert workers[number].ask(operations, now, cuts) == alone(model, now, operations)


@given(st.lists(hits, min_size=1, max_size=30), st.lists(st.integers(0, 3000), max_size=8))
def test_frames_that_come_together_are_taken_apart(asked, cuts) -> None:
    asking, frames = owner_protocol.Asking(), owner_protocol.Frames()
    sent = b"".join(asking.frame([(owner_protocol.DECIDE, one)]) for one in asked)
    assert len(through(frames, sent, cuts)) == len(asked)


def test_the_owner_gets_back_what_a_decision_took() -> None:
    memory, limit = Memory(), LIMITS[3]
    worker = Worker(memory)
    (first,) = worker.ask([(owner_protocol.DECIDE, [Hit(limit, "k", 3)])], START, [])
    back = [Taken(limit, "k", 2, first.now, first.figures[0].reset)]
    operations: Operations = [(owner_protocol.GIVE_BACK, back), (owner_protocol.DECIDE, [Hit(limit, "k", 0)])]
    assert worker.ask(operations, START, [])[0].figures[0].remaining == 3


def test_a_limit_is_announced_once_on_a_connection() -> None:
    asking, frames = owner_protocol.Asking(), owner_protocol.Frames()
    operations: Operations = [(owner_protocol.DECIDE, [Hit(LIMITS[0], "a"), Hit(LIMITS[1], "b")])]
    (first,) = frames.receive(asking.frame(operations))
    (second,) = frames.receive(asking.frame(operations))
    assert [one[0] for one in first] == [
        owner_protocol.ANNOUNCE,
        owner_protocol.ANNOUNCE,
        owner_protocol.DECIDE,
    ]
    assert [one[0] for one in second] == [owner_protocol.DECIDE]


def test_numbers_begin_anew_where_there_are_too_many() -> None:
    memory, model = Memory(), Memory()
    worker = Worker(memory, owner_protocol.Asking(most_limits=3))
    for number in range(20):
        limit = FixedWindow(name=f"l{number}", amount=number % 3 + 1, per="day")
        operations: Operations = [
            (owner_protocol.DECIDE, [Hit(limit, str(number % 5)), Hit(LIMITS[number % 4], "k")])
        ]
        assert worker.ask(operations, START, []) == alone(model, START, operations)


def test_a_length_that_nobody_sends_is_refused() -> None:
    with pytest.raises(ValueError, match="a frame of 4294967295 bytes"):
        owner_protocol.Frames().receive(b"\xff\xff\xff\xff")


def test_counters_are_told_as_they_are() -> None:
    memory = Memory()
    memory.decide(START, [Hit(LIMITS[0], "fixed"), Hit(LIMITS[5], "slots", 1, "first")])
    _, found = memory.listed()
    again = list(owner_protocol.unlisted(owner_protocol.listed(found)))
    assert [key for key, _ in again] == ["fixed", "slots"]
    for (_, one), (_, other) in zip(found, again, strict=True):
        assert [getattr(one, name) for name in one.__slots__] == [
            getattr(other, name) for name in one.__slots__
        ]
