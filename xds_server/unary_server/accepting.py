"""Accepting from a socket that several processes share, so that connections spread evenly."""

from __future__ import annotations

import asyncio
import mmap
import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

BACKLOG = 1024
LOOK = 0.002
"""Seconds between two checks whether a process with fewer connections has accepted the new one."""
PATIENCE = 0.02
"""Seconds after which any process accepts a waiting connection."""
AGAIN = 0.1
"""Seconds until the next attempt if no file descriptors are left."""
_ABSENT = 1 << 62
"""The count of a process that does not accept."""


def counts(processes: int) -> memoryview:
    """Return the shared connection counts of some processes. Call it before the processes are forked."""
    shared = memoryview(mmap.mmap(-1, 8 * processes)).cast("q")
    for number in range(processes):
        shared[number] = _ABSENT
    return shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A bound socket and the `counts` of the processes that accept from it. `number` is that of this process."""

    socket: socket.socket
    counts: memoryview
    number: int


class Accepting:
    """Accepts from a shared socket, one connection at a time, if no other process has fewer connections.

    The kernel alone often gives two connections to the same process, and the connections of proxies are few and
    long-lived. A process with fewer connections gets `patience` seconds, because it may be busy.
    """

    def __init__(
        self,
        shared: Shared,
        protocol: Callable[[], asyncio.BaseProtocol],
        tls: ssl.SSLContext | None = None,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._shared = shared
        self._protocol = protocol
        self._tls = tls
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None
        self._making: asyncio.Task[object] | None = None
        self._poll = select.poll()
        self._closed = False
        self.count(0)
        shared.socket.setblocking(False)
        shared.socket.listen(BACKLOG)
        self._poll.register(shared.socket, select.POLLIN)
        self._loop.add_reader(shared.socket, self._come)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The shared socket, in the form of asyncio.Server.sockets."""
        return (self._shared.socket,)

    def count(self, connections: int) -> None:
        """Publish the number of connections of this process."""
        self._shared.counts[self._shared.number] = connections

    def close(self) -> None:
        """Stop accepting. The socket stays open for the other processes."""
        self._closed = True
        self.count(_ABSENT)
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._shared.socket)
        self._shared.socket.close()

    def _come(self) -> None:
        self._loop.remove_reader(self._shared.socket)
        self._look(self._loop.time() + self._patience)

    def _look(self, latest: float) -> None:
        counts = self._shared.counts
        if not self._poll.poll(0):
            self._watch()
        elif counts[self._shared.number] <= min(counts) or self._loop.time() >= latest:
            self._accept()
        else:
            self._timer = self._loop.call_later(LOOK, self._look, latest)

    def _watch(self, _made: asyncio.Task[object] | None = None) -> None:
        if not self._closed:
            self._loop.add_reader(self._shared.socket, self._come)

    def _accept(self) -> None:
        try:
            connection, _ = self._shared.socket.accept()
        except BlockingIOError:  # another process was faster
            self._watch()
        except OSError:
            self._timer = self._loop.call_later(AGAIN, self._watch)
        else:
            self._shared.counts[self._shared.number] += 1
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            making = self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._tls)
            self._making = self._loop.create_task(making)
            self._making.add_done_callback(self._watch)
