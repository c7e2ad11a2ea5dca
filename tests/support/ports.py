"""Free ports, also when several test processes run side by side."""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import tempfile
from pathlib import Path

_LOCKS = Path(tempfile.gettempdir()) / "xds-test-ports"
_held: list[int] = []
_next = itertools.count(20000 + (os.getpid() * 37) % 10000)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that nobody uses and no other test process was given (below the ephemeral range)."""
    _LOCKS.mkdir(exist_ok=True)
    while True:
        port = 20000 + next(_next) % 12000
        lock = os.open(_LOCKS / str(port), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(lock)
            continue
        _held.append(lock)
        return port
