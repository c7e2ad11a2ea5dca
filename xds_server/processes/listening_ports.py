"""The process that listens at an address, and ports that two processes share (SO_REUSEPORT).

It reads Linux's tables in /proc.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

UNIX = "unix:"

_LISTENING = "0A"
"""The state of a listening socket in /proc/net/tcp (proc_pid_net(5), include/net/tcp_states.h)."""
_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_UNIX_TABLE = Path("/proc/self/net/unix")
_PROCESSES = Path("/proc")
_WORDS = 4
"""The command `xds` is one of the first words of a command line: ``python -m xds_server run``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that listens. `name` is that of `ps -o comm`, or ``xds run`` for this command."""

    process: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.process})"


def holder(address: str) -> Holder | None:
    """Return the process that listens at ``HOST:PORT`` or ``unix:/PATH``, or None if the system does not show it."""
    if address.startswith(UNIX):
        sockets = set(_unix_sockets("/" + address.removeprefix(UNIX).lstrip("/")))
    else:
        host, _, port = address.rpartition(":")
        sockets = set(_tcp_sockets(host.strip("[]"), int(port)))
    if not sockets:
        return None
    with contextlib.suppress(OSError):
        for folder in sorted(_PROCESSES.glob("[0-9]*"), key=lambda folder: int(folder.name)):
            if not sockets.isdisjoint(_sockets(int(folder.name))):
                process = _eldest(int(folder.name))
                return Holder(process=process, name=_name(process))
    return None


def shares_a_port() -> bool:
    """True if another process listens at an address of this process; False if the system does not show it.

    Call this after listening: of two processes that start at the same time, the later one sees both.
    """
    return any(ports_of().values())


def ports_of(process: int | None = None) -> dict[int, bool]:
    """Return the TCP ports at which a process listens (None: this process), with True if another process shares it."""
    own = set(_sockets(process))
    listening = list(_listening())
    others = {address for address, socket in listening if socket not in own}
    return {
        int(address.rpartition(":")[2], 16): address in others
        for address, socket in listening
        if socket in own
    }


def _sockets(process: int | None) -> Iterator[str]:
    """Yield the inodes of a process's sockets."""
    with contextlib.suppress(OSError):
        for name in Path(f"/proc/{process or 'self'}/fd").iterdir():
            # The directory listing includes its own descriptor, which is closed by now.
            with contextlib.suppress(OSError):
                link = str(name.readlink())
                if link.startswith("socket:["):
                    yield link[len("socket:[") : -1]


def _listening() -> Iterator[tuple[str, str]]:
    """Yield the address and the inode of each TCP socket that listens in this network namespace."""
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING:
                    yield f"{table.name} {fields[1]}", fields[9]


def _tcp_sockets(host: str, port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen at a port, at addresses that overlap with those of `host`."""
    own = {ipaddress.ip_address(one) for one in _resolved(host, port)}
    for entry, inode in _listening():
        address, _, hexadecimal = entry.rpartition(" ")[2].partition(":")
        if int(hexadecimal, 16) != port:
            continue
        other = _unmapped(_parsed(address))
        if other.is_unspecified or any(one.is_unspecified or _unmapped(one) == other for one in own):
            yield inode


def _resolved(host: str, port: int) -> Sequence[str]:
    with contextlib.suppress(OSError):
        entries = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return [str(entry[4][0]) for entry in entries]
    return []


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _parsed(text: str) -> _Address:
    """Return an address of /proc/net/tcp, which has 32-bit hexadecimal words in the machine's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))


def _unmapped(address: _Address) -> _Address:
    """Return the IPv4 address of an IPv4-mapped IPv6 address: servers for both families listen at those."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _unix_sockets(path: str) -> Iterator[str]:
    """Yield the inodes of the sockets that are bound to a path."""
    with contextlib.suppress(OSError):
        for line in _UNIX_TABLE.read_text().splitlines()[1:]:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[7] == path:
                yield fields[6]


def _eldest(process: int) -> int:
    """Return the oldest ancestor with the same command line: ending it ends all its forks."""
    line = _command_line(process)
    while (parent := _parent(process)) > 1 and _command_line(parent) == line:
        process = parent
    return process


def _parent(process: int) -> int:
    with contextlib.suppress(OSError):
        # the name, in parentheses, may contain spaces (proc_pid_stat(5))
        return int((_PROCESSES / str(process) / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _command_line(process: int) -> list[str]:
    with contextlib.suppress(OSError):
        return (_PROCESSES / str(process) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return []


def _name(process: int) -> str:
    """Return the name of a process. Other words of a command line may be secrets, so only the subcommand is shown."""
    words = _command_line(process)
    for at, word in enumerate(words[:_WORDS]):
        if Path(word).name == "xds" or (word == "xds_server" and words[at - 1] == "-m"):
            following = words[at + 1] if at + 1 < len(words) else ""
            return f"xds {following}".strip()
    with contextlib.suppress(OSError):
        return (_PROCESSES / str(process) / "comm").read_text().strip()
    return "a process"
