"""The one owner of the counters of several processes: exact together, and safe when it is killed, paused or new."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from inspect import isawaitable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from filters.rate_limit.engine.algorithms import Concurrency, FixedWindow, TokenBucket
from filters.rate_limit.engine.decision import Hit, LimitDecision
from filters.rate_limit.stores.circuit_breaker import FAILURES
from filters.rate_limit.stores.owner_client import OwnerStore
from tests.support.owner import OwnerProcess
from tests.support.wait import eventually

DAY = FixedWindow(name="day", amount=5, per="day")
STRICT = FixedWindow(name="strict", amount=5, per="day", allow_on_error=False)
LONG = 30.0
"""Seconds, where nobody is to be too late."""


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnerProcess]:
    with OwnerProcess(tmp_path_factory.mktemp("owner")) as process:
        yield process


@asynccontextmanager
async def store(
    path: Path, deadline: float = LONG, registry: CollectorRegistry | None = None, **options: float
) -> AsyncIterator[OwnerStore]:
    opened = OwnerStore(path, registry or CollectorRegistry(), deadline, **options)
    try:
        yield opened
    finally:
        await opened.close()


async def decide(counters: OwnerStore, *hits: Hit) -> LimitDecision:
    found = counters.decide(0, hits)
    return await found if isawaitable(found) else found  # type: ignore[return-value]


async def test_several_limits_take_all_or_nothing(owner: OwnerProcess) -> None:
    hits = [Hit(DAY, "all|consumer=a"), Hit(FixedWindow(name="two", amount=2, per="day"), "two|ip=1")]
    async with store(owner.path) as one, store(owner.path) as other:
        found = [(await decide(counters, *hits)).admitted for counters in (one, other, one, other)]
        assert found == [True, True, False, False]
        left = await decide(one, Hit(DAY, "all|consumer=a", 0))
        assert left.figures[0].remaining == 3
        assert left.figures[0].limit is DAY


async def test_what_is_told_counts_before_what_is_asked_later(owner: OwnerProcess) -> None:
    quota = FixedWindow(name="quota", amount=100, per="day", unit="content-bytes")
    slots = Concurrency(name="slots", amount=1)
    async with store(owner.path) as one, store(owner.path) as other:
        first, second = (Hit(slots, "slots|consumer=a", 1, name) for name in ("first", "second"))
        assert (await decide(one, first)).admitted
        assert not (await decide(other, second)).admitted
        one.charge(0, [Hit(quota, "quota|consumer=a", 5_000_000_000)])
        one.release([first])
        decision = await decide(one, Hit(quota, "quota|consumer=a", 0))
        assert (decision.admitted, decision.figures[0].remaining) == (False, 0)
        assert (await decide(other, second)).admitted


def _ask(path: Path, count: int, seed: int, results: multiprocessing.Queue[int]) -> None:
    """Ask for `count` decisions in turns of any size, some of them at the same time."""

    async def ask() -> int:
        turn, admitted = random.Random(seed), 0
        hits = (
            Hit(FixedWindow(name="many", amount=1000, per="day"), "many|consumer=a"),
            Hit(TokenBucket(name="wide", amount=1, per="day", burst=1000), "wide|ip=1"),
        )
        async with store(path) as counters:
            left = count
            while left:
                size = min(left, turn.choice([1, 2, 30, 200]))
                found = await asyncio.gather(*(decide(counters, *hits) for _ in range(size)))
                assert not any(one.uncounted for one in found)
                admitted += sum(one.admitted for one in found)
                left -= size
        return admitted

    results.put(asyncio.run(ask()))


def test_several_processes_admit_exactly_the_limit(owner: OwnerProcess) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = context.Queue()
    processes = [context.Process(target=_ask, args=(owner.path, 600, seed, results)) for seed in range(3)]
    for one in processes:
        one.start()
    admitted = [results.get(timeout=60) for _ in processes]
    for one in processes:
        one.join(30)
    assert sum(admitted) == 1000


def _burst(path: Path, ready: Barrier, results: multiprocessing.Queue[int]) -> None:
    """Ten thousand decisions at once. The deadline is longer than the product's, as a busy machine may keep the owner waiting."""

    async def ask() -> int:
        async with store(path, 1.0) as counters:

            async def counted() -> bool:
                return bool((await decide(counters, Hit(DAY, "first", 0))).figures)

            await eventually(counted, "the owner")
            ready.wait()
            hit = Hit(FixedWindow(name="burst", amount=100, per="day"), "burst")
            found = await asyncio.gather(*(decide(counters, hit) for _ in range(10_000)))
            assert not any(one.uncounted for one in found)
            return sum(one.admitted for one in found)

    results.put(asyncio.run(ask()))


def test_ten_thousand_at_once_by_each_of_two_processes_admit_exactly_the_limit(owner: OwnerProcess) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = context.Queue()
    ready = context.Barrier(2)
    processes = [context.Process(target=_burst, args=(owner.path, ready, results)) for _ in range(2)]
    for one in processes:
        one.start()
    assert sum(results.get(timeout=60) for _ in processes) == 100
    for one in processes:
        one.join(30)


