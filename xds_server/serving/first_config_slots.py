"""Slots for first configurations, so that a fleet that reconnects all at once costs bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Slot:
    """The right of one client to get its first configuration. It ends by `end`, or after `patience` seconds."""

    __slots__ = ("_release", "_timer")

    def __init__(self, release: Callable[[], None], patience: float) -> None:
        self._release: Callable[[], None] | None = release
        self._timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(patience, self.end)

    def end(self) -> None:
        """Free the slot for the next client. Further calls do nothing."""
        if self._release is None or self._timer is None:
            return
        self._timer.cancel()
        self._release()
        self._release = self._timer = None


class Slots:
    """Gives a slot to `at_once` clients; the others wait in the order of their arrival.

    A client that neither acknowledges nor disconnects holds its slot for `patience` seconds at most.
    """

    def __init__(self, at_once: int, patience: float) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._patience = patience

    async def take(self) -> Slot:
        """Wait for a slot."""
        await self._free.acquire()
        return Slot(self._free.release, self._patience)
