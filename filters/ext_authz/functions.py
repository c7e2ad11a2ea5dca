"""Load the source of a policy as a function that decides within a time limit, whatever the function does.

Only coroutines run in the event loop's thread. Other functions run in threads of their own, a bounded number for each.
So a slow policy delays neither other policies nor the server.
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
"""Threads of each function that is no coroutine."""
WAITING = 1024
"""Requests in progress of one function. Further requests are rejected at once."""
NO_MODULES: Mapping[str, bytes] = MappingProxyType({})
LOADING = 10.0
"""Seconds that the import of a policy may take."""


class Failed(Exception):  # noqa: N818 - the policy's failure, not ours
    """The policy raised an error, or did not return a Decision."""


class Function:
    """A policy that is ready to decide. `immediate` is true for a coroutine whose code has no `await`."""

    def __init__(self, name: str, call: Callable[[Request], Any]) -> None:
        self.name = name
        self.call = call
        coroutine = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(
            getattr(call, "__call__", None)  # noqa: B004 - this reads the method itself
        )
        self.immediate = coroutine and not waits(call)
        self._under_way = 0
        self._threads = None if coroutine else Threads(call, THREADS, f"policy {name}")

    def at_once(self, request: Request) -> Decision:
        """Call an immediate policy, without a task and without a time limit. Raises Failed."""
        try:
            coroutine = self.call(request)
            coroutine.send(None)
        except StopIteration as stop:
            return _decision(stop.value, None)
        except BaseException as error:  # noqa: BLE001 - SystemExit of a policy must not end the server
            return _decision(None, error)
        coroutine.close()
        raise Failed("it waits, but its code has no await")

    async def decide(self, request: Request, limit: float) -> Decision:
        """Call the policy. Raises TimeoutError after `limit` seconds, Busy, and Failed with the policy's error."""
        if self._under_way >= WAITING:
            raise Busy(f"{self.name} has {WAITING} requests in progress")
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
        return None, error  # this task was not cancelled: the policy raised it, or its own task was cancelled
    except BaseException as error:  # noqa: BLE001 - SystemExit of a policy must not end the server
        return None, error


def describe_error(error: BaseException) -> str:
    """The text of an error, even if the error's own `__str__` fails."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the error is a policy's own
        return type(error).__name__


def _decision(answer: Any, error: BaseException | None) -> Decision:
    """The policy's decision. Raises Failed if it raised an error or returned anything else."""
    if error is not None:
        raise Failed(describe_error(error)) from error
    if not isinstance(answer, Decision):
        raise Failed(f"returned {type(answer).__name__} and not a Decision")
    return answer


def waits(call: Callable[..., Any]) -> bool:
    """True if a coroutine's code contains `await`, `async with` or `async for`."""
    code = getattr(call, "__code__", None)
    return code is None or any(one.opname == "SEND" for one in dis.get_instructions(code))


def load(file: str, function: str, source: bytes, modules: Mapping[str, bytes] = NO_MODULES) -> Function:
    """Run the source as its own module and return its function. Raises Refused.

    `modules` are the further files that it may import, by their path in the gateway's folder.
    """

    def check(found: Any) -> None:
        if not callable(found):
            raise Refused(f"{file} has no function '{function}'")

    return Function(f"{file}:{function}", load_object(file, function, source, modules, check))


def load_object(
    file: str,
    name: str,
    source: bytes,
    modules: Mapping[str, bytes],
    check: Callable[[Any], None],
) -> Any:
    """Run the source as its own module and return the object of this name, or None. Raises Refused, as `check` may."""
    why = fault(source, file, name)
    if why is not None:
        raise Refused(why)
    own = Modules("xds_policy_" + re.sub(r"\W", "_", f"{file}:{name}"), modules)
    module = own.main(file)
    try:
        _run(own, module, source, {file, *modules})
        found = getattr(module, name, None)
        check(found)
    except Refused:
        own.forget()
        raise
    return found


def _run(own: Modules, module: ModuleType, source: bytes, files: Collection[str]) -> None:
    """Run the module in a thread, because an import that never ends must not delay the other rules."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            own.run(module, source)
        except BaseException as error:  # noqa: BLE001 - after any error the last good version stays
            errors.append(error)

    thread = threading.Thread(target=run, name=f"import {module.__file__}", daemon=True)
    thread.start()
    thread.join(LOADING)
    if thread.is_alive():
        raise Refused(f"{module.__file__} takes more than {LOADING:g} s to import")
    if errors:
        raise Refused(f"{_place(errors[0], files) or module.__file__}: {describe_error(errors[0])}")


def _place(error: BaseException, files: Collection[str]) -> str:
    """The last line of the error's traceback that is in the gateway's own files."""
    place, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in files:
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
