"""The calls of an operation are known before anything runs."""

from __future__ import annotations

from typing import Any

from filters.graphql.operations import Operations
from filters.graphql.plan import plan
from filters.graphql.settings import GraphqlLimits
from tests.support.graphql_shop import Services, ask, schema


def planned(query: str, variables: dict[str, Any] | None = None) -> list[str]:
    """The lines of the plan."""
    operation = Operations(schema(), GraphqlLimits()).prepare(query)
    return [str(one) for one in plan(operation, variables or {})]


async def test_a_plan_has_the_calls_in_their_order() -> None:
    query = """
    query ($n: Int) {
      users(first: $n) { ...more boss { boss { id } } }
      a: user(id: 1) { id }
      b: user(id: 1) { orders { user { id } } }
      me { id }
    }
    fragment more on User { orders { id } }
    """
    assert planned(query, {"n": 5}) == [
        "1. users: GET users /users?limit=5 (1 call)",
        "1. a: GET users /users/1 (1 call)",
        "1. b: GET users /users/1 (equal to that of a: none)",
        "1. me: GET users /users/{claim:sub} (1 call)",
        "2. users[].orders: GET orders /orders?users={ids} (at most 1, for up to 100 keys each)",
        "2. users[].boss: GET users /users?ids={ids} (at most 3, for up to 2 keys each)",
        "2. b.orders: GET orders /orders?user={parent:id} (1 call)",
        "3. users[].boss.boss: GET users /users?ids={ids} (at most 3, for up to 2 keys each)",
        "3. b.orders[].user: GET users /users/{parent:user_id} (at most 10)",
    ]
    services = Services()
    await ask(query.replace("me { id }", ""), services, {"n": 5})
    assert services.paths[:2] == ["/users?limit=5", "/users/1"]
    assert len(services.calls) <= 1 + 1 + 1 + 3 + 1 + 3 + 10


def test_a_subscription_begins_with_its_stream() -> None:
    assert planned('subscription { placed(user: "1") { user { id } } }') == [
        "1. placed: GET orders /placed?user=1 (1 call)",
        "2. placed.user: GET users /users/{parent:user_id} (1 call)",
    ]


def test_mutations_are_one_after_the_other() -> None:
    query = "mutation { a: place(user: 1) { user { id } } b: place(user: 1) { id } }"
    assert planned(query) == [
        "1. a: POST orders /orders (1 call)",
        "2. a.user: GET users /users/{parent:user_id} (1 call)",
        "3. b: POST orders /orders (1 call)",
    ]


def test_what_is_read_behind_a_mutation_is_read_again() -> None:
    sdl = """
    type Query { count: Int @rest(upstream: "users", path: "/count") }
    type Mutation { add: Added @rest(upstream: "users", path: "/count", method: "POST") }
    type Added { count: Int @rest(upstream: "users", path: "/count") }
    """
    operation = Operations(schema(sdl), GraphqlLimits()).prepare(
        "mutation { a: add { x: count y: count } b: add { count } }"
    )
    assert [one.equal_to for one in plan(operation, {})] == ["", "", "a.x", "", ""]
