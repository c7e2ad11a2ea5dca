"""Who is sent a first configuration, and when: a fleet that comes back all at once costs bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Slot:
    """The right to be sent a first configuration; over when it is ended, or after `patience` seconds."""

    __slots__ = ("_release", "_timer")

    def __init__(self, release: Callable[[], None], patience: float) -> None:
        self._release: Callable[[], None] | None = release
        self._timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(patience, self.end)

    def end(self) -> None:
        """Let the next one begin. Once is enough, more do no harm."""
        if self._release is None or self._timer is None:
            return
        self._timer.cancel()
        self._release()
        self._release = self._timer = None


class Slots:
    """`at_once` clients have a slot, the others wait in the order in which they came.

    A client that neither answers nor leaves holds nobody back for longer than `patience` seconds.
    """

    def __init__(self, at_once: int, patience: float) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._patience = patience

    async def take(self) -> Slot:
        """Wait for a slot."""
        await self._free.acquire()
        return Slot(self._free.release, self._patience)
