"""Verifies that a command can listen at its addresses. An error names the process that uses an address."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from dataclasses import dataclass

from xds_server.errors import EnvironmentFailed, WrongUsage
from xds_server.processes.listening_ports import UNIX, holder


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An address that a command is about to listen at, ``HOST:PORT`` or ``unix:/PATH``: the value of `flag`.

    If `shared` is true, other processes may listen at the same port (SO_REUSEPORT).
    """

    flag: str
    address: str
    shared: bool = False


EXAMPLE_PORTS = {"--xds": 18000, "--listen": 18001}
"""The port in the example of an error message, by flag; that of the admin address otherwise."""


def split(flag: str, address: str) -> tuple[str, int]:
    """Return host and port of a flag's value, or ``unix:/PATH`` and 0 for a Unix socket. Raises WrongUsage.

    An empty host means every address of this machine.
    """
    if address.startswith(f"{UNIX}/"):
        return address, 0
    host, colon, port = address.removeprefix("http://").removesuffix("/").rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise WrongUsage(
            f"{flag}: '{address}' is not HOST:PORT, such as 127.0.0.1:{EXAMPLE_PORTS.get(flag, 19000)}, nor unix:/PATH"
        )
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """True if only processes of this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ensure_local(flag: str, address: str) -> None:
    """Verify that only processes of this machine can reach an address. Raises WrongUsage."""
    host, _ = split(flag, address)
    if not host.startswith(UNIX) and not is_loopback(host):
        raise WrongUsage(
            f"{flag}: '{address}' is not of this machine only, and whoever reaches it says who the caller is; "
            "write unix:/PATH, or a host of loopback"
        )


def ensure_free(*wanted: Wanted) -> None:
    """Verify that this process can listen at all of these addresses. Raises EnvironmentFailed, WrongUsage.

    The error names every address in use, the process that listens there, and the flag for another address. If another
    process takes an address after this check, the server that cannot listen raises `failed_to_listen`.
    """
    flags: dict[tuple[str, int], str] = {}
    problems = []
    for wanted_address in wanted:
        host, port = split(wanted_address.flag, wanted_address.address)
        if (host, port) in flags and (port or host.startswith(UNIX)):
            raise WrongUsage(
                f"{flags[host, port]} and {wanted_address.flag} are both {wanted_address.address}; change one of them"
            )
        flags[host, port] = wanted_address.flag
        try:
            _bind(host, port, shared=wanted_address.shared)
        except OSError as error:
            problems.append(failed_to_listen(wanted_address.flag, wanted_address.address, error))
    if problems:
        raise EnvironmentFailed("\n".join(map(str, problems)))


def failed_to_listen(flag: str, address: str, error: OSError) -> EnvironmentFailed:
    """Return the error of a process that cannot listen at the address of `flag`."""
    # gRPC's error has no number: then the address is in use if a process listens there
    other = holder(address) if error.errno in (errno.EADDRINUSE, None) else None
    if other is None and error.errno != errno.EADDRINUSE:
        return EnvironmentFailed(
            f"cannot listen at {flag} {address}: {error.strerror or error}; choose another address"
        )
    if other is None:
        name = "another process"
    elif other.process == os.getpid():
        name = "this process itself"
    else:
        name = str(other)
    form = f"{UNIX}/PATH" if address.startswith(UNIX) else "HOST:PORT (port 0: any free port)"
    return EnvironmentFailed(
        f"{flag} {address} is taken by {name}; end that process, or choose another address: {flag} {form}"
    )


def _bind(host: str, port: int, *, shared: bool) -> None:
    """Bind to an address as a server does, and close the socket again. Raises OSError."""
    if host.startswith(UNIX):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            # EAGAIN: a process listens, and its queue of connections is full
            if probe.connect_ex(host.removeprefix(UNIX)) in (0, errno.EAGAIN):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return
    resolved = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    absent: list[OSError] = []
    for family, kind, protocol, _, address in resolved:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if shared:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
        except OSError as error:
            # a host name may have an address of a family that this machine lacks
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            absent.append(error)
    if len(absent) == len(resolved):
        raise absent[0]
