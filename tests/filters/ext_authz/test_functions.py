"""Sources of policies, and functions that are slow, many, or wrong."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from filters.ext_authz import Request, allow
from filters.ext_authz.functions import THREADS, WAITING, Failed, Function, load
from filters.ext_authz.sources import fault
from filters.rules import Refused
from filters.unary import Busy

ASKED = Request()
GOOD = b"from filters.ext_authz import allow\ndef check(request):\n    return allow({'x': VALUE})\nVALUE = 'one'\n"


@pytest.mark.parametrize(
    ("source", "function", "message"),
    [
        (b"def check(:\n", "check", "p.py:1: "),
        (b"\n\nreturn 1\n", "check", "p.py:3: 'return' outside function"),
        (b"x = 1\0", "check", "null bytes"),
        (b"def other(): ...", "check", "p.py has no function 'check'"),
        (b"\xff", "check", "p.py:1: "),
        (b"x = 1", "a-b", "not the name"),
        (b"x = " + b"-" * 100_000 + b"1", "check", "nested too deeply"),
        (b"x = " + b"a." * 20_000 + b"b", "check", "nested too deeply"),
    ],
)
def test_what_shows_without_running_is_told_with_its_line(source: bytes, function: str, message: str) -> None:
    assert message in (fault(source, "p.py", function) or "")


@pytest.mark.parametrize(
    "source", [b"def check(r): ...", b"async def check(r): ...", b"from x import check", b"from x import *", b"check = lambda r: r", b"if 1:\n def check(r): ..."]
)  # fmt: skip
def test_a_function_is_found_however_it_is_made(source: bytes) -> None:
    assert fault(source, "p.py", "check") is None


async def test_a_source_becomes_a_function_that_decides() -> None:
    function = load("p.py", "check", GOOD)
    assert (await function.decide(ASKED, 5)).headers == {"x": "one"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"\nimport no_such\ndef check(r): ...", "p.py:2: ModuleNotFoundError"),
        (b"def check(r): ...\nimport sys\nsys.exit(1)", "p.py:3: SystemExit"),
        (b"def check(r): ...\ncheck = 3", "no function 'check'"),
    ],
)
def test_what_fails_when_it_is_run_is_refused_with_its_line(source: bytes, message: str) -> None:
    with pytest.raises(Refused, match=message.replace("(", r"\(")):
        load("p.py", "check", source)


async def test_a_refused_source_leaves_the_module_of_the_good_one() -> None:
    good = load("kept.py", "check", GOOD)
    module = sys.modules["xds_policy_kept_py_check"]
    with pytest.raises(Refused):
        load("kept.py", "check", b"VALUE = 'two'\ndef check(r): ...\n1 / 0")
    assert sys.modules["xds_policy_kept_py_check"] is module
    assert (await good.decide(ASKED, 5)).headers == {"x": "one"}


async def test_a_dataclass_in_a_policy_finds_its_module() -> None:
    source = b"from __future__ import annotations\nfrom dataclasses import dataclass\nfrom filters.ext_authz import allow\n@dataclass\nclass A:\n    x: int\ndef check(r): return allow({'x': str(A(1).x)})"
    assert (await load("p.py", "check", source).decide(ASKED, 5)).headers == {"x": "1"}


async def test_a_coroutine_that_is_slow_is_given_up() -> None:
    gone = asyncio.Event()

    async def wait(_: Request) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    with pytest.raises(TimeoutError):
        await Function("p", wait).decide(ASKED, 0.01)
    assert gone.is_set()


async def test_a_slow_function_holds_back_neither_the_loop_nor_other_functions() -> None:
    release = threading.Event()
    slow = Function("slow", lambda _: release.wait(30))
    others = [asyncio.create_task(slow.decide(ASKED, 0.2)) for _ in range(THREADS * 3)]
    await asyncio.sleep(0)
    try:
        decision = await Function("quick", lambda _: allow()).decide(ASKED, 30)
        assert decision.allowed
        outcomes = await asyncio.gather(*others, return_exceptions=True)
        assert {type(one) for one in outcomes} == {TimeoutError}
    finally:
        release.set()


async def test_a_call_that_waited_in_vain_for_a_thread_is_never_made() -> None:
    release, calls = threading.Event(), []
    first = threading.Barrier(THREADS + 1)

    def wait(request: Request) -> None:
        calls.append(request.path)
        first.wait(30)
        release.wait(30)

    function = Function("p", wait)
    running = [
        asyncio.create_task(function.decide(Request(path=str(number)), 30)) for number in range(THREADS)
    ]
    await asyncio.to_thread(first.wait, 30)
    with pytest.raises(TimeoutError):
        await function.decide(Request(path="late"), 0.01)
    release.set()
    await asyncio.gather(*running, return_exceptions=True)
    assert "late" not in calls


async def test_what_comes_beyond_the_bound_is_refused_at_once() -> None:
    release = asyncio.Event()

    async def wait(_: Request) -> object:
        await release.wait()
        return allow()

    function = Function("p", wait)
    waiting = [asyncio.create_task(function.decide(ASKED, 30)) for _ in range(WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await function.decide(ASKED, 30)
    release.set()
    assert len(await asyncio.gather(*waiting)) == WAITING
    assert (await function.decide(ASKED, 30)).allowed


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), TimeoutError("own")])
async def test_whatever_a_policy_raises_is_its_failure(error: BaseException) -> None:
    def fails(_: Request) -> None:
        raise error

    async def fails_too(_: Request) -> None:
        raise error

    for call in (fails, fails_too):
        with pytest.raises(Failed, match=type(error).__name__):
            await Function("p", call).decide(ASKED, 30)


@pytest.mark.parametrize("answer", [True, None, "allow", {"allowed": True}])
async def test_what_is_no_decision_is_a_failure(answer: object) -> None:
    with pytest.raises(Failed, match="not a Decision"):
        await Function("p", lambda _: answer).decide(ASKED, 30)


async def test_a_function_that_hands_on_a_coroutine_decides_as_in_the_test_kit() -> None:
    async def later(_: Request) -> object:
        await asyncio.sleep(0)
        return allow()

    assert (await Function("p", lambda asked: later(asked)).decide(ASKED, 30)).allowed


async def test_an_object_with_an_asynchronous_call_is_a_coroutine() -> None:
    class Check:
        async def __call__(self, _: Request) -> object:
            return allow()

    assert (await Function("p", Check()).decide(ASKED, 30)).allowed


async def _nothing(_: Request) -> object:
    return allow()


async def _awaits(_: Request) -> object:
    return await _nothing(_)


async def _enters(_: Request) -> object:
    async with asyncio.Lock():
        return allow()


async def _iterates(_: Request) -> object:
    async for _number in _numbers():
        pass
    return allow()


async def _numbers() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("call", "immediate"),
    [(_nothing, True), (_awaits, False), (_enters, False), (_iterates, False), (lambda _: allow(), False)],
)
async def test_a_coroutine_that_cannot_wait_is_immediate(
    call: Callable[[Request], object], immediate: bool
) -> None:
    function = Function("p", call)
    assert function.immediate is immediate
    assert (await function.decide(ASKED, 30)).allowed
    assert not immediate or function.at_once(ASKED).allowed


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()]
)
def test_whatever_an_immediate_policy_raises_is_its_failure(error: BaseException) -> None:
    async def fails(_: Request) -> None:
        raise error

    with pytest.raises(Failed, match=type(error).__name__):
        Function("p", fails).at_once(ASKED)
