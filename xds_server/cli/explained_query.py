"""The calls of a query of GraphQL, for `xds explain --graphql`. It imports graphql-core, which takes time."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filters.graphql.errors import Refused
from filters.graphql.faults import SchemaFaults
from filters.graphql.operations import Operations
from filters.graphql.plan import PlannedCall, plan
from filters.graphql.schema import SdlDocument, read
from filters.graphql.settings import GraphqlLimits
from xds_server.cli import gateways, output
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import WrongUsage
from xds_server.gateway.graphql_schemas import sdl_texts


def run(source: str, query: str, variables: str | None, route: str | None, form: str) -> int:
    """Print the calls of a query. Returns 1 if it is refused, or if the schema has faults.

    `source` is a document of SDL, or a gateway with a `graphql` route; `query` is a text, or the name of a file. Raises
    InvalidGateway, UnreadableFolder, WrongUsage.
    """
    try:
        operations = _operations(source, route)
    except SchemaFaults as faults:
        for one in faults.faults:
            print(one, file=sys.stderr)
        return 1
    values = _variables(variables)
    try:
        operation = operations.prepare(_text(query))
        cost, calls = operation.cost(values), plan(operation, values)
    except Refused as refused:
        for error in refused.errors:
            code = (error.extensions or {}).get("code")
            print(f"{error.message} ({code})", file=sys.stderr)
        return 1
    _print(cost, calls, form)
    return 0


def _print(cost: int, calls: list[PlannedCall], form: str) -> None:
    if form != "text":
        output.data({"cost": cost, "calls": [dataclasses.asdict(one) for one in calls]}, form)
        return
    for one in calls:
        print(one)
    print(f"cost {cost}, at most {sum(one.most for one in calls)} calls")


def _operations(source: str, route: str | None) -> Operations:
    if Path(source).is_file():
        text = Path(source).read_text(encoding="utf-8")
        return Operations(read([SdlDocument(name=source, text=text)]), GraphqlLimits(), introspection=True)
    compiled = Compiler().compile(gateways.read(source, None))
    routes = compiled.gateway.sections.routes
    found = {name: one.graphql for name, one in routes.items() if one.graphql is not None}
    if route is None and len(found) == 1:
        route = next(iter(found))
    graphql = found.get(route or "")
    if graphql is None:
        names = ", ".join(sorted(found)) or "none"
        raise WrongUsage(f"--route: name a route with graphql; the gateway has: {names}")
    texts = sdl_texts(graphql, compiled.gateway.contents)
    schema = read([SdlDocument(name=name, text=text) for name, text in texts])
    return Operations(schema, graphql.limits, introspection=graphql.introspection, suggestions=True)


def _text(query: str) -> str:
    if "{" in query:
        return query
    try:
        return Path(query).read_text(encoding="utf-8")
    except OSError as error:
        raise WrongUsage(
            f"--graphql: {query}: {error.strerror}; write a query, or the name of a file"
        ) from None


def _variables(text: str | None) -> Mapping[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise WrongUsage(f"--variables: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise WrongUsage("--variables: not an object of JSON")
    return value
