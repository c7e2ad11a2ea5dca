"""Schemas of GraphQL as references."""

from __future__ import annotations

import pytest

from filters.api_documents import graphql_sdl
from filters.api_documents.faults import DocumentFaults

SCHEMA = b'''
"""Everything about orders"""
schema { query: Root mutation: Change }
type Root {
  "All orders"
  orders(first: Int = 10, where: Where!): [Order!]! @deprecated(reason: "use search")
  order(id: ID!): Order
}
type Change { place(input: Where! = {words: ["x"]}): Order }
type Order implements Node { id: ID! lines(first: Int): [Line] state: State at: Date }
interface Node { id: ID! }
"A line" type Line { sku: String! order: Order }
union Found = Line | Order
enum State { OPEN PAID @deprecated }
input Where { "How many" limit: Int = 3 words: [String!]! }
scalar Date
'''


def test_fields_of_the_roots_are_operations() -> None:
    reference = graphql_sdl.read(SCHEMA)
    assert [(one.id, one.method, one.path) for one in reference.operations] == [
        ("query-orders", "query", "orders"),
        ("query-order", "query", "order"),
        ("mutation-place", "mutation", "place"),
    ]
    orders, _, place = reference.operations
    assert next(
        (one.name, one.schema.label, one.required, one.schema.default) for one in orders.parameters
    ) == (
        "first",
        "integer or null",
        False,
        10,
    )
    assert orders.parameters[1].required
    assert (place.parameters[0].required, place.parameters[0].schema.default) == (False, {"words": ["x"]})
    assert (orders.deprecated, orders.description) == (True, "All orders\n\nDeprecated: use search")
    assert orders.responses[0].content[0].schema.label == "list of Order"
    assert [tag.name for tag, _ in reference.groups()] == ["Queries", "Mutations"]


def test_types_are_schemas() -> None:
    schemas = graphql_sdl.read(SCHEMA).schemas
    assert list(schemas) == ["Date", "Found", "Line", "Node", "Order", "State", "Where"]
    order = {one.name: one for one in schemas["Order"].properties}
    assert {name: one.schema.label for name, one in order.items()} == {
        "id": "string (ID)",
        "lines": "list of (Line or null) or null",
        "state": "State or null",
        "at": "Date or null",
    }
    assert order["lines"].arguments[0].name == "first"
    assert schemas["Found"].label == "Line or Order"
    assert schemas["State"].enum == ("OPEN", "PAID")
    assert [(one.name, one.required, one.schema.description) for one in schemas["Where"].properties] == [
        ("limit", False, "How many"),
        ("words", True, ""),
    ]


@pytest.mark.parametrize(
    ("schema", "line", "message"),
    [
        ("type Query {\n  a: Int\n  b(: Int\n}", 3, "Expected Name, found ':'"),
        ("type Query {\n  a: Missing\n}", 2, "Unknown type 'Missing'"),
        ("type Query {a: Int}\ntype Query {b: Int}", 1, "There can be only one type named 'Query'"),
        ("type Query {\n a: In\n}\ninput In {b: Int}", 2, "The type of Query.a must be Output Type but got: In"),
        ("scalar A", 1, "the schema has no operation"),
        ("", 1, "Unexpected <EOF>"),
        ("type Query {a: " + "[" * 5000 + "Int", 1, "Document is nested too deeply. Parsing aborted"),
    ],
)  # fmt: skip
def test_faults_have_a_line(schema: str, line: int, message: str) -> None:
    with pytest.raises(DocumentFaults) as caught:
        graphql_sdl.read(schema.encode())
    fault = caught.value.faults[0]
    assert (fault.line, fault.message) == (line, message)
    assert fault.remedy


def test_text_that_is_not_utf_8_has_a_line() -> None:
    with pytest.raises(DocumentFaults, match="UTF-8") as caught:
        graphql_sdl.read(b"type Query {\n  a: Int\n  \xff\n}")
    assert caught.value.faults[0].line == 3
