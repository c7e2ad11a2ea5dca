"""The source of a policy to a function that decides within a time limit, whatever the function does.

A function never gets hold of the event loop's thread unless it is a coroutine: others run in threads of their own,
a bounded number for each, so that one slow policy holds back neither the others nor the server.
"""

from __future__ import annotations

import asyncio
import dis
import inspect
import re
import threading
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType, ModuleType
from typing import Any

from filters.ext_authz.decisions import Decision, Request
from filters.ext_authz.modules import Modules
from filters.ext_authz.sources import fault
from filters.ext_authz.threads import Outcome, Threads
from filters.rules import Refused
from filters.unary import Busy

THREADS = 16
"""For each function that is no coroutine."""
WAITING = 1024
"""Requests that one function has under way at most; what comes beyond is refused at once."""
NO_MODULES: Mapping[str, bytes] = MappingProxyType({})
LOADING = 10.0
"""Seconds that the import of a policy may take."""


class Failed(Exception):  # noqa: N818 - the policy's failure, not ours
    """The policy raised something, or did not return a Decision."""


class Function:
    """A policy that is ready to decide. `immediate` says that it is a coroutine that waits for nothing."""

    def __init__(self, name: str, call: Callable[[Request], Any]) -> None:
        self.name = name
        self.call = call
        coroutine = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(
            getattr(call, "__call__", None)  # noqa: B004 - the method itself is asked, not whether it is there
        )
        self.immediate = coroutine and not _waits(call)
        self._under_way = 0
        self._threads = None if coroutine else Threads(call, THREADS, f"policy {name}")

    def at_once(self, request: Request) -> Decision:
        """Ask an immediate policy: no task is needed for it, and no time limit could end it. Raises Failed."""
        try:
            coroutine = self.call(request)
            coroutine.send(None)
        except StopIteration as stop:
            return _decision(stop.value, None)
        except BaseException as error:  # noqa: BLE001 - SystemExit of a policy must not end the server
            return _decision(None, error)
        coroutine.close()
        raise Failed("it waits, which does not show in its code")

    async def decide(self, request: Request, limit: float) -> Decision:
        """Ask the policy. Raises TimeoutError after `limit` seconds, Busy, and Failed with the policy's error."""
        if self._under_way >= WAITING:
            raise Busy(f"{self.name} has {WAITING} requests under way")
        self._under_way += 1
        try:
            return _decision(*await self._outcome(request, limit))
        finally:
            self._under_way -= 1

    async def _outcome(self, request: Request, limit: float) -> Outcome:
        if self._threads is None:
            async with asyncio.timeout(limit):
                return await _awaited(self.call, request)
        latest = asyncio.get_running_loop().time() + limit
        answer, error = await self._threads.ask(request, limit)
        if error is None and type(answer) is not Decision and inspect.isawaitable(answer):
            async with asyncio.timeout_at(latest):
                return await _awaited(lambda _: answer, request)
        return answer, error


async def _awaited(call: Callable[[Request], Any], request: Request) -> Outcome:
    try:
        return await call(request), None
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return None, error  # nobody cancelled us: the policy raised it, or what it awaited was cancelled
    except BaseException as error:  # noqa: BLE001 - SystemExit of a policy must not end the server
        return None, error


def describe_error(error: BaseException) -> str:
    """What an error says, also one that fails to say it."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the error is a policy's own
        return type(error).__name__


def _decision(answer: Any, error: BaseException | None) -> Decision:
    """Raises Failed."""
    if error is not None:
        raise Failed(describe_error(error)) from error
    if not isinstance(answer, Decision):
        raise Failed(f"returned {type(answer).__name__} and not a Decision")
    return answer


def _waits(call: Callable[[Request], Any]) -> bool:
    """Whether a coroutine's code has a place where it could wait (`await`, `async with`, `async for`)."""
    code = getattr(call, "__code__", None)
    return code is None or any(one.opname == "SEND" for one in dis.get_instructions(code))


def load(file: str, function: str, source: bytes, modules: Mapping[str, bytes] = NO_MODULES) -> Function:
    """Run the source as a module of its own and take its function. Raises Refused.

    `modules` are the files beside it that it may import, by their path in the gateway's folder.
    """
    why = fault(source, file, function)
    if why is not None:
        raise Refused(why)
    name = f"{file}:{function}"
    own = Modules("xds_policy_" + re.sub(r"\W", "_", name), modules)
    module = own.main(file)
    try:
        _run(own, module, source, {file, *modules})
        found = getattr(module, function, None)
        if not callable(found):
            raise Refused(f"{file} has no function '{function}'")
    except Refused:
        own.forget()
        raise
    return Function(name, found)


def _run(own: Modules, module: ModuleType, source: bytes, files: Collection[str]) -> None:
    """In a thread, because an import that never ends must not hold the other rules back."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            own.run(module, source)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the last good version stays
            errors.append(error)

    thread = threading.Thread(target=run, name=f"import {module.__file__}", daemon=True)
    thread.start()
    thread.join(LOADING)
    if thread.is_alive():
        raise Refused(f"{module.__file__} takes more than {LOADING:g} s to import")
    if errors:
        raise Refused(f"{_place(errors[0], files) or module.__file__}: {describe_error(errors[0])}")


def _place(error: BaseException, files: Collection[str]) -> str:
    """The last line of the gateway's own files in the error's traceback."""
    place, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in files:
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
