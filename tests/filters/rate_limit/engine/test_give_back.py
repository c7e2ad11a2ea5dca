"""What is given back never lets more pass than the limit, whatever the order, the time, and counters that are lost."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.rate_limit.engine.algorithms import FixedWindow, Limit, SlidingWindow, TokenBucket
from filters.rate_limit.engine.decision import Hit, Taken
from filters.rate_limit.engine.memory import Memory
from filters.rate_limit.engine.windows import SECOND

START = 1_792_890_000_123_456
LIMITS: tuple[Limit, ...] = (
    FixedWindow(name="fixed", amount=6),
    FixedWindow(name="rolling", amount=6, rolling=True),
    SlidingWindow(name="sliding", amount=6),
    TokenBucket(name="bucket", amount=3, burst=6),
)
steps = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 100_000, 400_000, 999_999, SECOND, 3 * SECOND]),
        st.sampled_from(["take", "take", "take", "give back", "give back", "lose"]),
        st.integers(1, 6),
    ),
    max_size=40,
)


@dataclass
class Part:
    """What one decision took, and what of it is not given back."""

    now: int
    until: int
    kept: int


def run(limit: Limit, given_steps: list[tuple[int, str, int]]) -> list[list[Part]]:
    """The parts that each life of the counter admitted."""
    memory, now, lives = Memory(), START, [list[Part]()]
    for step, action, number in given_steps:
        now += step
        parts = [part for life in lives for part in life if part.kept]
        if action == "take":
            decision = memory.decide(now, [Hit(limit, "k", number)])
            if decision.admitted:
                lives[-1].append(Part(now, decision.figures[0].reset, number))
        elif action == "lose":
            memory.reset("k")
            lives.append([])
            now += 1
        elif parts:
            part = parts[number % len(parts)]
            count = min(part.kept, number)
            part.kept -= count
            memory.give_back(now, [Taken(limit, "k", count, part.now, part.until)])
    return lives


@given(steps, st.sampled_from(LIMITS[:2]))
def test_no_fixed_window_admits_too_many(given_steps, limit):
    for life in run(limit, given_steps):
        for until in {part.until for part in life}:
            assert sum(part.kept for part in life if part.until == until) <= limit.amount


@given(steps)
def test_no_sliding_window_admits_too_many(given_steps):
    limit = LIMITS[2]
    for life in run(limit, given_steps):
        for number, last in enumerate(life):
            windows = [(part.now // SECOND - last.now // SECOND, part.kept) for part in life[: number + 1]]
            before = sum(kept for window, kept in windows if window == -1)
            used = sum(kept for window, kept in windows if window == 0)
            if last.kept:
                assert used + ceil(Fraction(before * (SECOND - last.now % SECOND), SECOND)) <= limit.amount


@given(steps)
def test_no_bucket_admits_too_many(given_steps):
    limit = LIMITS[3]
    assert isinstance(limit, TokenBucket)
    for life in run(limit, given_steps):
        tokens, at = Fraction(limit.burst), START
        for part in life:
            tokens = min(Fraction(limit.burst), tokens + Fraction((part.now - at) * limit.amount, SECOND))
            tokens, at = tokens - part.kept, part.now
            assert tokens >= 0


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_what_is_given_back_at_once_can_be_taken_again(limit):
    memory = Memory()
    first = memory.decide(START, [Hit(limit, "k", 6)])
    assert not memory.decide(START, [Hit(limit, "k")]).admitted
    memory.give_back(START, [Taken(limit, "k", 4, first.now, first.figures[0].reset)])
    assert memory.decide(START, [Hit(limit, "k", 4)]).figures[0].remaining == 0
    assert not memory.decide(START, [Hit(limit, "k")]).admitted


def test_a_sliding_window_takes_back_what_the_one_before_counted():
    limit, memory = SlidingWindow(name="l", amount=10), Memory()
    first = memory.decide(START, [Hit(limit, "k", 10)])
    later = START - START % SECOND + SECOND
    assert not memory.decide(later, [Hit(limit, "k")]).admitted
    memory.decide(later + SECOND // 2, [Hit(limit, "k")])
    memory.give_back(later + SECOND // 2, [Taken(limit, "k", 8, first.now, first.figures[0].reset)])
    assert memory.decide(later + SECOND // 2, [Hit(limit, "k", 0)]).figures[0].remaining == 8
