"""Addresses that a command listens at: free, or taken by a process that the error names."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass

from xds_server.errors import EnvironmentFailed, WrongUsage
from xds_server.processes.listening_ports import UNIX, holder


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An address that a command is about to listen at, ``HOST:PORT`` or ``unix:/PATH``: the value of `flag`.

    If it is `shared`, other processes may listen at the same port (SO_REUSEPORT).
    """

    flag: str
    address: str
    shared: bool = False


def split(flag: str, address: str) -> tuple[str, int]:
    """Host and port of a flag's value; ``unix:/PATH`` and 0 for a Unix socket. Raises WrongUsage.

    An empty host means every address of this machine.
    """
    if address.startswith(f"{UNIX}/"):
        return address, 0
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise WrongUsage(f"{flag}: '{address}' is not HOST:PORT, such as 127.0.0.1:19000, nor unix:/PATH")
    return host.strip("[]"), int(port)


def ensure_free(*wanted: Wanted) -> None:
    """Check that this process can listen at all of these addresses. Raises EnvironmentFailed, WrongUsage.

    The error names every address that is taken, the process that listens there, and the flag that chooses another.
    Another process may take an address after this check: then the server that cannot listen raises `failed_to_listen`.
    """
    flags: dict[tuple[str, int], str] = {}
    found = []
    for one in wanted:
        host, port = split(one.flag, one.address)
        if (host, port) in flags and (port or host.startswith(UNIX)):
            raise WrongUsage(f"{flags[host, port]} and {one.flag} are both {one.address}; change one of them")
        flags[host, port] = one.flag
        try:
            _bind(host, port, shared=one.shared)
        except OSError as error:
            found.append(failed_to_listen(one.flag, one.address, error))
    if found:
        raise EnvironmentFailed("\n".join(map(str, found)))


def failed_to_listen(flag: str, address: str, error: OSError) -> EnvironmentFailed:
    """The error of a process that cannot listen at the address which `flag` gave it."""
    # gRPC's error has no number: then it is taken if a process listens there
    found = holder(address) if error.errno in (errno.EADDRINUSE, None) else None
    if found is None and error.errno != errno.EADDRINUSE:
        return EnvironmentFailed(
            f"cannot listen at {flag} {address}: {error.strerror or error}; choose another address"
        )
    if found is None:
        name = "another process"
    elif found.process == os.getpid():
        name = "this process itself"
    else:
        name = str(found)
    form = f"{UNIX}/PATH" if address.startswith(UNIX) else "HOST:PORT (port 0: any free port)"
    return EnvironmentFailed(
        f"{flag} {address} is taken by {name}; end that process, or choose another address: {flag} {form}"
    )


def _bind(host: str, port: int, *, shared: bool) -> None:
    """Bind to an address as a server does, and close it again. Raises OSError."""
    if host.startswith(UNIX):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            # EAGAIN: it listens, and its queue of connections is full
            if probe.connect_ex(host.removeprefix(UNIX)) in (0, errno.EAGAIN):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    absent: list[OSError] = []
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if shared:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
        except OSError as error:
            # a name may have an address of a family that this machine lacks
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            absent.append(error)
    if len(absent) == len(found):
        raise absent[0]
