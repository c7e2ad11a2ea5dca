"""Route configurations, updated incrementally: a changed route costs the work of its own virtual hosts."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

from filters.policy import Context
from xds_server.gateway import precedence
from xds_server.gateway.effective_policies import of_portal
from xds_server.gateway.model.gateway import FileRoutes, Gateway
from xds_server.gateway.model.hosts import wildcards
from xds_server.gateway.model.policies import NONE, merge
from xds_server.gateway.model.ports import Port
from xds_server.gateway.model.precedence_rank import Ranked
from xds_server.translate import routes, virtual_hosts
from xds_server.translate.route_trees import DEFAULT, Entry, RouteTree, Shape

Translate = Callable[[Ranked, Mapping[str, Any], Context], Iterable[bytes]]
"""The serialized routes of a route with its effective policies."""

_rank = attrgetter("rank")


@dataclass(slots=True, eq=False)
class _Part:
    """The serialized routes of a route and what they were made from, and what a tree needs to know of them."""

    settings: Mapping[str, Any]
    surroundings: object
    body: bytes
    _entries: tuple[Entry, ...] | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The same routes as entries of a tree, which only hosts with many routes need."""
        if self._entries is None:
            self._entries = virtual_hosts.entries(self.body)
        return self._entries


@dataclass(frozen=True, slots=True, eq=False)
class _Host:
    """A serialized virtual host and what is kept for the next one.

    `conditions` are those of the routes with methods, and `fallbacks` the positions among them of the routes that need
    a 405, with the methods that it allows. `obstacles` are the names of the routes because of which Envoy tries many
    routes one after the other.
    """

    conditions: list[tuple[Any, ...]]
    fallbacks: list[tuple[int, frozenset[str]]]
    body: bytes
    tree: RouteTree
    obstacles: tuple[str, ...] = ()


class _Table:
    """The routes of one listener by host, and its serialized virtual hosts."""

    def __init__(self, listener: str) -> None:
        self.own: dict[str, list[Ranked]] = {}
        """The routes that name a host, in the order of their rank."""
        self.hosts: dict[str, _Host] = {}
        self._listener = listener
        self._owners: Mapping[str, str] = {}
        """The listener of each host of the port."""
        self._order: list[str] = []
        """All virtual hosts in the order of precedence. It is empty if there may be others now."""
        self._touched: set[str] = set()
        """The hosts whose own routes changed since the virtual hosts were serialized."""

    def replace(self, gone: Container[Ranked], old: Iterable[Ranked], new: Iterable[Ranked]) -> None:
        """Take out the routes that are `gone`, which are all of `old`, and put in new ones."""
        without = virtual_hosts.own_of_hosts(virtual_hosts.selected(old, self._listener))
        added = virtual_hosts.own_of_hosts(virtual_hosts.selected(new, self._listener))
        for host in without.keys() | added.keys():
            members = [one for one in self.own.get(host, ()) if one not in gone]
            more = added.get(host, [])
            if len(more) * 8 > len(members):
                members = sorted([*members, *more], key=_rank)
            else:
                for one in more:
                    insort(members, one, key=_rank)
            if not members:
                del self.own[host]
                self._order = []
            else:
                if host not in self.own:
                    self._order = []
                self.own[host] = members
            self._touched.add(host)

    def touch(self) -> None:
        """Serialize every virtual host again, because something changed that all depend on."""
        self._touched.update(self.own)

    def update(self, port: Port, make: Callable[[str, list[Ranked], _Host | None], _Host]) -> None:
        """Make the virtual hosts whose routes changed, and keep the others."""
        if not self._order or self._owners != port.owners:
            self._owners = port.owners
            self._order = sorted(port.hosts(self._listener, self.own), key=precedence.host_rank)
        wide = any(host.startswith("*") for host in self._touched)
        hosts: dict[str, _Host] = {}
        for host in self._order:
            known = self.hosts.get(host)
            if (
                known is None
                or host in self._touched
                or (wide and not self._touched.isdisjoint(wildcards(host)))
            ):
                known = make(host, virtual_hosts.with_wider(host, self.own), known)
            hosts[host] = known
        self.hosts, self._touched = hosts, set()


