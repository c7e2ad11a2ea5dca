"""Schemas are read with all their faults, and clients see them without the directives that bind fields."""

from __future__ import annotations

import pytest
from graphql import print_schema

from filters.graphql.faults import SchemaFaults
from filters.graphql.schema import SdlDocument, read
from tests.support.graphql_shop import SDL, UPSTREAMS


def faults(*texts: str) -> list[str]:
    """The faults of documents."""
    documents = [SdlDocument(name=f"{number}.graphql", text=text) for number, text in enumerate(texts)]
    with pytest.raises(SchemaFaults) as found:
        read(documents, UPSTREAMS)
    return [str(one) for one in found.value.faults]


def test_clients_see_no_directive() -> None:
    text = print_schema(read([SdlDocument(name="a", text=SDL)], UPSTREAMS).types)
    assert "type User {\n  id: ID!\n" in text
    for word in ("@rest", "@auth", "@value", "@listSize", "RestBatch", "JSON", "upstream"):
        assert word not in text


def test_documents_are_read_as_one() -> None:
    more = 'extend type Query { again: User @rest(upstream: "users", path: "/users/1") }'
    schema = read([SdlDocument(name="a", text=SDL), SdlDocument(name="b", text=more)], UPSTREAMS)
    assert ("Query", "again") in schema.calls


