"""The owner process of the counters of several workers. It decides for all of them, in the order of their calls."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from filters.rate_limit.engine.memory import Memory
from filters.rate_limit.stores import owner_protocol
from filters.rate_limit.stores.circuit_breaker import FullMemory

AT_A_TIME = 1000
"""Counters in one frame of a list. The owner answers other calls between two frames."""


class Owner:
    """Serves `memory` on a socket, by `clock` (microseconds). `unused` is set while there is no connection."""

    def __init__(self, memory: Memory, clock: Callable[[], int]) -> None:
        self.memory = memory
        self.clock = clock
        self.full = FullMemory()
        self.unused = asyncio.Event()
        self.unused.set()
        self._connected = 0

    async def start(self, listening: socket.socket) -> asyncio.Server:
        """Accept connections on a bound Unix socket."""
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(lambda: _Connection(self), sock=listening)

    def connected(self, change: int) -> None:
        """Add `change` to the number of connections."""
        self._connected += change
        if self._connected:
            self.unused.clear()
        else:
            self.unused.set()


class _Connection(asyncio.Protocol):
    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._frames = owner_protocol.Frames()
        self._waiting: deque[Any] = deque()
        self._answering = owner_protocol.Answering(owner.memory)
        self._transport: asyncio.Transport
        self._writable = asyncio.Event()
        self._operators: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._owner.connected(1)
        self._writable.set()
        self._transport.write(owner_protocol.frame(owner_protocol.HELLO))

    def connection_lost(self, _error: Exception | None) -> None:
        self._owner.connected(-1)
        for task in self._operators:
            task.cancel()

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read its answers."""
        self._writable.clear()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._writable.set()
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        working = bool(self._waiting)
        for one in self._frames.receive(data):
            if type(one) is tuple:
                task = asyncio.create_task(self._operate(*one))
                self._operators.add(task)
                task.add_done_callback(self._operators.discard)
            else:
                self._waiting.append(one)
        if self._waiting and not working:
            self._answer()

    def _answer(self) -> None:
        """Answer one frame.

        The next frame is answered in a later turn, so that each answer is sent as soon as it is known.
        """
        memory, now = self._owner.memory, self._owner.clock()
        uncounted = memory.uncounted
        answer = self._answering.answer(self._waiting[0], now)
        if not self._transport.is_closing():
            self._transport.write(answer)
        if memory.uncounted != uncounted:
            self._owner.full.report(now)
        self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._answer)

    async def _operate(self, operation: int, prefix: str) -> None:
        """Run an operator's call in a thread and send its result in pieces, while decisions go on."""
        memory = self._owner.memory
        if operation == owner_protocol.RESET:
            self._transport.write(owner_protocol.frame(await asyncio.to_thread(memory.reset, prefix)))
            return
        uncounted, found = await asyncio.to_thread(memory.listed, prefix)
        for begin in range(0, len(found), AT_A_TIME):
            pieces: Any = owner_protocol.frame(owner_protocol.listed(found[begin : begin + AT_A_TIME]))
            self._transport.write(pieces)
            await self._writable.wait()
            await asyncio.sleep(0)
        self._transport.write(owner_protocol.frame(uncounted))
