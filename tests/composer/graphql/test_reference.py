"""Any query over a random schema gives what a plain executor of graphql-core gives over the same data."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

from graphql import build_schema, execute_sync, parse, print_ast
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_graphql import queries

from filters.graphql.operations import Operations
from filters.graphql.plan import plan
from filters.graphql.request_context import RequestContext
from filters.graphql.schema import SdlDocument, read
from filters.graphql.settings import GraphqlLimits
from xds_server.composer.calls import Answer, Call
from xds_server.composer.graphql import execution

LONGEST = 4
"""Elements of the longest list, so that the numbers of calls that a plan says are as small as they can be."""
WIDE = GraphqlLimits(
    document=1_000_000,
    tokens=100_000,
    depth=100,
    aliases=10_000,
    cost=10**9,
    calls=10_000,
    parallel=5,
    list_size=LONGEST,
)
SCALARS = {
    "Int": st.integers(-(2**31), 2**31 - 1),
    "String": st.text(max_size=5),
    "Boolean": st.booleans(),
    "Float": st.floats(allow_nan=False, allow_infinity=False),
}


@dataclass(frozen=True)
class World:
    """A schema with `sdl` for the gateway and `plain` for the reference, and the objects of each type by their ids."""

    sdl: str
    plain: str
    objects: dict[str, dict[int, dict[str, Any]]]
    links: dict[tuple[str, str], tuple[str, str]]
    """The type that a linking field leads to, and the kind of the link: one or many."""


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A random schema of types with ids, scalars and links, each with a call, batched or not, and renamed or not."""
    names = [f"T{number}" for number in range(draw(st.integers(1, 3)))]
    ids = {name: list(range(1, draw(st.integers(3, LONGEST + 1)))) for name in names}
    objects: dict[str, dict[int, dict[str, Any]]] = {}
    links: dict[tuple[str, str], tuple[str, str]] = {}
    sdl, plain, roots = [], [], []
    for name in names:
        fields, bare = ["id: Int!"], ["id: Int!"]
        scalars = draw(
            st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(sorted(SCALARS)), max_size=3)
        )
        for field, kind in scalars.items():
            renamed = draw(st.booleans())
            fields.append(f'{field}: {kind} @value(from: "x.{field}")' if renamed else f"{field}: {kind}")
            bare.append(f"{field}: {kind}")
        objects[name] = {
            one: {"id": one, **{field: draw(st.none() | SCALARS[kind]) for field, kind in scalars.items()}}
            for one in ids[name]
        }
        for number in range(draw(st.integers(1, 2))):
            target, many = draw(st.sampled_from(names)), draw(st.booleans())
            field = f"link{number}"
            links[name, field] = (target, "many" if many else "one")
            batch = f', batch: {{path: "/batch/{name}/{field}?ids={{ids}}", by: "of", size: {draw(st.integers(1, 3))}}}'
            call = f'path: "/of/{name}/{field}/{{parent:id}}"' + (batch if draw(st.integers(0, 3)) else "")
            written = f"[{target}!]" if many else target
            fields.append(f'{field}: {written} @rest(upstream: "u", {call})')
            bare.append(f"{field}: {written}")
            for one in objects[name].values():
                chosen = (
                    st.lists(st.sampled_from(ids[target]), unique=True, max_size=3)
                    if ids[target]
                    else st.just([])
                )
                one[field] = draw(chosen)
        sdl.append(f"type {name} {{ {' '.join(fields)} }}")
        plain.append(f"type {name} {{ {' '.join(bare)} }}")
        roots.append(
            (f"get{name}(id: Int!): {name}", f'@rest(upstream: "u", path: "/one/{name}/{{arg:id}}")')
        )
        roots.append((f"all{name}: [{name}]", f'@rest(upstream: "u", path: "/all/{name}", select: "items")'))
    query = " ".join(f"{field} {call}" for field, call in roots)
    bare_query = " ".join(field for field, _ in roots)
    return World(
        sdl=f"type Query {{ {query} }} {' '.join(sdl)}",
        plain=f"type Query {{ {bare_query} }} {' '.join(plain)}",
        objects=objects,
        links=links,
    )