WRONG = '{value: "x", type: "Quer"}'
REST = '@rest(upstream: "users", path: "/")'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("type Query {", "1:13: Expected Name, found <EOF>; correct the schema"),
        ("type Query { a: X }", "1:17: Unknown type 'X'; correct the schema"),
        ("\n  scalar JSON", "2:3: 'JSON' is declared for every schema; remove this declaration"),
        (
            "input RestBatch { a: Int }",
            "1:1: 'RestBatch' is declared for every schema; remove this declaration",
        ),
        (
            "type Query { a: Int }\ndirective @rest(path: String) on FIELD_DEFINITION",
            "2:1: @rest is declared for every schema; remove this declaration",
        ),
        ("type A { b: Int }", "1:1: the schema has no queries; add type Query {…}"),
        ("type Query { a: Int }", "1:14: nothing resolves 'Query.a'; add @rest(upstream: …, path: …)"),
        (
            'type Query { a: Int @rest(upstream: "usrs", path: "/") }',
            "1:21: there is no such upstream (found 'usrs'); did you mean 'users'?",
        ),
        (
            'type Query { a(id: Int): Int @rest(upstream: "users", path: "/{arg:ip}{arg:id}") }',
            "1:30: there is no such argument (found 'arg:ip'); known: id",
        ),
        (
            'input I { x: Int } type Query { a(i: I): Int @rest(upstream: "users", path: "/{arg:i.x}{arg:i.y}") }',
            "1:46: there is no such argument (found 'arg:i.y'); known: x",
        ),
        (
            f"type Query {{ a(id: Int): Int {REST} }}",
            "1:16: no template uses the argument 'id' of 'Query.a'; write {arg:id}, or remove it",
        ),
        (
            'type Query { a: Int @rest(upstream: "users", path: "/{args:id}") }',
            "1:21: @rest: path: no source of a value has this name (found 'args:id'); did you mean 'arg'?",
        ),
        (
            'type Query { a: Int @rest(upstream: "users", path: "/{parent:id}") }',
            "1:21: 'Query' has no parent (found 'parent:id'); use {arg:NAME}",
        ),
        (
            'type Query { a: Int @rest(upstream: "users", path: "x") }',
            "1:21: @rest: path: not a path (found 'x'); begin it with /, and escape other characters as %XX",
        ),
        (
            'type Query { a: Int @rest(upstream: "users", path: "/{") }',
            "1:21: @rest: path: a brace without its other one (found '/{'); write {arg:id}",
        ),
        (
            'type Query { a: Int @rest(upstream: "users", path: "/", body: {a: 1}) }',
            '1:21: @rest: body: a call with GET has no body; write method: "POST", or put the values into the query',
        ),
        *(
            (
                f'type Query {{ a: Int @rest(upstream: "users", path: "/", headers: [{{name: "{name}", value: ""}}]) }}',
                f"1:21: @rest: headers: not a header that a call can have (found '{name.lower()}'); use another name",
            )
            for name in ("Host", "x-gateway-upstream", "X-Envoy-Retry-On", ":path")
        ),
        (
            'type Query { a: Int @rest(upstream: "users", path: "/", timeout: "3") }',
            "1:21: @rest: timeout: not a duration (found '3'); write a duration such as 250ms, 5s, 2m or 1h",
        ),
        (
            'type Query { a: Int @rest(upstream: "users", path: "/", select: 3) }',
            "1:21: @rest: select: not a selection (found '3'); write \"data.users\"",
        ),
        (
            'type Query { a: Int @rest(upstream: "users", path: "/", batch: {path: "/?ids={ids}", by: "id"}) }',
            "1:21: @rest: path: the path of a batched call has exactly one value of arguments or of the parent",
        ),
        (
            'type Query { a(b: Int): Int @rest(upstream: "users", path: "/{arg:b}", batch: {path: "/", by: "id"}) }',
            "1:29: @rest: batch.path: the call has no keys (found '/'); write /users?ids={ids}",
        ),
        (
            f"type Query {{ a: Int {REST} @auth(plans: []) }}",
            "1:57: @auth: plans: an empty list would allow everybody; name one, or remove the key",
        ),
        (
            f"type Query {{ a: Int {REST} @auth }}",
            "1:57: @auth: it allows everybody; write plans, scopes, consumers or claims",
        ),
        (
            f'type Query {{ a: Int {REST} @listSize(slicingArguments: ["n"]) }}',
            "1:14: @listSize: 'Query.a' is no list; remove it",
        ),
        (f"type Query {{ a: Int {REST} @cost(weight: -1) }}", "1:57: @cost: weight: a weight is not below 0"),
        (
            f"type Query {{ a: Int {REST} }} type Subscription {{ b: Int }}",
            "1:79: nothing resolves 'Subscription.b'; add @sse(upstream: …, path: …)",
        ),
        (
            f"type Query {{ a: I {REST} }} interface I {{ b: Int {REST} }} type T implements I {{ b: Int }}",
            "1:71: @rest of the interface 'I' would not hold for the types that implement it; write it at the",
        ),
        (
            f'type Query {{ a: U {REST} }} union U @discriminator(property: "k", mapping: [{WRONG}]) = T type T {{ b: Int }}',
            "1:57: @discriminator: 'Quer' is no type of 'U' (found 'Quer'); known: T",
        ),
    ],
)
def test_each_fault_has_its_place_and_remedy(text: str, fault: str) -> None:
    assert any(one.startswith(f"0.graphql:{fault}") for one in faults(text)), faults(text)


def test_calls_that_wait_for_themselves_are_faults() -> None:
    path = '@rest(upstream: "users", path: "/{parent:%s}")'
    found = faults(
        f"type Query {{ t: T {REST} }}\n"
        f"type T {{ a: Int {path % 'b'}\n b: Int {path % 'a.x'}\n c: Int {path % 'd'} d: Int {REST} }}"
    )
    assert [one.partition(";")[0] for one in found] == [
        "0.graphql:2:17: the call of 'T.a' needs its own answer, directly or through other fields",
        "0.graphql:3:9: the call of 'T.b' needs its own answer, directly or through other fields",
        "0.graphql:4:9: the value of 'T.d' comes from a call of its own (found 'parent:d')",
    ]


def test_a_fault_names_its_file() -> None:
    assert faults(SDL, "extend type User { age: Int @cost(weight: -1) }") == [
        "1.graphql:1:29: @cost: weight: a weight is not below 0 (found '-1'); write 1"
    ]
