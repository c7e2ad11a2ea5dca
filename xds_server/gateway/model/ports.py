"""Ports: the listeners that share an address and a port, and the listener that each host belongs to."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from xds_server.gateway.model import hosts
from xds_server.gateway.model.gateway import Sections
from xds_server.gateway.model.hosts import ANY_HOST, wildcards
from xds_server.gateway.model.listeners import Listener
from xds_server.gateway.model.stream_routes import StreamRoute

Transport = Literal["tcp", "udp"]
WILDCARD_ADDRESSES = ("0.0.0.0", "::")
"""The addresses of all interfaces of a machine."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Port:
    """An address and a port, with the listeners that share it, in the order of their names.

    `owners` has the listener of each host or wildcard. The most specific one that covers a host decides. `streams` are
    the stream routes of each listener without HTTP.
    """

    transport: Transport
    address: str
    number: int
    listeners: Mapping[str, Listener]
    owners: Mapping[str, str]
    streams: Mapping[str, Mapping[str, StreamRoute]]
    destination: int | None = None
    """The port that clients wanted, if these listeners have only such connections of a port that others have too."""

    @property
    def first(self) -> Listener:
        """The first listener. All have its settings if they share a connection manager."""
        return next(iter(self.listeners.values()))

    @property
    def http(self) -> Mapping[str, Listener]:
        """The listeners that have routes."""
        return {name: one for name, one in self.listeners.items() if one.protocol == "http"}

    @property
    def plain(self) -> bool:
        """True for plain HTTP, where all listeners share one connection manager and one table of routes."""
        return self.first.protocol == "http" and self.first.tls is None

    @property
    def reads_server_names(self) -> bool:
        """True if the server name (SNI) of a connection may choose its listener, or its stream route."""
        return (
            any(one.tls is not None for one in self.listeners.values())
            or any(one != ANY_HOST for one in self.owners)
        ) and not self.plain

    def owner(self, host: str) -> str | None:
        """Return the listener that a host or a wildcard belongs to, or None."""
        return most_specific(host, self.owners)

    def own(self, listener: str) -> list[str]:
        """Return the hosts and wildcards of a listener."""
        return [host for host, owner in self.owners.items() if owner == listener]

    def hosts(self, listener: str, of_routes: Collection[str]) -> Collection[str]:
        """Return the hosts that a listener answers for, if its routes are for the hosts `of_routes`.

        They are the intersection of both, without the hosts that belong to another listener.
        """
        alone = len(self.owners) == 1 and self.owners.get(ANY_HOST) == listener
        if alone or self.listeners[listener].any_host:
            return of_routes
        found = {host for host in of_routes if self.owner(host) == listener}
        return found.union(
            host for host in self.own(listener) if any(one in of_routes for one in wildcards(host))
        )

    def server_names(self, listener: str) -> dict[str, str | None]:
        """Return the stream route of each server name of a listener, None for a name without any."""
        by_name = {
            host: name for name, one in self.streams[listener].items() for host in hosts.of(one.server_names)
        }
        found: dict[str, str | None] = dict.fromkeys(self.own(listener))
        found |= {host: most_specific(host, by_name) for host in self.hosts(listener, by_name)}
        return found


def most_specific(host: str, found: Mapping[str, str]) -> str | None:
    """Return the value of the most specific pattern that covers a host or a wildcard, or None."""
    if host in found:
        return found[host]
    return next((found[one] for one in wildcards(host) if one in found), None)


def ports(sections: Sections) -> tuple[Port, ...]:
    """Return all ports in the order of the names of their first listeners. The listeners have no conflicts."""
    groups: dict[tuple[tuple[Transport, str, int], Part], dict[str, Listener]] = {}
    for name, listener in sorted(sections.listeners.items()):
        groups.setdefault((key(listener), part(listener)), {})[name] = listener
    return tuple(_port(place, one, members, sections) for (place, one), members in groups.items())


Part = tuple[int, bool] | None


def part(listener: Listener) -> Part:
    """Return what listeners share beside their port: `destination_port`, and whether they are for plain HTTP."""
    if listener.destination_port is None:
        return None
    return listener.destination_port, listener.protocol == "http" and listener.tls is None


def _port(
    place: tuple[Transport, str, int], of: Part, members: Mapping[str, Listener], sections: Sections
) -> Port:
    transport, address, number = place
    streams = {
        name: dict(streams_of(name, listener, sections))
        for name, listener in members.items()
        if listener.protocol != "http"
    }
    owners = {
        host: name
        for name, listener in members.items()
        for host in hosts_of(listener, streams.get(name, {}).values())
    }
    return Port(
        transport=transport,
        address=address,
        number=number,
        listeners=members,
        owners=owners,
        streams=streams,
        destination=None if of is None else of[0],
    )


def hosts_of(listener: Listener, streams: Iterable[StreamRoute]) -> tuple[str, ...]:
    """Return the hosts of a listener. Those of a listener for TCP without any are the server names of its stream routes."""
    if listener.protocol == "http" or listener.hosts:
        return hosts.of(listener.hosts)
    return tuple(dict.fromkeys(host for one in streams for host in hosts.of(one.server_names)))


def streams_of(name: str, listener: Listener, sections: Sections) -> Iterable[tuple[str, StreamRoute]]:
    """Return the stream routes of a listener by name. No route of UDP has server names."""
    return [
        (key, one)
        for key, one in sections.stream_routes.items()
        if (not one.listeners or name in one.listeners)
        and (listener.protocol == "tcp" or not one.server_names)
    ]


def key(listener: Listener) -> tuple[Transport, str, int]:
    """Return transport, address and port of a listener. Each IPv6 address has one spelling (RFC 5952)."""
    transport: Transport = "udp" if listener.protocol == "udp" else "tcp"
    return transport, _spelled(listener.address), listener.port


@lru_cache(maxsize=65536)
def _spelled(address: str) -> str:
    return str(ipaddress.ip_address(address))
