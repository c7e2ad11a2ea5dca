"""Sockets that the workers of one policy server share: bound before the fork, and accepted from by all workers."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from xds_server.processes.addresses import failed_to_listen
from xds_server.processes.listening_ports import UNIX


@contextlib.contextmanager
def listening(flag: str, address: str) -> Iterator[Sequence[socket.socket]]:
    """Yield sockets bound to ``HOST:PORT``, which other processes may share, or ``unix:/PATH``.

    `flag` is the flag that chose the address. No client can connect before the first worker with its rules listens,
    and none after the context has ended. Raises EnvironmentFailed.
    """
    with contextlib.ExitStack() as stack:
        try:
            sockets = [_unix(address, stack)] if address.startswith(UNIX) else list(_tcp(address, stack))
        except OSError as error:
            raise failed_to_listen(flag, address, error) from None
        yield sockets


def stop(sockets: Sequence[socket.socket]) -> None:
    """Accept no more connections, in all processes that share these sockets."""
    for bound in sockets:
        with contextlib.suppress(OSError):  # no process has listened yet
            bound.shutdown(socket.SHUT_RDWR)


def _unix(address: str, stack: contextlib.ExitStack) -> socket.socket:
    path = Path(address.removeprefix(UNIX).removeprefix("//"))
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    bound = stack.enter_context(socket.socket(socket.AF_UNIX))
    path.unlink(missing_ok=True)
    bound.bind(str(path))
    stack.callback(path.unlink, missing_ok=True)
    return bound


def _tcp(address: str, stack: contextlib.ExitStack) -> Iterator[socket.socket]:
    host, _, port = address.rpartition(":")
    resolved = socket.getaddrinfo(
        host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    for family, kind, protocol, _, where in dict.fromkeys(resolved):
        bound = stack.enter_context(socket.socket(family, kind, protocol))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(where)
        yield bound
