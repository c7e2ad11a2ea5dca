"""The connections of a fetch that is under way, so that another thread can end it: a server may send a byte now and then for ever."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading

import urllib3
from urllib3.connectionpool import HTTPConnectionPool


class Connections:
    """Open connections of one fetch. `begin` and `end` are called by who waits for it, the other methods in its thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = False
        self._sockets: list[socket.socket] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def ended(self) -> bool:
        """True if the fetch was ended."""
        return self._ended

    def begin(self) -> None:
        """Expect a fetch."""
        with self._lock:
            self._ended = False
            self._sockets, self._processes = [], []

    def end(self) -> None:
        """End the fetch that is expected or under way: it fails soon."""
        with self._lock:
            self._ended = True
            for one in self._sockets:
                _shut(one)
            for process in self._processes:
                process.kill()

    def add(self, one: socket.socket | subprocess.Popen[bytes]) -> None:
        """Note a connection. It is closed at once if the fetch was ended."""
        with self._lock:
            if isinstance(one, subprocess.Popen):
                self._processes.append(one)
                if self._ended:
                    one.kill()
            else:
                self._sockets.append(one)
                if self._ended:
                    _shut(one)

    def note(self, manager: urllib3.PoolManager) -> None:
        """Note the connections that a pool opens from now on."""
        pools = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {scheme: _noting(pool, self) for scheme, pool in pools.items()}


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def _noting(pool: type[HTTPConnectionPool], connections: Connections) -> type[HTTPConnectionPool]:
    """Return a pool whose connections are noted: before TLS, because its handshake may take for ever too, and with it."""

    class Connection(pool.ConnectionCls):  # type: ignore[misc,name-defined] # a class that is a value
        def _new_conn(self) -> socket.socket:
            made: socket.socket = super()._new_conn()
            connections.add(made)
            return made

        def connect(self) -> None:
            super().connect()
            connections.add(self.sock)

    class Pool(pool):  # type: ignore[misc,valid-type] # the same
        ConnectionCls = Connection

    return Pool
