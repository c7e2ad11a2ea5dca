"""Ports: the listeners that share an address and a port, and the listener that each host belongs to."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from xds_server.gateway.model import hosts
from xds_server.gateway.model.hosts import ANY_HOST, wildcards
from xds_server.gateway.model.listeners import Listener

WILDCARD_ADDRESSES = ("0.0.0.0", "::")
"""The addresses of all interfaces of a machine."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Port:
    """An address and a port, with the listeners that share it, in the order of their names.

    `owners` has the listener of each host or wildcard. The most specific one that covers a host decides.
    """

    address: str
    number: int
    listeners: Mapping[str, Listener]
    owners: Mapping[str, str]

    @property
    def first(self) -> Listener:
        """The first listener. All have its settings if they share a connection manager."""
        return next(iter(self.listeners.values()))

    @property
    def plain(self) -> bool:
        """True for plain HTTP, where all listeners share one connection manager and one table of routes."""
        return self.first.tls is None

    def owner(self, host: str) -> str | None:
        """Return the listener that a host or a wildcard belongs to, or None."""
        if host in self.owners:
            return self.owners[host]
        return next((self.owners[one] for one in wildcards(host) if one in self.owners), None)

    def own(self, listener: str) -> list[str]:
        """Return the hosts and wildcards of a listener."""
        return [host for host, owner in self.owners.items() if owner == listener]

    def others(self, listener: str) -> list[str]:
        """Return the hosts and wildcards of the other listeners."""
        return [host for host, owner in self.owners.items() if owner != listener]

    def hosts(self, listener: str, of_routes: Collection[str]) -> Collection[str]:
        """Return the hosts that a listener answers for, if its routes are for the hosts `of_routes`.

        They are the intersection of both, without the hosts that belong to another listener.
        """
        if len(self.owners) == 1 and ANY_HOST in self.owners:
            return of_routes
        found = {host for host in of_routes if self.owner(host) == listener}
        return found.union(
            host for host in self.own(listener) if any(one in of_routes for one in wildcards(host))
        )


def ports(listeners: Mapping[str, Listener]) -> tuple[Port, ...]:
    """Return all ports in the order of the names of their first listeners. The listeners have no conflicts."""
    groups: dict[tuple[str, int], dict[str, Listener]] = {}
    for name in sorted(listeners):
        groups.setdefault(key(listeners[name]), {})[name] = listeners[name]
    return tuple(
        Port(
            address=address,
            number=number,
            listeners=members,
            owners={host: name for name, listener in members.items() for host in hosts.of(listener.hosts)},
        )
        for (address, number), members in groups.items()
    )


def key(listener: Listener) -> tuple[str, int]:
    """Return address and port of a listener. Each IPv6 address has one spelling (RFC 5952)."""
    return str(ipaddress.ip_address(listener.address)), listener.port
