"""Trees of routes: Envoy finds a route of a large virtual host by the beginning of its path, without trying all.

Envoy tries the routes of a plain list one after the other, so each request of a host with thousands of routes costs
hundreds of microseconds. In the tree, `VirtualHost.matcher` (Unified Matcher API) maps literal beginnings of ``:path``
to lists of routes. Envoy takes the list of the longest beginning, and tries only its routes.

Every route keeps its whole condition, so the tree never decides which route matches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from envoy.config.route.v3 import route_components_pb2 as pb

from xds_server.translate import literals, matchers, route_plans
from xds_server.translate.literals import PATH, Literals
from xds_server.translate.route_plans import SLACK, Node, Plan, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """When a virtual host becomes a tree, and how large the tree may be."""

    fewest: int = 64
    """The number of routes from which a virtual host becomes a tree."""
    length: int = 16
    """The length of lists that is tried first. It is doubled until the tree is small enough."""
    routes: float = 1.4
    """The maximum number of routes in all lists of a tree, as a share of the number of routes."""
    size: float = 1.5
    """The maximum number of bytes of a tree, without the guards, as a share of the bytes of the routes."""
    slow: int = 500
    """The length from which the routes of a list are reported, because Envoy tries them one after the other."""


DEFAULT = Shape()


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A route as a serialized field of a RouteList, with its literals."""

    listed: bytes
    literals: Literals


def entry(route: pb.Route) -> Entry:
    """Return a route as a tree needs it."""
    return Entry(matchers.listed(route), literals.of_route(route.match))


class RouteTree:
    """The tree of one virtual host. Its plan and its serialized lists are kept while they stay the same.

    `guards` are routes for every path with one condition on a header; they come first. After `matcher`, `obstacles`
    are the positions of the routes because of which Envoy tries many routes one after the other.
    """

    def __init__(self, guards: Sequence[pb.Route], shape: Shape) -> None:
        self._guards, self._shape = guards, shape
        self._literals: list[Literals] = []
        self._plans: dict[int, Plan] = {}
        self._lists: dict[tuple[Entry, ...], bytes] = {}
        self._prefixes: dict[tuple[str, bytes], bytes] = {}
        """The serialized entries of maps, by prefix and OnMatch."""
        self.obstacles: Sequence[int] = ()

    def matcher(self, entries: Sequence[Entry]) -> bytes | None:
        """Return the serialized VirtualHost.matcher of routes in the order of precedence.

        None: the tree would be too large, whatever the length of its lists.
        """
        found = [one.literals for one in entries]
        if found != self._literals:
            self._literals, self._plans = found, {}
        for length in self._lengths():
            plan = self._plan(length)
            matcher = self._serialized(plan, entries)
            if matcher is not None:
                self.obstacles = self._alike(max(plan.lists, key=len))
                return matchers.guarded(self._guards, matcher)
        self._lists, self._prefixes = {}, {}
        self.obstacles = self._copied(self._plan(self._shape.length).lists)
        return None

    def _lengths(self) -> Iterator[int]:
        """Yield the lengths of lists to try. With longer ones, all routes might be in one list."""
        length = self._shape.length
        yield length
        while (length := length * 2) * SLACK <= len(self._literals):
            yield length

    def _plan(self, length: int) -> Plan:
        known = self._plans.get(length)
        if known is None:
            most = self._shape.routes * len(self._literals)
            known = self._plans[length] = route_plans.plan(self._literals, length, most)
        return known

    def _serialized(self, plan: Plan, entries: Sequence[Entry]) -> bytes | None:
        """Return the serialized Matcher of a plan, or None if it is too large.

        Lists with the same routes as before keep their bytes.
        """
        sizes = [len(one.listed) for one in entries]
        most = self._shape.size * sum(sizes)
        if plan.node is None or sum([sizes[at] for at in chain.from_iterable(plan.lists)]) > most:
            return None
        lists: dict[tuple[Entry, ...], bytes] = {}
        actions: dict[int, bytes] = {}
        for positions in plan.lists:
            routes = tuple([entries[at] for at in positions])
            known = self._lists.get(routes) or matchers.action(b"".join([one.listed for one in routes]))
            lists[routes] = actions[id(positions)] = known
        prefixes: dict[tuple[str, bytes], bytes] = {}
        matcher = self._matcher(plan.node, actions, prefixes)
        if len(matcher) > most:
            return None
        self._lists, self._prefixes = lists, prefixes
        return matcher

    def _matcher(
        self, node: Node, actions: Mapping[int, bytes], prefixes: dict[tuple[str, bytes], bytes]
    ) -> bytes:
        """Return a serialized Matcher. `actions` are those of the lists, by their identity.

        It adds the entries of its maps to `prefixes`.
        """
        if not isinstance(node, Split):
            return matchers.otherwise(actions[id(node)])

        def on_match(node: Node) -> bytes:
            if not isinstance(node, Split):
                return actions[id(node)]
            return matchers.nested(self._matcher(node, actions, prefixes))

        found = []
        for text, one in sorted(node.below.items()):
            key = (text, on_match(one))
            known = self._prefixes.get(key) or matchers.prefix(*key)
            prefixes[key] = known
            found.append(known)
        return matchers.by_prefix(node.header, b"".join(found), on_match(node.rest))

    def _alike(self, positions: Sequence[int]) -> Sequence[int]:
        """Return the routes of a long list that have the most frequent literal of the path."""
        if len(positions) < self._shape.slow:
            return ()
        paths = [self._literals[at][PATH] for at in positions]
        ((most, _),) = Counter(paths).most_common(1)
        return [at for at, path in zip(positions, paths, strict=True) if path == most]

    def _copied(self, lists: Sequence[Sequence[int]]) -> Sequence[int]:
        """Return the routes of a host with very many routes that are in the most lists."""
        if len(self._literals) < self._shape.slow:
            return ()
        copies = Counter(chain.from_iterable(lists))
        most = max(copies.values())
        return sorted(at for at, count in copies.items() if count * 2 >= most)
