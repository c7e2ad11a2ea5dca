"""Operations are checked against the limits before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from filters.graphql.errors import Refused
from filters.graphql.operations import Operations
from filters.graphql.schema import SdlDocument, read
from filters.graphql.settings import GraphqlLimits
from tests.support.graphql_shop import SDL, UPSTREAMS

SCHEMA = read([SdlDocument(name="shop", text=SDL)], UPSTREAMS)


def refusal(
    text: str, name: str | None = None, variables: dict[str, Any] | None = None, **limits: int
) -> Any:
    """The code with which an operation is refused, or its cost."""
    try:
        return Operations(SCHEMA, GraphqlLimits(**limits)).prepare(text, name).cost(variables or {})
    except Refused as refused:
        extensions = refused.errors[0].extensions
        assert extensions is not None
        return extensions["code"]


CHAIN = " ".join(f"fragment f{n} on Query {{ ...f{n + 1} }}" for n in range(100))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("", "GRAPHQL_PARSE_FAILED"),
        ("{" * 100_001, "DOCUMENT_TOO_LARGE"),
        ("# " + "x" * 1_000_000, "DOCUMENT_TOO_LARGE"),
        ("{ me { id } }" + " #é" * 40_000, "DOCUMENT_TOO_LARGE"),
        ("{ me { id } }" + " fragment f on User { id }" * 500, "TOO_MANY_TOKENS"),
        ("{me" * 250 + "}" * 250, "TOO_DEEP"),
        ("{ me {" + "boss {" * 20 + "id" + "}" * 22, "TOO_DEEP"),
        ("query ($a: Int = " + "[" * 400 + "]" * 400 + ") { me { id } }", "TOO_DEEP"),
        ("{" + " ".join(f"a{n}: me {{ id }}" for n in range(31)) + "}", "TOO_MANY_ALIASES"),
        ("{ me { ...a } }" + "".join(
            f"fragment {one} on User {{ x{one}: id ...{two} y{one}: boss {{ ...{two} }} }}"
            for one, two in zip("abcdefgh", "bcdefghi", strict=True)) + "fragment i on User { id }",
         "TOO_MANY_ALIASES"),
        ("{ ...f0 }" + CHAIN + " fragment f100 on Query { me { id } }", "TOO_DEEP"),
        ("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ ...a } fragment a on Query { me { id } ...a }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ ...missing }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ __schema { queryType { name } } }", "INTROSPECTION_DISABLED"),
        ('{ ...a } fragment a on Query { x: __type(name: "User") { name } }', "INTROSPECTION_DISABLED"),
        ("query a { me { id } } query b { me { id } }", "OPERATION_RESOLUTION_FAILURE"),
        ("fragment a on Query { me { id } }", "OPERATION_RESOLUTION_FAILURE"),
        ("{ users(first: 501) { boss { id } } }", "COST_TOO_HIGH"),
        ("{ __typename }", 0),
    ],
)  # fmt: skip
def test_what_is_too_much_or_wrong_is_refused(text: str, code: str | int) -> None:
    assert refusal(text) == code


def test_one_of_several_operations_is_chosen_by_name() -> None:
    text = "query a { me { id } } query b { me { id boss { id } } }"
    assert (refusal(text, "a"), refusal(text, "b")) == (1, 2)
    assert refusal(text, "c") == "OPERATION_RESOLUTION_FAILURE"


def test_the_cost_is_weights_times_sizes() -> None:
    assert refusal("{ users { id name } }") == 3
    assert refusal("{ users(first: 7) { id } }") == 7
    assert (
        refusal("query ($n: Int) { users(first: $n) { orders { user { id } } } }", variables={"n": 2}) == 42
    )
    assert refusal("query ($n: Int = 4) { users(first: $n) { id } }") == 4
    assert refusal("{ users { orders { id } } }", list_size=2) == 9


def test_every_call_costs() -> None:
    sdl = """
    type Query {
      echo(x: String): JSON @rest(upstream: "users", path: "/echo?x={arg:x}")
      free: Int @rest(upstream: "users", path: "/free") @cost(weight: 0)
      several: [Int] @rest(upstream: "users", path: "/several")
      users(first: Int): [User] @rest(upstream: "users", path: "/users?n={arg:first}") @listSize(slicingArguments: ["first"])
      node: Node @rest(upstream: "users", path: "/node")
    }
    interface Node { more: Int }
    type User implements Node { name: String more: Int @rest(upstream: "users", path: "/more/{parent:id}") }
    """
    operations = Operations(read([SdlDocument(name="calls", text=sdl)], UPSTREAMS), GraphqlLimits())

    def cost(text: str) -> int:
        return operations.prepare(text).cost({})

    assert cost('{ a: echo(x: "1") b: echo(x: "2") free several }') == 4
    assert [cost(f"{{ users(first: {number}) {{ name more }} }}") for number in (-5, 0, 1, 2)] == [2, 2, 2, 4]
    assert cost("{ node { more } }") == 2


def test_no_suggestion_is_given_unless_it_is_allowed() -> None:
    def message(*, suggestions: bool) -> str:
        with pytest.raises(Refused) as refused:
            Operations(SCHEMA, GraphqlLimits(), suggestions=suggestions).prepare("{ usr }")
        return refused.value.errors[0].message

    assert message(suggestions=False) == "Cannot query field 'usr' on type 'Query'."
    assert "Did you mean 'user'" in message(suggestions=True)


def test_introspection_is_possible_if_it_is_allowed() -> None:
    from graphql import get_introspection_query

    limits = GraphqlLimits()
    Operations(SCHEMA, limits, introspection=True).prepare(get_introspection_query())


def test_a_prepared_operation_is_kept() -> None:
    operations = Operations(SCHEMA, GraphqlLimits(), kept=50)
    first = operations.prepare("{ me { id } }")
    assert operations.prepare("{ me { id } }") is first
    operations.prepare("{ me { id name orders { id total } } }")
    operations.prepare("{ me { id name orders { total } } }")
    assert operations.prepare("{ me { id } }") is not first
