"""Each algorithm against a slow model that is obviously right, and the memory that holds the counters."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.rate_limit.engine.algorithms import Concurrency, FixedWindow, Limit, SlidingWindow, TokenBucket
from filters.rate_limit.engine.decision import Hit
from filters.rate_limit.engine.memory import Memory
from filters.rate_limit.engine.windows import LENGTHS, SECOND, end_of

START = 1_792_890_000_000_000
"""In October 2026, days before most of Europe sets its clocks back."""
Log = list[tuple[int, int]]
steps = st.lists(
    st.tuples(st.sampled_from([0, 1, 7_000, 400_000, 999_999, SECOND, 31 * SECOND]), st.integers(1, 4)),
    max_size=60,
)


def moments(given_steps: list[tuple[int, int]]) -> Log:
    now, result = START + 123_456, []
    for step, cost in given_steps:
        now += step
        result.append((now, cost))
    return result


def admitted(limit: Limit, asked: Log) -> Log:
    memory = Memory()
    return [(now, cost) for now, cost in asked if memory.decide(now, (Hit(limit, "k", cost),)).admitted]


def modelled(room: Callable[[Log, int], Fraction | int], asked: Log) -> Log:
    log: Log = []
    for now, cost in asked:
        if cost <= room(log, now):
            log.append((now, cost))
    return log


@given(steps, st.integers(1, 6), st.sampled_from(["second", "minute", "hour", "day"]))
def test_fixed_window(given_steps, amount, per):
    def room(log, now):
        return amount - sum(cost for at, cost in log if at // LENGTHS[per] == now // LENGTHS[per])

    asked = moments(given_steps)
    assert admitted(FixedWindow(name="l", amount=amount, per=per), asked) == modelled(room, asked)


@given(
    st.lists(st.tuples(st.integers(0, 40 * 3600), st.integers(1, 2)), max_size=40),
    st.sampled_from(["Europe/Berlin", "America/Havana", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]),
    st.sampled_from(["day", "month"]),
)
def test_fixed_window_of_a_zone_follows_its_calendar(given_steps, zone, per):
    def window(now):
        local = datetime.fromtimestamp(now // SECOND, ZoneInfo(zone))
        return (local.year, local.month, local.day if per == "day" else 0)

    def room(log, now):
        return 3 - sum(cost for at, cost in log if window(at) == window(now))

    asked = moments([(seconds * SECOND, cost) for seconds, cost in given_steps])
    assert admitted(FixedWindow(name="l", amount=3, per=per, zone=zone), asked) == modelled(room, asked)


@given(steps, st.integers(1, 6))
def test_rolling_window_begins_with_the_first_request(given_steps, amount):
    starts: list[int] = []

    def room(log, now):
        if not starts or now >= starts[-1] + SECOND:
            return amount
        return amount - sum(cost for at, cost in log if at >= starts[-1])

    def model(asked):
        log: Log = []
        for now, cost in asked:
            if cost <= room(log, now):
                if not starts or now >= starts[-1] + SECOND:
                    starts.append(now)
                log.append((now, cost))
        return log

    asked = moments(given_steps)
    assert admitted(FixedWindow(name="l", amount=amount, rolling=True), asked) == model(asked)


@given(steps, st.integers(1, 9))
def test_sliding_window(given_steps, amount):
    def room(log, now):
        present = now // SECOND
        before = sum(cost for at, cost in log if at // SECOND == present - 1)
        used = sum(cost for at, cost in log if at // SECOND == present)
        return amount - used - ceil(Fraction(before * (SECOND - now % SECOND), SECOND))

    asked = moments(given_steps)
    assert admitted(SlidingWindow(name="l", amount=amount), asked) == modelled(room, asked)


@given(steps, st.integers(1, 5), st.integers(1, 9))
def test_token_bucket(given_steps, amount, burst):
    def room(log, now):
        tokens, at = Fraction(burst), START
        for then, cost in log:
            tokens = min(Fraction(burst), tokens + Fraction((then - at) * amount, SECOND)) - cost
            at = then
        return min(Fraction(burst), tokens + Fraction((now - at) * amount, SECOND))

    asked = moments(given_steps)
    assert admitted(TokenBucket(name="l", amount=amount, burst=burst), asked) == modelled(room, asked)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.booleans()), max_size=60), st.integers(1, 4)
)
def test_concurrency(given_steps, amount):
    limit = Concurrency(name="l", amount=amount, lease=5 * SECOND)
    memory, held, now = Memory(), dict[str, int](), START
    for seconds, lease, begins in given_steps:
        now += seconds * SECOND
        held = {name: end for name, end in held.items() if end > now}
        name = str(lease)
        if begins and name not in held:
            decision = memory.decide(now, (Hit(limit, "k", 1, name),))
            assert decision.admitted == (len(held) < amount)
            if decision.admitted:
                held[name] = now + limit.lease
            assert decision.figures[0].remaining == amount - len(held)
        elif not begins:
            held.pop(name, None)
            memory.release((Hit(limit, "k", 1, name),))


@given(st.lists(st.integers(-3 * SECOND, 3 * SECOND), max_size=60), st.integers(1, 4))
def test_a_clock_that_steps_back_ends_no_lease_early(jumps, amount):
    limit, memory = Concurrency(name="l", amount=amount, lease=5 * SECOND), Memory()
    now, furthest, held = START, START, dict[str, int]()
    for number, jump in enumerate(jumps):
        now += jump
        furthest = max(furthest, now)
        if memory.decide(now, (Hit(limit, "k", 1, str(number)),)).admitted:
            held[str(number)] = now + limit.lease
        assert sum(end > furthest for end in held.values()) <= amount
        if number % 3 == 2:
            memory.release((Hit(limit, "k", 1, str(number - 1)),))
            held.pop(str(number - 1), None)


limits = st.one_of(
    st.builds(FixedWindow, name=st.just("f"), amount=st.integers(1, 6)),
    st.builds(SlidingWindow, name=st.just("s"), amount=st.integers(1, 6)),
    st.builds(TokenBucket, name=st.just("t"), amount=st.integers(1, 6), burst=st.integers(1, 6)),
)


@given(st.lists(limits, min_size=2, max_size=4), steps)
def test_several_limits_take_all_or_nothing(several, given_steps):
    together, alone = Memory(), [Memory() for _ in several]
    for now, cost in moments(given_steps):
        hits = [Hit(limit, f"{number}", cost) for number, limit in enumerate(several)]
        free = [
            one.decide(now, (hit._replace(cost=0),)).figures[0].remaining >= cost
            for one, hit in zip(alone, hits, strict=True)
        ]
        decision = together.decide(now, hits)
        assert decision.admitted == all(free)
        assert [one.short for one in decision.figures] == [not one for one in free]
        if all(free):
            for one, hit in zip(alone, hits, strict=True):
                assert one.decide(now, (hit,)).admitted


@given(limits, steps)
def test_the_time_to_wait_is_the_first_moment_with_room(limit, given_steps):
    memory, asked = Memory(), moments(given_steps)
    for now, _ in asked:
        memory.decide(now, (Hit(limit, "k", 1),))
    now = asked[-1][0] if asked else START
    decision = memory.decide(now, (Hit(limit, "k", 1),))
    if not decision.admitted:
        wait = decision.figures[0].wait
        assert wait > 0
        assert not memory.decide(now + wait - 1, (Hit(limit, "k", 0),)).admitted
        assert memory.decide(now + wait, (Hit(limit, "k", 0),)).admitted


@given(limits, steps)
def test_the_reset_is_when_everything_is_there_again(limit, given_steps):
    memory, asked = Memory(), moments(given_steps)
    whole = limit.burst if isinstance(limit, TokenBucket) else limit.amount
    for now, _ in asked:
        memory.decide(now, (Hit(limit, "k", 1),))
    if asked:
        reset = memory.decide(asked[-1][0], (Hit(limit, "k", 0),)).figures[0].reset
        assert memory.decide(reset, (Hit(limit, "k", 0),)).figures[0].remaining == whole


@given(limits, st.lists(st.integers(-5 * SECOND, SECOND), max_size=60))
def test_a_clock_that_steps_back_admits_no_more(limit, jumps):
    """Whatever the clock does, what was admitted is no more than what its furthest moment allows."""
    memory, now, furthest, count = Memory(), START, 0, 0
    for jump in jumps:
        now += jump
        before = furthest
        furthest = max(furthest, now)
        allowed = memory.decide(now, (Hit(limit, "k", 1),)).admitted
        if now >= before:
            count = 0
        count += allowed
        assert count <= getattr(limit, "burst", limit.amount)


def test_a_changed_limit_keeps_what_was_counted():
    memory = Memory()
    for _ in range(4):
        assert memory.decide(START, (Hit(FixedWindow(name="l", amount=5, per="hour"), "k"),)).admitted
    smaller, larger = (FixedWindow(name="l", amount=amount, per="hour") for amount in (4, 6))
    assert not memory.decide(START, (Hit(smaller, "k"),)).admitted
    assert memory.decide(START, (Hit(larger, "k"),)).figures[0].remaining == 1


def test_shadow_counts_reports_and_never_rejects():
    memory, hit = Memory(), Hit(FixedWindow(name="l", amount=1, per="hour", shadow=True), "k")
    assert [memory.decide(START, (hit,)).figures[0].short for _ in range(3)] == [False, True, True]
    assert memory.decide(START, (hit,)).admitted
    assert memory.decide(START, (hit,)).violated == ()
    assert memory.decide(START, (hit,)).strictest() is None


def test_the_strictest_is_told():
    memory = Memory()
    day, hour = FixedWindow(name="day", amount=9, per="day"), FixedWindow(name="hour", amount=3, per="hour")
    decision = memory.decide(START, (Hit(day, "d"), Hit(hour, "h")))
    assert decision.strictest().limit.name == "hour"
    memory.charge(START, (Hit(day, "d", 8), Hit(hour, "h", 2)))
    rejected = memory.decide(START, (Hit(day, "d"), Hit(hour, "h")))
    assert {one.limit.name for one in rejected.violated} == {"day", "hour"}
    assert rejected.strictest().limit.name == "day"  # the longest wait


def test_what_happened_is_charged_beyond_the_limit():
    memory = Memory()
    quota = FixedWindow(name="l", amount=100, per="day", unit="content-bytes")
    assert memory.decide(START, (Hit(quota, "k", 0),)).admitted
    memory.charge(START, (Hit(quota, "k", 5_000_000_000),))
    decision = memory.decide(START, (Hit(quota, "k", 0),))
    assert (decision.admitted, decision.figures[0].remaining) == (False, 0)


def test_daylight_saving_makes_days_of_23_and_25_hours():
    zone = ZoneInfo("Europe/Berlin")
    for day, hours in ((datetime(2026, 3, 29, tzinfo=zone), 23), (datetime(2026, 10, 25, tzinfo=zone), 25)):
        start = int(day.timestamp()) * SECOND
        assert end_of(start, "day", "Europe/Berlin") - start == hours * 3600 * SECOND
        assert (
            end_of(start + hours * 3600 * SECOND - 1, "day", "Europe/Berlin") == start + hours * 3600 * SECOND
        )


def test_a_midnight_that_does_not_exist_is_when_the_clock_jumps():
    """Havana sets its clocks from 00:00 to 01:00 on 8 March 2026."""
    before = int(datetime(2026, 3, 7, 23, 59, 59, tzinfo=ZoneInfo("America/Havana")).timestamp())
    assert end_of(before * SECOND, "day", "America/Havana") == (before + 1) * SECOND


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),
    st.sampled_from(
        ["Europe/Berlin", "America/Havana", "Asia/Kathmandu", "Australia/Lord_Howe", "Asia/Beirut"]
    ),
    st.sampled_from(["second", "minute", "hour", "day", "month"]),
)
def test_windows_end_after_now_and_not_late(moment, zone, per):
    now = int(moment.replace(tzinfo=ZoneInfo("UTC")).timestamp()) * SECOND
    longest = {"second": 1, "minute": 60, "hour": 3600, "day": 25 * 3600, "month": 31 * 86400 + 3600}
    end = end_of(now, per, zone)
    assert 0 < end - now <= longest[per] * SECOND
    assert end_of(end - 1, per, zone) == end


def test_full_memory_never_forgives_an_exhausted_key():
    limit = FixedWindow(name="l", amount=1, per="day")
    roomy = FixedWindow(name="r", amount=9, per="day")
    memory = Memory(capacity=100)
    for number in range(50):
        memory.decide(START, (Hit(limit, f"exhausted{number}"),))
    for number in range(1000):
        memory.decide(START, (Hit(roomy, f"roomy{number}"),))
    assert len(memory) == 100
    assert not any(memory.decide(START, (Hit(limit, f"exhausted{number}"),)).admitted for number in range(50))
    assert memory.uncounted == 0


def test_where_nothing_can_go_a_new_key_passes_uncounted():
    limit, memory = FixedWindow(name="l", amount=1, per="day"), Memory(capacity=10)
    for number in range(10):
        memory.decide(START, (Hit(limit, f"{number}"),))
    assert [memory.decide(START, (Hit(limit, "new"),)).admitted for _ in range(2)] == [True, True]
    assert (memory.uncounted, len(memory)) == (2, 10)


def test_where_nothing_can_go_nobody_passes_a_limit_that_denies():
    memory = Memory(capacity=10)
    for number in range(10):
        memory.decide(START, (Hit(FixedWindow(name="l", amount=1, per="day"), f"{number}"),))
    strict = FixedWindow(name="s", amount=5, per="day", allow_on_error=False)
    lax = FixedWindow(name="a", amount=5, per="day")
    alone = memory.decide(START, (Hit(strict, "new"),))
    together = memory.decide(START, (Hit(lax, "0"), Hit(strict, "new")))
    assert [(one.admitted, one.uncounted, one.figures) for one in (alone, together)] == [
        (False, True, ())
    ] * 2
    assert memory.decide(START, (Hit(lax, "0", 0),)).figures[0].remaining == 4  # counted for none
    beside = memory.decide(START, (Hit(lax, "other"), Hit(lax, "another")))
    assert (beside.admitted, beside.uncounted) == (True, True)
    assert memory.uncounted == 4


def test_a_strict_limit_takes_the_place_of_a_counter_with_something_left():
    memory = Memory(capacity=10)
    roomy = FixedWindow(name="r", amount=9, per="day")
    for number in range(10):
        memory.decide(START, (Hit(roomy, f"{number}"),))
    strict = FixedWindow(name="s", amount=1, per="day", allow_on_error=False)
    decisions = [memory.decide(START, (Hit(strict, "new"), Hit(strict, "newer"))) for _ in range(2)]
    assert [one.admitted for one in decisions] == [True, False]
    assert not any(one.uncounted for one in decisions)
    assert len(memory) == 10


def test_a_flood_of_keys_is_bounded_and_forgives_nobody_early():
    """Four times as many clients as there is room for, between them those who used up what they had."""
    limit, memory = FixedWindow(name="l", amount=2, per="day"), Memory(capacity=20_000)
    exhausted = [f"exhausted{number}" for number in range(5_000)]
    for key in exhausted * 2:
        assert memory.decide(START, (Hit(limit, key),)).admitted
    for number in range(80_000):
        assert memory.decide(START, (Hit(limit, f"new{number}"),)).admitted
    assert len(memory) == 20_000
    assert memory.uncounted == 0
    assert not any(memory.decide(START, (Hit(limit, key),)).admitted for key in exhausted)


def test_ended_counters_leave_by_themselves():
    limit, memory = FixedWindow(name="l", amount=1), Memory()
    for number in range(5000):
        memory.decide(START + number * 10 * 1000, (Hit(limit, f"{number}"),))  # 100 keys a second
    assert len(memory) <= 300


def test_counters_are_shown_and_reset_by_prefix():
    limit, memory = FixedWindow(name="l", amount=1, per="day"), Memory()
    for key in ("a|1", "a|2", "b|1"):
        memory.decide(START, (Hit(limit, key),))
    assert sorted(key for key, _ in memory.listed("a|")[1]) == ["a|1", "a|2"]
    assert memory.reset("a|") == 2
    assert memory.decide(START, (Hit(limit, "a|1"),)).admitted
    assert not memory.decide(START, (Hit(limit, "b|1"),)).admitted


@pytest.mark.parametrize("kind", [FixedWindow, SlidingWindow])
def test_a_cost_above_the_limit_never_passes(kind):
    memory = Memory()
    decision = memory.decide(START, (Hit(kind(name="l", amount=5), "k", 6),))
    assert not decision.admitted
    assert decision.figures[0].wait > 0
    assert timedelta(microseconds=decision.figures[0].wait) <= timedelta(seconds=2)
