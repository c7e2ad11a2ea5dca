"""A function called in threads for an event loop: few wake-ups and no locks, as most calls take microseconds.

A call that is waiting wakes one thread, which goes on until nothing waits; while a call takes long, that thread has
woken another. Outcomes that come together are told to the loop together.
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
"""What a call returned, and what it raised."""


class Threads:
    """At most `most` threads that call one function. They end when nobody holds this any more."""

    def __init__(self, call: Callable[[Any], Any], most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._calls = _Calls(call)
        self._started = 0
        weakref.finalize(self, self._calls.end).atexit = False

    def ask(self, argument: Any, limit: float) -> asyncio.Future[Outcome]:
        """Call the function: a future of the running loop, which fails with TimeoutError after `limit` seconds.

        A call whose future is done before a thread came to it is never made; one that runs is not ended.
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
    """What the threads share with the loop. Deques and the queue need no lock; a wake-up too many does no harm."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self.under_way = 0
        """Calls whose outcome the loop has not been told yet; changed by the loop only."""
        self.waiting: deque[tuple[asyncio.Future[Outcome], Any]] = deque()
        self._call = call
        self._outcomes: deque[tuple[asyncio.Future[Outcome], Outcome]] = deque()
        self._telling = False
        self._waking = False
        """Whether a thread has been woken that has not looked yet."""
        self._wakes: SimpleQueue[bool] = SimpleQueue()
        """False ends a thread."""

    def wake_one(self) -> None:
        """Let a thread look at what waits; it sees all that was put there before."""
        if not self._waking:
            self._waking = True
            self._wakes.put(True)

    def end(self) -> None:
        """End the threads that have nothing to do, and others when they have not."""
        self._wakes.put(False)

    def run(self) -> None:
        """What a thread does."""
        while self._wakes.get():
            self._waking = False
            self._work()
        self._work()
        self._wakes.put(False)  # for the next one

    def _work(self) -> None:
        while self.waiting:
            try:
                future, argument = self.waiting.popleft()
            except IndexError:  # another thread was faster
                return
            if self.waiting:
                self.wake_one()
            self._tell(future, (None, None) if future.done() else self._outcome(argument))

    def _outcome(self, argument: Any) -> Outcome:
        try:
            return self._call(argument), None
        except BaseException as error:  # noqa: BLE001 - SystemExit of a function must not end the thread
            return None, error

    def _tell(self, future: asyncio.Future[Outcome], outcome: Outcome) -> None:
        self._outcomes.append((future, outcome))
        if not self._telling:
            self._telling = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                future.get_loop().call_soon_threadsafe(self._told)

    def _told(self) -> None:
        """In the loop."""
        self._telling = False
        while self._outcomes:
            future, outcome = self._outcomes.popleft()
            self.under_way -= 1
            if not future.done():
                future.set_result(outcome)
