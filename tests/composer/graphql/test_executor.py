"""Objects of plain members have the values and the errors that graphql-core gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from filters.graphql.operations import Operations
from filters.graphql.request_context import RequestContext
from filters.graphql.schema import SdlDocument, read
from filters.graphql.settings import GraphqlLimits
from xds_server.composer.calls import Answer, Call
from xds_server.composer.graphql import execution
from xds_server.composer.graphql.executor import LEAVES

SDL = """
type Query { thing: Thing @rest(upstream: "s", path: "/") }
type Thing { id: ID!  name: String  size: Int  kind: Kind  ok: Boolean  share: Float  part: Thing  names: [String] }
enum Kind { ROUND SQUARE }
"""


class Service:
    """Answers each call with one value."""

    def __init__(self, value: Any) -> None:
        self._body = json.dumps(value).encode()

    async def call(self, _call: Call) -> Answer:
        return Answer(status=200, headers={}, body=self._body)


async def answered(value: Any, query: str, *, plainly: bool) -> Any:
    """The response with our executor, or with that of graphql-core alone."""
    schema = execution.bind(read([SdlDocument(name="things", text=SDL)]))
    if not plainly:
        for kind in schema.types.type_map.values():
            kind.extensions.pop(LEAVES, None)
    operation = Operations(schema, GraphqlLimits()).prepare(query)
    context = RequestContext(consumer=None, plan=None, claims={}, headers={}, for_calls={}, request_id="r")
    result = await execution.run(operation, {}, Service(value), context, GraphqlLimits())
    return result.value


@pytest.mark.parametrize(
    "value",
    [
        {"id": 7, "name": "a", "size": 3, "kind": "ROUND", "ok": True, "share": 0.5},
        {"id": "7", "name": None},
        {"name": "no id, which must be there"},
        {"id": 7, "size": 2**40},
        {"id": 7, "size": "three"},
        {"id": 7, "kind": "OTHER"},
        {"id": 7, "name": {"an": "object"}},
        {"id": 7, "names": ["a", None, 3], "part": {"id": 8, "name": "b"}},
        {"id": 7, "part": {"name": "no id"}},
        [],
        "text",
        None,
    ],
)
@pytest.mark.parametrize(
    "query",
    [
        "{ thing { id name size kind ok share } }",
        "{ thing { a: id b: id __typename names } }",
        "{ thing { id part { id name part { id } } } }",
        "{ thing { ...Few } } fragment Few on Thing { id size @skip(if: true) name @include(if: true) }",
    ],
)
async def test_the_response_is_that_of_the_library(value: Any, query: str) -> None:
    found = await answered(value, query, plainly=True)
    assert found == await answered(value, query, plainly=False)
