"""Calls in threads: all of them made once, slow ones at the same time, and no thread left behind."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time

import pytest

from filters.ext_authz.threads import Threads
from tests.support.wait import wait_for


async def test_every_call_is_made_once_and_has_its_own_outcome() -> None:
    calls: list[int] = []

    def call(number: int) -> int:
        calls.append(number)
        if number % 7 == 0:
            time.sleep(random.random() / 1000)
        return number * 2

    threads = Threads(call, 4, "all")
    asked = []
    for number in range(2000):
        asked.append(threads.ask(number, 60))
        if number % 5 == 0:
            await asyncio.sleep(0)
    assert await asyncio.gather(*asked) == [(number * 2, None) for number in range(2000)]
    assert sorted(calls) == list(range(2000))


async def test_slow_calls_run_at_the_same_time_and_no_more_than_there_are_threads() -> None:
    together = threading.Barrier(3)
    running, most, lock = 0, 0, threading.Lock()

    def call(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(30)
        with lock:
            running -= 1

    threads = Threads(call, 3, "slow")
    outcomes = await asyncio.gather(*(threads.ask(number, 60) for number in range(9)))
    assert (outcomes, most) == ([(None, None)] * 9, 3)


async def test_what_a_call_raises_is_its_outcome_and_the_thread_goes_on() -> None:
    def call(error: BaseException | None) -> str:
        if error is not None:
            raise error
        return "fine"

    threads = Threads(call, 1, "raises")
    errors = [ValueError("x"), SystemExit(1), KeyboardInterrupt()]
    assert [await threads.ask(one, 60) for one in errors] == [(None, one) for one in errors]
    assert await threads.ask(None, 60) == ("fine", None)


async def test_a_call_that_takes_too_long_is_given_up_and_its_outcome_is_nobodys() -> None:
    release = threading.Event()
    threads = Threads(lambda _: release.wait(30), 1, "late")
    with pytest.raises(TimeoutError):
        await threads.ask(1, 0.01)
    release.set()
    assert await threads.ask(2, 60) == (True, None)


def _running(name: str) -> int:
    return sum(one.name.startswith(name) for one in threading.enumerate())


async def test_threads_end_when_nobody_holds_them_any_more() -> None:
    together = threading.Barrier(4)
    threads = Threads(lambda _: together.wait(30), 4, "ends")
    await asyncio.gather(*(threads.ask(number, 60) for number in range(4)))
    assert _running("ends-") == 4
    del threads
    gc.collect()
    wait_for(lambda: _running("ends-") == 0, "the threads to end")


async def test_calls_that_are_under_way_when_nobody_holds_their_threads_are_still_made() -> None:
    release = threading.Event()
    threads = Threads(lambda number: (release.wait(30), number)[1], 2, "leaves")
    asked = [threads.ask(number, 60) for number in range(6)]
    del threads
    gc.collect()
    release.set()
    assert await asyncio.gather(*asked) == [(number, None) for number in range(6)]
    wait_for(lambda: _running("leaves-") == 0, "the threads to end")
