"""How long an answer of another process is waited for, where only its own time counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

LOOKS = 5
"""Turns of the event loop, apart from each other, in which an answer has to be missing."""
TURN = 0.001
"""Seconds in which the loop reads what came while it was held up itself."""


class SilenceTimer:
    """Calls `late` where another process was silent for some time. To be made in the event loop that uses it.

    The time is looked at in parts. A part in which this process was held up, by its own work or because it got no
    processor, counts as one part however long it was; and what came meanwhile is read before the time is over.
    """

    __slots__ = ("_late", "_left", "_loop", "_part", "_timer")

    def __init__(self, late: Callable[[], None]) -> None:
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._left = LOOKS
        self._part = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float) -> None:
        """SilenceTimer from now on, unless it does already."""
        if self._timer is None:
            self._left, self._part = LOOKS, seconds / LOOKS
            self._timer = self._loop.call_later(self._part, self._look)

    def heard(self) -> None:
        """The other process said something: its time begins anew."""
        self._left = LOOKS

    def end(self) -> None:
        """Nothing is waited for any more."""
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
    """Raise TimeoutError where what is inside takes longer than `seconds` because of others."""
    async with asyncio.timeout(None) as scope:
        watch = SilenceTimer(lambda: scope.reschedule(asyncio.get_running_loop().time()))
        watch.begin(seconds)
        try:
            yield
        finally:
            watch.end()
