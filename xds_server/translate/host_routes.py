"""The routes of a virtual host, read and replaced in either form: as a plain list and as a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableSequence
from functools import lru_cache

from envoy.config.route.v3 import route_components_pb2 as pb
from google.protobuf import any_pb2
from xds.type.matcher.v3 import matcher_pb2

Change = Callable[[bytes], bytes | None]
"""Returns what replaces a serialized route: the same, another one, or None for no route."""


def bodies(host: pb.VirtualHost) -> Iterator[bytes]:
    """Yield the serialized routes of a virtual host. A tree may have the same route several times."""
    yield from [route.SerializeToString(deterministic=True) for route in host.routes]
    for routes in lists(host.matcher):
        yield from _bodies(routes.value)


@lru_cache(maxsize=16384)
def _bodies(route_list: bytes) -> tuple[bytes, ...]:
    """Return the serialized routes of a RouteList. Most lists of a tree are the same after a change."""
    return tuple(
        [one.SerializeToString(deterministic=True) for one in pb.RouteList.FromString(route_list).routes]
    )


def change(host: pb.VirtualHost, changed: Change) -> bool:
    """Replace the routes of a virtual host in place. Returns True if one differs."""
    differs = _change(host.routes, changed)
    for routes in lists(host.matcher):
        found = pb.RouteList.FromString(routes.value)
        if _change(found.routes, changed):
            routes.value = found.SerializeToString(deterministic=True)
            differs = True
    return differs


def _change(routes: MutableSequence[pb.Route], changed: Change) -> bool:
    bodies = [route.SerializeToString(deterministic=True) for route in routes]
    results = [changed(body) for body in bodies]
    if results == bodies:
        return False
    del routes[:]
    routes.extend(pb.Route.FromString(body) for body in results if body is not None)
    return True


def lists(matcher: matcher_pb2.Matcher) -> Iterator[any_pb2.Any]:
    """Yield the packed RouteLists of a matcher at any depth."""
    waiting = [matcher]
    for one in waiting:
        prefixes = one.matcher_tree.prefix_match_map.map
        branches = [field.on_match for field in one.matcher_list.matchers]
        branches += [prefixes[key] for key in sorted(prefixes)]
        branches.append(one.on_no_match)
        for branch in branches:
            if branch.HasField("matcher"):
                waiting.append(branch.matcher)
            elif branch.HasField("action"):
                yield branch.action.typed_config
