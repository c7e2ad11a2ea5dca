"""Checks of the listeners of each port: what may share a port, and which settings they have to share then."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from filters.language import Path, Problem
from xds_server.gateway.model import hosts
from xds_server.gateway.model.gateway import Sections
from xds_server.gateway.model.hosts import ANY_HOST
from xds_server.gateway.model.listeners import Limits, Listener, Timeouts
from xds_server.gateway.model.ports import WILDCARD_ADDRESSES, key

_OF_ALL: tuple[Path, ...] = (("proxy_protocol",), ("limits", "connection_buffer"), ("envoy",))
"""The settings of a port, which its listeners have to share even if each has its own connection manager."""
_NOT_SHARED = ("port", "address", "hosts", "tls", "redirect_to_https")
_OF_PLAIN_HTTP: tuple[Path, ...] = tuple(
    path
    for field in dataclasses.fields(Listener)
    if field.name not in _NOT_SHARED
    for path in (
        [(field.name, one.name) for one in dataclasses.fields(Timeouts)]
        if field.name == "timeouts"
        else [(field.name, one.name) for one in dataclasses.fields(Limits)]
        if field.name == "limits"
        else [(field.name,)]
    )
)
"""The settings of a connection manager, which is the same for all listeners for plain HTTP at one port."""


def check(sections: Sections) -> Iterator[Problem]:
    """Yield the problems of listeners that share a port."""
    by_number: dict[int, list[str]] = {}
    for name, listener in sections.listeners.items():
        by_number.setdefault(listener.port, []).append(name)
        yield from _addresses_as_hosts(name, listener)
    for names in by_number.values():
        yield from _apart(names, sections.listeners)
        by_key: dict[tuple[str, int], list[str]] = {}
        for name in names:
            by_key.setdefault(key(sections.listeners[name]), []).append(name)
        for members in by_key.values():
            yield from _together(members, sections.listeners)


def _addresses_as_hosts(name: str, listener: Listener) -> Iterator[Problem]:
    """Yield a warning for addresses by which no connection is chosen."""
    for number, host in enumerate(listener.hosts):
        if listener.tls is not None and _is_address(host):
            yield Problem(
                path=("listeners", name, "hosts", number),
                message="clients send no server name (SNI) for an address (RFC 6066 section 3), so no connection is for it",
                remedy="write a name, or leave out hosts",
                severity="warning",
            )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _apart(names: Sequence[str], listeners: Mapping[str, Listener]) -> Iterator[Problem]:
    """Yield a problem for each listener at a port of which another one takes all addresses."""
    taken: set[str] = set()
    for first, name in combinations(names, 2):
        addresses = {key(listeners[first])[0], key(listeners[name])[0]}
        if len(addresses) > 1 and not addresses.isdisjoint(WILDCARD_ADDRESSES) and name not in taken:
            taken.add(name)
            yield _taken(name, first, listeners)


def _taken(name: str, first: str, listeners: Mapping[str, Listener]) -> Problem:
    message = f"port {listeners[name].port} is taken by the listener '{first}'"
    return Problem(path=("listeners", name, "port"), message=message, remedy="choose another port")


def _together(names: Sequence[str], listeners: Mapping[str, Listener]) -> Iterator[Problem]:
    """Yield the problems of listeners with the same address and port."""
    first, plain = names[0], listeners[names[0]].tls is None
    owners: dict[str, str] = {}
    for name in names:
        listener = listeners[name]
        if (listener.tls is None) is not plain:
            other = "plain HTTP" if plain else "TLS"
            yield Problem(
                path=("listeners", name, "port"),
                message=f"the listener '{first}' at this port uses {other}, and this one does not",
                also_path=("listeners", first),
                remedy="choose another port, or give both or neither of them 'tls'",
            )
            continue
        yield from _hosts(name, listener, owners, listeners)
        for path in _OF_PLAIN_HTTP if plain else _OF_ALL:
            if name != first and _value(listener, path) != _value(listeners[first], path):
                yield Problem(
                    path=("listeners", name, *path),
                    message=f"this differs from the listener '{first}' at the same port, "
                    "and Envoy has one setting for both",
                    also_path=("listeners", first, *path),
                    remedy="write the same for both, or choose another port",
                )


def _hosts(
    name: str, listener: Listener, owners: dict[str, str], listeners: Mapping[str, Listener]
) -> Iterator[Problem]:
    """Yield a problem for each host that another listener at the port has too. `owners` gets the new ones."""
    for number, host in enumerate(hosts.of(listener.hosts)):
        first = owners.setdefault(host, name)
        if first == name:
            continue
        if not listener.hosts and not listeners[first].hosts:
            yield _taken(name, first, listeners)
        else:
            what = "all other hosts" if host == ANY_HOST else f"the host {host}"
            path: Path = ("listeners", name, "hosts", number) if listener.hosts else ("listeners", name)
            yield Problem(
                path=path,
                message=f"{what} of this port belong{'s' if host != ANY_HOST else ''} to the listener '{first}'",
                also_path=("listeners", first, "hosts"),
                remedy="give each listener hosts of its own, or choose another port",
            )


def _value(listener: Listener, path: Path) -> Any:
    value: Any = listener
    for name in path:
        value = getattr(value, str(name))
    return value