async def test_a_killed_owner_is_waited_for_and_the_next_one_counts_from_nothing(tmp_path: Path) -> None:
    with OwnerProcess(tmp_path) as process:
        async with store(process.path) as counters:
            assert (await decide(counters, Hit(DAY, "k", 5))).admitted
            process.kill()
            asked = [asyncio.ensure_future(decide(counters, Hit(DAY, "k"))) for _ in range(8)]
            await asyncio.sleep(0)
            process.start()
            found = await asyncio.gather(*asked)
            assert sorted(one.admitted for one in found) == [False] * 3 + [True] * 5
            assert not any(one.uncounted for one in found)


async def test_what_was_under_way_is_asked_again_of_the_next_owner(tmp_path: Path) -> None:
    with OwnerProcess(tmp_path) as process:
        async with store(process.path) as counters:
            await decide(counters, Hit(DAY, "k", 0))
            process.signal(signal.SIGSTOP)
            counters.charge(0, [Hit(DAY, "k")])
            asked = [asyncio.ensure_future(decide(counters, Hit(DAY, "k"))) for _ in range(3)]

            async def sent() -> bool:
                return bool(counters._sent)

            await eventually(sent, "them to be sent")
            process.kill()
            process.start()
            assert [one.figures[0].remaining for one in await asyncio.gather(*asked)] == [3, 2, 1]


async def test_where_no_owner_answers_each_limit_says_what_happens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()

    def failures(outcome: str) -> float | None:
        labels = {"store": "owner", "outcome": outcome}
        return registry.get_sample_value("xds_rate_limit_store_failures_total", labels)

    with OwnerProcess(tmp_path) as process, caplog.at_level(logging.WARNING):
        # a pause so long that only the next owner's greeting ends it
        async with store(process.path, 0.2, registry, pause=3600) as counters:

            async def counted() -> bool:
                return bool((await decide(counters, Hit(DAY, "k", 0))).figures)

            await eventually(counted, "the first answer")
            process.kill()
            passed = await asyncio.gather(*(decide(counters, Hit(DAY, "k")) for _ in range(FAILURES)))
            assert all(one.admitted and one.uncounted for one in passed)
            assert counters._circuit.is_open
            # not asked any more: the answer is there at once
            denied = counters.decide(0, [Hit(STRICT, "s")])
            assert isinstance(denied, LimitDecision)
            assert (denied.admitted, denied.uncounted) == (False, True)
            counters.charge(0, [Hit(DAY, "k")])
            assert failures("denied") == 1
            process.start()
            await eventually(counted, "the next owner")
            counters._deadline = LONG
            assert (await decide(counters, Hit(DAY, "k"))).figures[0].remaining == 4
    said = [one.getMessage() for one in caplog.records]
    first = next(one for one in said if one.startswith("the owner process does not answer; "))
    assert first.endswith(" error=no answer in time")
    assert "the owner process answers again; limits are counted" in said


async def test_answers_that_come_too_late_are_nobody_elses(tmp_path: Path) -> None:
    with OwnerProcess(tmp_path) as process:
        async with store(process.path, 0.2) as counters:

            async def counted() -> bool:
                return bool((await decide(counters, Hit(DAY, "other", 0))).figures)

            await eventually(counted, "the first answer")
            process.signal(signal.SIGSTOP)
            late = await asyncio.gather(*(decide(counters, Hit(DAY, "k")) for _ in range(2)))
            assert all(one.uncounted for one in late)
            process.signal(signal.SIGCONT)
            await eventually(counted, "the owner to go on")
            counters._deadline = LONG
            # those two counted, and their answers were read by nobody
            assert (await decide(counters, Hit(DAY, "k"))).figures[0].remaining == 2
            assert (await decide(counters, Hit(STRICT, "new"))).figures[0].limit is STRICT


async def test_who_waits_no_longer_disturbs_nobody(owner: OwnerProcess) -> None:
    async with store(owner.path) as counters:
        gone, kept = (asyncio.ensure_future(decide(counters, Hit(DAY, "gone"))) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await kept).figures[0].remaining == 3


async def test_an_operator_sees_and_forgets_counters_while_others_decide(owner: OwnerProcess) -> None:
    async with store(owner.path) as counters:
        keys = [f"seen|consumer={number}" for number in range(2500)]
        await asyncio.gather(*(decide(counters, Hit(DAY, key)) for key in keys))
        (uncounted, found), *decided = await asyncio.gather(
            asyncio.to_thread(counters.listed, "seen|"), *(decide(counters, Hit(DAY, key)) for key in keys)
        )
        assert uncounted == 0
        assert sorted(key for key, _ in found) == sorted(keys)
        assert all(one.used in (1, 2) for _, one in found)
        assert all(one.figures[0].remaining == 3 for one in decided)
        assert await asyncio.to_thread(counters.reset, "seen|consumer=1") == 1111
        assert (await decide(counters, Hit(DAY, keys[1]))).figures[0].remaining == 4
        assert (await decide(counters, Hit(DAY, keys[2]))).figures[0].remaining == 2


async def test_an_operator_is_told_that_there_is_no_owner(tmp_path: Path) -> None:
    with OwnerProcess(tmp_path) as process:
        process.kill()
        async with store(process.path, patience=0.05) as counters:
            with pytest.raises(OSError, match="timed out"):
                await asyncio.to_thread(counters.listed)