class RouteTables:
    """Keeps the serialized parts of route configurations while their inputs stay the same objects.

    `shape` says which hosts get a tree instead of a list.
    """

    def __init__(self, translate: Translate, shape: Shape = DEFAULT) -> None:
        self._translate, self._shape = translate, shape
        self._files: tuple[FileRoutes, ...] = ()
        self._parts: dict[Ranked, _Part] = {}
        self._tables: dict[str, _Table] = {}
        self._refusals: dict[tuple[Ranked, frozenset[str]], _Part] = {}
        self._context = Context()
        self._surroundings: object = None
        self._not_found = _Part({}, None, b"")

    def update(self, gateway: Gateway, surroundings: object) -> None:
        """Translate the routes that are new, or whose policies or `surroundings` are."""
        same = surroundings is self._surroundings
        known, wanted = set(self._files), set(gateway.files)
        gone = [file for file in self._files if not same or file not in wanted]
        new = [file for file in gateway.files if not same or file not in known]
        self._files, self._surroundings, self._context = gateway.files, surroundings, gateway.context
        old = {one: self._parts.pop(one) for file in gone for one in file.ranked.values()}
        for file in new:
            for name, one in file.ranked.items():
                self._parts[one] = self._part(one, file.policies[name], surroundings, old.get(one))
        added = [one for file in new for one in file.ranked.values()]
        for table in self._tables.values():
            table.replace(old, old, added)
        if gone:
            self._refusals = {key: part for key, part in self._refusals.items() if key[0] in self._parts}
        sections = gateway.sections
        outermost = of_portal(sections.portal) if sections.catalog else NONE
        shared = routes.for_pages(
            "", merge(("portal", outermost), ("gateway", sections.policies)), gateway.context
        )
        not_found = virtual_hosts.joined(routes.not_found(shared))
        if self._not_found.body != not_found:
            self._not_found = _Part({}, None, not_found)
            for table in self._tables.values():
                table.touch()

    def _part(
        self, ranked: Ranked, settings: Mapping[str, Any], surroundings: object, known: _Part | None
    ) -> _Part:
        if known is not None and known.settings is settings and known.surroundings is surroundings:
            return known
        return _Part(
            settings, surroundings, virtual_hosts.joined(self._translate(ranked, settings, self._context))
        )

    def hosts(self, port: Port, listener: str) -> dict[str, bytes]:
        """Return the serialized virtual hosts of a listener by host."""
        table = self._tables.get(listener)
        if table is None:
            table = self._tables[listener] = _Table(listener)
            table.replace((), (), self._parts)
        table.update(port, self._host)
        return {host: one.body for host, one in table.hosts.items()}

    def not_found(self, host: str) -> bytes:
        """Return a serialized virtual host without routes. It still rejects malformed authorities and paths."""
        return virtual_hosts.virtual_host(host, [self._not_found.body])

    def obstacles(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the routes because of which Envoy tries many routes one after the other, by host."""
        every = (pair for _, table in sorted(self._tables.items()) for pair in table.hosts.items())
        return {name: host.obstacles for name, host in every if host.obstacles}

    def forget(self, listeners: Container[str]) -> None:
        """Drop the parts of listeners that no longer exist."""
        for name in [name for name in self._tables if name not in listeners]:
            del self._tables[name]

    def _host(self, host: str, members: list[Ranked], known: _Host | None) -> _Host:
        """Return a virtual host. The allowed methods and the plan of its tree stay while no condition changes."""
        tree = known.tree if known is not None else virtual_hosts.tree(host, self._shape)
        limited = [one for one in members if one.refuses]
        conditions = [(one.condition, one.methods, one.route.match) for one in limited]
        if known is not None and known.conditions == conditions:
            fallbacks = known.fallbacks
        else:
            positions = {one: at for at, one in enumerate(limited)}
            fallbacks = [(positions[one], methods) for one, methods in virtual_hosts.fallbacks(limited)]
        refusals = [(limited[at], self._refusal(limited[at], methods)) for at, methods in fallbacks]
        body, obstacles = self._serialized(host, members, refusals, tree)
        return _Host(conditions, fallbacks, body, tree, obstacles)

    def _serialized(
        self, host: str, members: list[Ranked], refusals: list[tuple[Ranked, _Part]], tree: RouteTree
    ) -> tuple[bytes, tuple[str, ...]]:
        obstacles: tuple[str, ...] = ()
        if len(members) >= self._shape.fewest:
            found = [(one.name, self._parts[one].entries) for one in members]
            found += [(one.name, part.entries) for one, part in refusals]
            entries = [*chain.from_iterable([some for _, some in found]), *self._not_found.entries]
            matcher = tree.matcher(entries)
            owners = [name for name, some in found for _ in some] if tree.obstacles else []
            obstacles = tuple(dict.fromkeys(owners[at] for at in tree.obstacles if at < len(owners)))
            if matcher is not None:
                return virtual_hosts.virtual_host_with_tree(host, matcher), obstacles
        bodies = [self._parts[one].body for one in members]
        parts = [*bodies, *(part.body for _, part in refusals), self._not_found.body]
        return virtual_hosts.virtual_host(host, parts), obstacles

    def _refusal(self, ranked: Ranked, methods: frozenset[str]) -> _Part:
        """Return the 405 of a route."""
        part = self._parts[ranked]
        known = self._refusals.get((ranked, methods))
        if (
            known is None
            or known.settings is not part.settings
            or known.surroundings is not part.surroundings
        ):
            parts = routes.for_pages(ranked.name, part.settings, self._context)
            body = virtual_hosts.joined([routes.not_allowed(ranked.name, ranked.route, methods, parts)])
            known = self._refusals[ranked, methods] = _Part(part.settings, part.surroundings, body)
        return known
