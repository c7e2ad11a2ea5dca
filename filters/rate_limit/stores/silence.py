"""A timeout for the answer of another process that counts only that process's time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

LOOKS = 5
"""Turns of the event loop, at intervals, in which the answer must be missing."""
TURN = 0.001
"""Seconds in which the loop reads data that arrived while the loop itself was delayed."""


class SilenceTimer:
    """Calls `late` if another process was silent for some time. Create it in the event loop that uses it.

    The time is divided into parts. If this process was delayed in a part, by its own work or because it got no
    processor, the part counts once, whatever its length. Data that arrived in the meantime is read before the time
    ends.
    """

    __slots__ = ("_late", "_left", "_loop", "_part", "_timer")

    def __init__(self, late: Callable[[], None]) -> None:
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._left = LOOKS
        self._part = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float) -> None:
        """Start the timer with a timeout of `seconds`, unless it runs already."""
        if self._timer is None:
            self._left, self._part = LOOKS, seconds / LOOKS
            self._timer = self._loop.call_later(self._part, self._look)

    def heard(self) -> None:
        """The other process sent something, so its time begins again."""
        self._left = LOOKS

    def end(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._left -= 1
        if self._left < 0:
            self._timer = None
            self._late()
        else:
            self._timer = self._loop.call_later(self._part if self._left else TURN, self._look)


@asynccontextmanager
async def silence_timeout(seconds: float) -> AsyncIterator[None]:
    """A context manager that raises TimeoutError if other processes take longer than `seconds` to answer."""
    async with asyncio.timeout(None) as scope:
        watch = SilenceTimer(lambda: scope.reschedule(asyncio.get_running_loop().time()))
        watch.begin(seconds)
        try:
            yield
        finally:
            watch.end()
