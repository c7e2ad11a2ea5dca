"""Checks of the listeners of each port, of what they share, and of the stream routes on them."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import combinations
from typing import Any

from filters.language import Path, Problem
from xds_server.gateway.model import hosts
from xds_server.gateway.model.gateway import Sections
from xds_server.gateway.model.hosts import ANY_HOST
from xds_server.gateway.model.listeners import Limits, Listener, Timeouts
from xds_server.gateway.model.ports import WILDCARD_ADDRESSES, Part, key, part, ports, streams_of
from xds_server.gateway.model.stream_routes import StreamRoute

_OF_ALL: tuple[Path, ...] = (
    *(("bind",), ("original_destination",), ("proxy_protocol",)),
    *(("limits", "connection_buffer"), ("envoy",)),
)
"""The settings of a port, which its listeners have to share even if each has its own connection manager."""
_NOT_SHARED = ("port", "address", "protocol", "hosts", "tls", "redirect_to_https")
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
    """Yield the problems of listeners that share a port, and of stream routes."""
    by_number: dict[int, list[str]] = {}
    for name, listener in sections.listeners.items():
        by_number.setdefault(listener.port, []).append(name)
        yield from _addresses_as_hosts(name, listener)
    for names in by_number.values():
        yield from _apart(names, sections.listeners)
        by_key: dict[tuple[str, str, int], list[str]] = {}
        for name in names:
            by_key.setdefault(key(sections.listeners[name]), []).append(name)
        for members in by_key.values():
            by_part: dict[Part, list[str]] = {}
            for name in members:
                by_part.setdefault(part(sections.listeners[name]), []).append(name)
            yield from _parts(members, by_part, sections.listeners)
            for some in by_part.values():
                yield from _together(some, sections)
    yield from _stream_routes(sections)


def _addresses_as_hosts(name: str, listener: Listener) -> Iterator[Problem]:
    """Yield a warning for addresses by which no connection is chosen."""
    for number, host in enumerate(listener.hosts):
        if not _is_plain(listener) and _is_address(host):
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
    """Yield a problem for each listener at a port that another one takes, with another address or by HTTP/3."""
    names = [name for name in names if listeners[name].bind]
    if len({key(listeners[name])[:2] for name in names}) <= 1:
        return
    taken: set[str] = set()
    for first, name in combinations(names, 2):
        one, other = listeners[first], listeners[name]
        addresses = {key(one)[1], key(other)[1]}
        overlap = len(addresses) == 1 or not addresses.isdisjoint(WILDCARD_ADDRESSES)
        same = key(one)[0] == key(other)[0]
        if name in taken or not overlap:
            continue
        if (len(addresses) > 1 and same) or (not same and (one.http3 or other.http3)):
            taken.add(name)
            yield _taken(name, first, listeners)


def _taken(name: str, first: str, listeners: Mapping[str, Listener]) -> Problem:
    message = f"port {listeners[name].port} is taken by the listener '{first}'"
    return Problem(path=("listeners", name, "port"), message=message, remedy="choose another port")


def _parts(
    names: Sequence[str], by_part: Mapping[Part, Sequence[str]], listeners: Mapping[str, Listener]
) -> Iterator[Problem]:
    """Yield the problems of listeners with `destination_port`, which need one for the rest of their port."""
    if names and None not in by_part:
        yield Problem(
            path=("listeners", names[0], "destination_port"),
            message="no listener of this port has the connections to all other ports",
            remedy="add one without destination_port",
        )
        return
    first = by_part[None][0]
    for name in names:
        for path in _OF_ALL:
            if part(listeners[name]) is None or path == ("envoy",):
                continue
            if _value(listeners[name], path) != _value(listeners[first], path):
                yield _differs(name, first, path)


def _differs(name: str, first: str, path: Path) -> Problem:
    return Problem(
        path=("listeners", name, *path),
        message=f"this differs from the listener '{first}' at the same port, and Envoy has one setting for both",
        also_path=("listeners", first, *path),
        remedy="write the same for both, or choose another port",
    )


def _together(names: Sequence[str], sections: Sections) -> Iterator[Problem]:
    """Yield the problems of listeners with the same transport, address and port."""
    listeners = sections.listeners
    first = names[0]
    if listeners[first].protocol == "udp":
        yield from (_taken(name, first, listeners) for name in names[1:])
        return
    plain = _is_plain(listeners[first])
    owners: dict[str, str] = {}
    for name in names:
        listener = listeners[name]
        if _is_plain(listener) is not plain:
            yield Problem(
                path=("listeners", name, "port"),
                message=f"the listener '{first}' at this port is for {_kind(listeners[first])}, and this one is for "
                f"{_kind(listener)}",
                also_path=("listeners", first),
                remedy="choose another port",
            )
            continue
        yield from _hosts(name, owners, sections)
        for path in _OF_PLAIN_HTTP if plain else _OF_ALL:
            if name != first and _value(listener, path) != _value(listeners[first], path):
                yield _differs(name, first, path)


def _is_plain(listener: Listener) -> bool:
    return listener.protocol == "http" and listener.tls is None


def _kind(listener: Listener) -> str:
    if listener.protocol == "tcp":
        return "TCP"
    return "plain HTTP" if listener.tls is None else "HTTP over TLS"


def _hosts(name: str, owners: dict[str, str], sections: Sections) -> Iterator[Problem]:
    """Yield a problem for each host that another listener at the port has too. `owners` gets the new ones."""
    listeners = sections.listeners
    for path, host in _written_hosts(name, sections):
        first = owners.setdefault(host, name)
        if first == name:
            continue
        if not listeners[name].hosts and not listeners[first].hosts and host == ANY_HOST:
            yield _taken(name, first, listeners)
        else:
            all_others = host == ANY_HOST
            what = "all other hosts" if all_others else f"the host {host}"
            yield Problem(
                path=path,
                message=f"{what} of this port belong{'' if all_others else 's'} to the listener '{first}'",
                also_path=next(at for at, one in _written_hosts(first, sections) if one == host),
                remedy="give each listener hosts of its own, or choose another port",
            )


def _written_hosts(name: str, sections: Sections) -> Iterator[tuple[Path, str]]:
    """Yield the hosts of a listener, as Envoy compares them, each with its path."""
    listener = sections.listeners[name]
    if listener.hosts:
        for number, host in enumerate(listener.hosts):
            yield ("listeners", name, "hosts", number), host.lower()
    elif listener.protocol == "http":
        yield ("listeners", name), ANY_HOST
    else:
        for route, one in streams_of(name, listener, sections):
            for number, host in enumerate(hosts.of(one.server_names)):
                at: Path = ("server_names", number) if one.server_names else ()
                yield ("stream_routes", route, *at), host


def _stream_routes(sections: Sections) -> Iterator[Problem]:
    """Yield the problems of stream routes, and of the listeners that need some."""
    here: dict[str, list[Listener]] = {}
    for name, listener in sections.listeners.items():
        if listener.protocol != "http":
            found = list(streams_of(name, listener, sections))
            yield from _takers(name, listener, found)
            for taker, _ in found:
                here.setdefault(taker, []).append(listener)
    for name, route in sections.stream_routes.items():
        yield from _stream_route(name, route, here.get(name, []), sections)


def unreached(sections: Sections) -> Iterator[Problem]:
    """Yield a warning for each stream route whose server names its listeners do not have."""
    reached = {
        taker
        for port in ports(sections)
        for listener_name in port.streams
        for taker in port.server_names(listener_name).values()
    }
    for name, route in sections.stream_routes.items():
        if route.server_names and name not in reached:
            yield Problem(
                path=("stream_routes", name, "server_names"),
                message="no listener of this stream route has these hosts, so no connection reaches it",
                remedy="change the server names, or the hosts of a listener",
                severity="warning",
            )


def _takers(name: str, listener: Listener, found: Sequence[tuple[str, StreamRoute]]) -> Iterator[Problem]:
    """Yield the problems of a listener with its stream routes."""
    if not found:
        yield Problem(
            path=("listeners", name),
            message="no stream route is on this listener, so "
            + ("every connection is closed" if listener.protocol == "tcp" else "the port is not opened"),
            remedy=f"add stream_routes: {{{name}: {{listeners: [{name}], upstream: NAME}}}}",
            at_key=True,
            severity="warning",
        )
    takers: dict[str, str] = {}
    for route, one in found:
        for number, host in enumerate(hosts.of(one.server_names)):
            first = takers.setdefault(host, route)
            if first != route:
                what = "the same connections" if host == ANY_HOST else f"connections to {host}"
                path: Path = ("server_names", number) if one.server_names else ()
                yield Problem(
                    path=("stream_routes", route, *path),
                    message=f"on the listener '{name}', the stream route '{first}' takes {what}",
                    also_path=("stream_routes", first),
                    remedy="give each stream route server_names of its own, or other listeners",
                    at_key=not path,
                )


def _stream_route(
    name: str, route: StreamRoute, here: Sequence[Listener], sections: Sections
) -> Iterator[Problem]:
    """Yield the problems of a stream route with its listeners, those `here`, and its upstreams."""
    path = ("stream_routes", name)
    for number, one in enumerate(route.listeners):
        listener = sections.listeners.get(one)
        if listener is not None and listener.protocol == "http":
            yield Problem(
                path=(*path, "listeners", number),
                message=f"the listener '{one}' has protocol: http, so it has routes and no stream routes",
                remedy="name a listener with protocol: tcp or udp, or write a route",
            )
        if listener is not None and listener.protocol == "udp" and route.server_names:
            yield Problem(
                path=(*path, "server_names"),
                message=f"the listener '{one}' has protocol: udp, and datagrams have no server name",
                remedy="remove it, or name a listener with protocol: tcp",
            )
    if not here and not route.listeners:
        yield Problem(
            path=path,
            message="no listener forwards connections, so none reaches this stream route",
            remedy="add a listener with protocol: tcp",
            at_key=True,
            severity="warning",
        )
    if any(one.protocol == "udp" for one in here):
        yield from _datagrams(name, route, sections)


def _datagrams(name: str, route: StreamRoute, sections: Sections) -> Iterator[Problem]:
    """Yield the problems of settings that do not exist for UDP."""
    path = ("stream_routes", name)
    if route.authorize:
        message, remedy = "datagrams have no client certificates", "remove it"
        yield Problem(path=(*path, "authorize"), message=message, remedy=remedy)
    if route.idle_timeout == timedelta(0):
        message, remedy = "a session of UDP ends with its idle_timeout only", "write a duration above 0"
        yield Problem(path=(*path, "idle_timeout"), message=message, remedy=remedy)
    if route.max_connect_attempts is not None:
        message = "UDP has no connections to attempt"
        yield Problem(path=(*path, "max_connect_attempts"), message=message, remedy="remove it")
    for target in route.targets:
        upstream = sections.upstreams.get(target)
        for feature in ("tls", "proxy_protocol"):
            if upstream is not None and getattr(upstream, feature) is not None:
                message = f"the upstream '{target}' has '{feature}', which does not exist for UDP"
                remedy = "name an upstream without it"
                yield Problem(
                    path=path, message=message, remedy=remedy, also_path=("upstreams", target, feature)
                )


def _value(listener: Listener, path: Path) -> Any:
    value: Any = listener
    for name in path:
        value = getattr(value, str(name))
    return value
