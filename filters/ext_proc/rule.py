"""A class of the gateway's folder as a rule: an object for each exchange, and its methods within their time limit.

A coroutine that never waits is run at once, other coroutines as tasks, and plain methods in threads.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from filters.ext_authz.functions import THREADS, WAITING, load_object, waits
from filters.ext_authz.threads import Threads
from filters.processing.phases import Phase
from filters.processing.processor import Processor, declared
from filters.rules import Refused
from filters.unary import Busy
from protos import rules_pb2

LONGEST = 60.0
"""Seconds after which a call in a thread is given up. The time limit of its route is shorter."""


class PythonRule:
    """A class that is ready to process. `immediate` is true if all its methods are coroutines that never wait."""

    def __init__(self, name: str, kind: type[Processor]) -> None:
        self.name = name
        self.begin = kind
        self.phases = declared(kind)
        methods = {phase: getattr(kind, phase) for phase in self.phases}
        self._coroutines = frozenset(
            phase for phase, one in methods.items() if inspect.iscoroutinefunction(one)
        )
        self.immediate = self._coroutines == self.phases and not any(map(waits, methods.values()))
        in_threads = self._coroutines < self.phases
        self._threads = Threads(_call, THREADS, f"processor {name}") if in_threads else None
        self._under_way = 0

    def call(self, processor: Processor, phase: Phase, arguments: tuple[Any, ...]) -> Any:
        """Call a method. Raises Busy."""
        method = getattr(processor, phase)
        if self.immediate:
            return method(*arguments)
        if self._under_way >= WAITING:
            raise Busy(f"{self.name} has {WAITING} calls in progress")
        return self._waited(phase, method, arguments)

    async def _waited(self, phase: Phase, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self._under_way += 1
        try:
            if phase in self._coroutines:
                return await _own_errors(method(*arguments))
            assert self._threads is not None, "one of its methods is no coroutine"
            answer, error = await self._threads.ask(partial(method, *arguments), LONGEST)
            if error is not None:
                raise _Raised(error)
            return await _own_errors(answer) if inspect.isawaitable(answer) else answer
        finally:
            self._under_way -= 1


class _Raised(Exception):  # noqa: N818 - carries what a processor raised
    """A processor raised an error, perhaps one that would end the server (SystemExit) or look like our own."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.__cause__ = error


async def _own_errors(work: Any) -> Any:
    """Await a processor's coroutine. Raises _Raised for all its errors, but not for the cancellation of this task."""
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise _Raised(error) from error
    except BaseException as error:
        raise _Raised(error) from error


def _call(job: Callable[[], Any]) -> Any:
    return job()


def load(message: rules_pb2.PythonProcessor) -> PythonRule:
    """Run the source of a rule. Raises Refused."""
    modules = {module.file: module.source for module in message.modules}
    return load_class(message.file, message.class_name, message.source, modules)


def load_class(file: str, name: str, source: bytes, modules: Mapping[str, bytes]) -> PythonRule:
    """Run a source and return its class as a rule. Raises Refused."""

    def check(found: Any) -> None:
        if not (isinstance(found, type) and issubclass(found, Processor)):
            raise Refused(f"{file} has no class '{name}' that is a filters.ext_proc.Processor")
        if not declared(found):
            raise Refused(f"the class {name} of {file} has none of the methods {', '.join(sorted(Phase))}")

    return PythonRule(f"{file}:{name}", load_object(file, name, source, modules, check))
