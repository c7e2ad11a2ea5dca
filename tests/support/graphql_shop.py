"""A schema of users and their orders, and REST services that answer its calls from data."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from filters.graphql.operations import Operations
from filters.graphql.request_context import RequestContext
from filters.graphql.schema import BoundSchema, SdlDocument, read
from filters.graphql.settings import GraphqlLimits
from xds_server.composer.calls import Answer, Call
from xds_server.composer.graphql import execution

SDL = """
type Query {
  user(id: ID!): User @rest(upstream: "users", path: "/users/{arg:id}")
  users(first: Int = 3): [User!]
    @rest(upstream: "users", path: "/users?limit={arg:first}", select: "data.items")
    @listSize(slicingArguments: ["first"])
  me: User @rest(upstream: "users", path: "/users/{claim:sub}", headers: [{name: "x-plan", value: "{plan}"}])
  slow: User @rest(upstream: "users", path: "/slow", timeout: "300ms")
  broken: User @rest(upstream: "users", path: "/broken")
  strict: Order! @rest(upstream: "orders", path: "/broken")
}
type Mutation {
  place(user: ID!, note: String, lines: [Line!]): Order
    @rest(upstream: "orders", path: "/orders", method: "POST", body: {
      user_id: "{arg:user}", note: "{arg:note}", lines: "{arg:lines}", from: "user {arg:user}", fixed: [1, true]})
}
type Subscription {
  placed(user: ID): Order @sse(upstream: "orders", path: "/placed?user={arg:user}", select: "order")
  salaries: Int @auth(plans: ["pro"]) @sse(upstream: "users", path: "/salaries")
}
input Line { sku: String! count: Int = 1 }
type User {
  id: ID!
  name: String @value(from: "full.name")
  email: String @auth(plans: ["pro"])
  salary: Int @auth(scopes: ["hr.read"], claims: [{name: "realm.roles", values: ["staff"]}])
  orders: [Order!]
    @rest(upstream: "orders", path: "/orders?user={parent:id}", batch: {path: "/orders?users={ids}", by: "user_id"})
  boss: User
    @rest(upstream: "users", path: "/users/{parent:boss_id}", batch: {path: "/users?ids={ids}", by: "id", size: 2})
}
type Order { id: ID! total: Int user: User @rest(upstream: "users", path: "/users/{parent:user_id}") }
"""
UPSTREAMS = ("users", "orders")
USERS = {
    number: {
        "id": number,
        "full": {"name": f"user {number}"},
        "email": f"{number}@example.com",
        "salary": 1000 * number,
        "boss_id": number - 1 or None,
    }
    for number in range(1, 8)
}
ORDERS = [{"id": 10 * user + number, "user_id": user, "total": number} for user in USERS for number in (1, 2)]


def schema(sdl: str = SDL) -> BoundSchema:
    """The schema, ready to be executed."""
    return execution.bind(read([SdlDocument(name="shop.graphql", text=sdl)], UPSTREAMS))


class Services:
    """Answers calls from the data, and remembers them. `special` answers in its place unless it returns None."""

    def __init__(self, special: Callable[[Call], Answer | None] = lambda _call: None) -> None:
        self.calls: list[Call] = []
        self.events: list[bytes] = []
        self._special = special

    @property
    def paths(self) -> list[str]:
        """The paths of all calls."""
        return [one.path for one in self.calls]

    async def stream(self, call: Call) -> AsyncGenerator[Answer | bytes]:
        """Yield the events of `events`, as two parts."""
        self.calls.append(call)
        found = self._special(call)
        yield found or Answer(status=200, headers={"content-type": "text/event-stream"}, body=b"")
        content = b"".join(b"data: " + one + b"\n\n" for one in self.events)
        yield content[:7]
        yield content[7:]

    async def call(self, call: Call) -> Answer:
        """Answer a call."""
        self.calls.append(call)
        found = self._special(call)
        if found is not None:
            return found
        try:
            return answer(_content(call))
        except ValueError:  # an id that is no number
            return answer(None, 404)


def answer(content: Any, status: int = 200) -> Answer:
    """An answer with JSON."""
    return Answer(
        status=status, headers={"content-type": "application/json"}, body=json.dumps(content).encode()
    )


def _content(call: Call) -> Any:
    where = urlsplit(call.path)
    query = {name: values[0] for name, values in parse_qs(where.query).items()}
    if call.method == "POST":
        return {"id": 1, "total": 0, **json.loads(call.body)}
    match where.path.split("/")[1:], query:
        case ["users"], {"ids": ids}:
            return [USERS[int(one)] for one in ids.split(",") if int(one) in USERS]
        case ["users"], {"limit": limit}:
            return {"data": {"items": list(USERS.values())[: int(limit)]}}
        case ["users", number], _:
            return USERS.get(int(number))
        case ["orders"], {"user": user}:
            return [one for one in ORDERS if one["user_id"] == int(user)]
        case ["orders"], {"users": users}:
            return [one for one in ORDERS if str(one["user_id"]) in users.split(",")]
        case _:
            return None


async def ask(
    query: str,
    services: Services | None = None,
    variables: dict[str, Any] | None = None,
    context: RequestContext | None = None,
    limits: GraphqlLimits | None = None,
    *,
    sdl: str = SDL,
) -> dict[str, Any]:
    """The response to an operation."""
    limits = limits or GraphqlLimits()
    operation = Operations(schema(sdl), limits).prepare(query)
    result = await execution.run(
        operation, variables or {}, services or Services(), context or RequestContext(), limits
    )
    return dict(result.value)
