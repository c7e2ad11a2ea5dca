"""Whether other processes listen where one does, as SO_REUSEPORT allows; read from Linux's own tables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_LISTENING = "0A"
"""A socket's state in /proc/net/tcp (proc_pid_net(5), include/net/tcp_states.h)."""
_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))


def shares_a_port() -> bool:
    """Whether another process accepts from an address of this one; False where the system does not tell.

    To be asked after listening: of two that begin at the same time, the later one sees both.
    """
    return any(ports_of().values())


def ports_of(process: int | None = None) -> dict[int, bool]:
    """The TCP ports on which a process listens (None: this one), and whether another one does on the same address."""
    own = set(_sockets(process))
    listening = list(_listening())
    others = {address for address, socket in listening if socket not in own}
    return {
        int(address.rpartition(":")[2], 16): address in others
        for address, socket in listening
        if socket in own
    }


def _sockets(process: int | None) -> Iterator[str]:
    """The inodes of a process's sockets."""
    with contextlib.suppress(OSError):
        for name in Path(f"/proc/{process or 'self'}/fd").iterdir():
            # The file of the list itself is gone by now.
            with contextlib.suppress(OSError):
                link = str(name.readlink())
                if link.startswith("socket:["):
                    yield link[len("socket:[") : -1]


def _listening() -> Iterator[tuple[str, str]]:
    """The address and the inode of each TCP socket that listens in this network namespace."""
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING:
                    yield f"{table.name} {fields[1]}", fields[9]
