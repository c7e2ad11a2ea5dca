"""Calls of a function in threads for an event loop.

There are few wake-ups and no locks, because most calls take microseconds.

A new call wakes one thread, which goes on until no call waits. A thread that begins a call wakes another thread if
further calls wait, because its call may take long. Outcomes that come together are passed to the loop together.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Outcome = tuple[Any, BaseException | None]
"""The result and the error of a call."""


class Threads:
    """At most `most` threads that call one function. They end when this object is garbage."""

    def __init__(self, call: Callable[[Any], Any], most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._calls = _Calls(call)
        self._started = 0
        weakref.finalize(self, self._calls.end).atexit = False

    def ask(self, argument: Any, limit: float) -> asyncio.Future[Outcome]:
        """Call the function. Returns a future of the running loop; it fails with TimeoutError after `limit` seconds.

        If the future is done before a thread takes the call, the call is never made. A running call is not ended.
        """
        loop, calls = asyncio.get_running_loop(), self._calls
        future: asyncio.Future[Outcome] = loop.create_future()
        timer = loop.call_later(limit, _give_up, future)
        future.add_done_callback(lambda _: timer.cancel())
        calls.under_way += 1
        if self._started < min(self._most, calls.under_way):
            self._started += 1
            # A daemon: a call that never ends must not hold back the end of the process.
            threading.Thread(target=calls.run, name=f"{self._name}-{self._started}", daemon=True).start()
        calls.waiting.append((future, argument))
        calls.wake_one()
        return future


def _give_up(future: asyncio.Future[Outcome]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


class _Calls:
    """The state that the threads share with the loop. Deques and the queue need no lock; extra wake-ups do no harm."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self.under_way = 0
        """Calls whose outcome the loop has not received yet. Only the loop changes it."""
        self.waiting: deque[tuple[asyncio.Future[Outcome], Any]] = deque()
        self._call = call
        self._outcomes: deque[tuple[asyncio.Future[Outcome], Outcome]] = deque()
        self._passing = False
        self._waking = False
        """True if a thread has been woken and has not looked yet."""
        self._wakes: SimpleQueue[bool] = SimpleQueue()
        """False ends a thread."""

    def wake_one(self) -> None:
        """Wake a thread. It sees all calls that were added before."""
        if not self._waking:
            self._waking = True
            self._wakes.put(True)

    def end(self) -> None:
        """End idle threads now, and the others when they become idle."""
        self._wakes.put(False)

    def run(self) -> None:
        """The loop of a thread."""
        while self._wakes.get():
            self._waking = False
            self._work()
        self._work()
        self._wakes.put(False)  # for the next one

    def _work(self) -> None:
        while self.waiting:
            try:
                future, argument = self.waiting.popleft()
            except IndexError:  # another thread took it
                return
            if self.waiting:
                self.wake_one()
            self._pass_on(future, (None, None) if future.done() else self._outcome(argument))

    def _outcome(self, argument: Any) -> Outcome:
        try:
            return self._call(argument), None
        except BaseException as error:  # noqa: BLE001 - SystemExit of a function must not end the thread
            return None, error

    def _pass_on(self, future: asyncio.Future[Outcome], outcome: Outcome) -> None:
        self._outcomes.append((future, outcome))
        if not self._passing:
            self._passing = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, so no call waits
                future.get_loop().call_soon_threadsafe(self._set_outcomes)

    def _set_outcomes(self) -> None:
        """Set the outcomes in the loop's thread."""
        self._passing = False
        while self._outcomes:
            future, outcome = self._outcomes.popleft()
            self.under_way -= 1
            if not future.done():
                future.set_result(outcome)