@st.composite
def nested(draw: st.DrawFn, world: World) -> str:
    """A query that follows links, with aliases and fragments."""
    types = build_schema(world.plain).type_map

    def selection(name: str, depth: int) -> str:
        parts = []
        for field, one in types[name].fields.items():  # type: ignore[attr-defined]
            target = world.links.get((name, field), (str(one.type).strip("[]!"), ""))[0]
            if not draw(st.integers(0, 4)) or (target in world.objects and depth == 0):
                continue
            alias = draw(st.sampled_from(["", f"x{depth}: ", f"y_{field}: "])) if name != "Query" else ""
            argument = f"(id: {draw(st.integers(0, 3))})" if "id" in one.args else ""
            below = selection(target, depth - 1) if target in world.objects else ""
            text = f"{f'{alias}' if 'x' not in alias else f'x_{field}: '}{field}{argument} {below}"
            parts.append(f"... on {name} {{ {text} }}" if draw(st.booleans()) else text)
        return f"{{ __typename {' '.join(parts)} }}"

    return selection("Query", 4)


class _Rest:
    """The services of a world."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.calls: list[str] = []
        self._random = Random(seed)

    async def call(self, call: Call) -> Answer:
        self.calls.append(call.path)
        for _ in range(self._random.randrange(20)):  # turns of the loop, so that answers come in any order
            await asyncio.sleep(0)
        found = self._found(call.path)
        if found is None:
            return Answer(status=404, headers={}, body=b"secret")
        return Answer(status=200, headers={}, body=json.dumps(found).encode())

    def _found(self, path: str) -> Any:
        where = urlsplit(path)
        match where.path.split("/")[1:]:
            case ["one", name, number]:
                return self._sent(name, int(number))
            case ["all", name]:
                return {"items": [self._sent(name, number) for number in self.world.objects[name]]}
            case ["of", name, field, number]:
                found = self._linked(name, field, int(number))
                many = self.world.links[name, field][1] == "many"
                return found if many else (found[0] if found else None)
            case ["batch", name, field]:
                keys = parse_qs(where.query)["ids"][0].split(",")
                return [
                    {**one, "of": int(key)} for key in keys for one in self._linked(name, field, int(key))
                ]
        raise AssertionError(path)

    def _linked(self, name: str, field: str, number: int) -> list[Any]:
        target, _ = self.world.links[name, field]
        return [self._sent(target, one) for one in self.world.objects[name][number][field]]

    def _sent(self, name: str, number: int) -> Any:
        one = self.world.objects[name].get(number)
        return None if one is None else {**one, "x": one}


def _reference(world: World, query: str) -> dict[str, Any]:
    """What graphql-core gives over the objects themselves."""

    def resolve(parent: Any, info: Any, **arguments: Any) -> Any:
        name, field = info.parent_type.name, info.field_name
        if name == "Query":
            objects = world.objects[field[3:]]
            return objects.get(arguments["id"]) if field.startswith("get") else list(objects.values())
        if (name, field) in world.links:
            target, kind = world.links[name, field]
            found = [world.objects[target][one] for one in parent[field]]
            return found if kind == "many" else (found[0] if found else None)
        return parent[field]

    result = execute_sync(build_schema(world.plain), parse(query), field_resolver=resolve)
    return {"data": result.data} if not result.errors else {"errors": True, "data": result.data}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(world=worlds(), data=st.data())
def test_any_query_gives_what_the_reference_gives(world: World, data: st.DataObject) -> None:
    query = data.draw(nested(world) | queries(world.plain, print_ast=print_ast))
    schema = execution.bind(read([SdlDocument(name="world", text=world.sdl)], ["u"]))
    operation = Operations(schema, WIDE).prepare(query)
    services = _Rest(world, data.draw(st.integers(0, 2**16)))
    result = asyncio.run(execution.run(operation, {}, services, RequestContext(), WIDE))
    assert dict(result.value) == _reference(world, query)
    safe = [one for one in services.calls if not one.startswith("/batch/")]
    assert len(safe) == len(set(safe))
    assert len(services.calls) <= sum(one.most for one in plan(operation, {}))
