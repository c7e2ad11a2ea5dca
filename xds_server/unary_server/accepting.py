"""Accepting from a socket from which other processes accept too, so that connections spread evenly."""

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
"""Seconds between two looks whether whoever has fewer connections has taken one."""
PATIENCE = 0.02
"""Seconds after which it is taken by whoever sees it."""
AGAIN = 0.1
"""Seconds until the next attempt where nobody is to listen any more, or where there are no files left."""
_ABSENT = 1 << 62
"""The count of a process that does not accept."""


def counts(processes: int) -> memoryview:
    """How many connections each of some processes has; to be made before they part, which share it."""
    found = memoryview(mmap.mmap(-1, 8 * processes)).cast("q")
    for number in range(processes):
        found[number] = _ABSENT
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A bound socket from which processes accept that share `counts`; `number` is that of this process."""

    socket: socket.socket
    counts: memoryview
    number: int


class Accepting:
    """Accepts from a shared socket, one connection at a time, as long as nobody who accepts too has fewer.

    The kernel alone gives two connections to the same process as often as not, and connections of proxies are few and
    stay. Who has fewer gets `patience` seconds, for it may be busy.
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
        """The one socket, as an asyncio.Server has its own."""
        return (self._shared.socket,)

    def count(self, connections: int) -> None:
        """This process has so many connections."""
        self._shared.counts[self._shared.number] = connections

    def close(self) -> None:
        """Accept no more; the socket stays open for the others."""
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
        except BlockingIOError:  # another one was faster
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
