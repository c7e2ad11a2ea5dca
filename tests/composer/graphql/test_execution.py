"""Operations become calls to upstreams, and their answers one result."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from filters.graphql.errors import Refused
from filters.graphql.operations import Operations
from filters.graphql.request_context import RequestContext
from filters.graphql.settings import GraphqlLimits
from tests.support.graphql_shop import SDL, Services, answer, ask, schema
from xds_server.composer.calls import Answer, Call, CallFailed
from xds_server.composer.graphql import execution


async def test_values_are_picked_from_the_answer() -> None:
    response = await ask("{ user(id: 1) { id name } users(first: 2) { name } }")
    assert response == {
        "data": {"user": {"id": "1", "name": "user 1"}, "users": [{"name": "user 1"}, {"name": "user 2"}]}
    }


async def test_calls_for_a_list_become_one() -> None:
    services = Services()
    response = await ask("{ users(first: 3) { orders { id } } }", services)
    assert services.paths == ["/users?limit=3", "/orders?users=1,2,3"]
    assert [len(one["orders"]) for one in response["data"]["users"]] == [2, 2, 2]


async def test_a_batch_has_at_most_its_size() -> None:
    services = Services()
    response = await ask("{ users(first: 6) { boss { id } } }", services)
    assert services.paths == ["/users?limit=6", "/users?ids=1,2", "/users?ids=3,4", "/users/5"]
    assert [one["boss"] and one["boss"]["id"] for one in response["data"]["users"]] == [
        None, "1", "2", "3", "4", "5",
    ]  # fmt: skip


async def test_a_batch_waits_for_all_calls_above_it() -> None:
    class LastFirst(Services):
        started = 0

        async def call(self, call: Call) -> Answer:
            self.started += 1
            for _ in range((10 - self.started) * 7):
                await asyncio.sleep(0)
            return await super().call(call)

    services = LastFirst()
    await ask("{ users(first: 7) { orders { user { orders { id } } } } }", services)
    assert services.paths == [
        "/users?limit=7",
        "/orders?users=1,2,3,4,5,6,7",
        *(f"/users/{number}" for number in range(7, 0, -1)),
        "/orders?users=7,6,5,4,3,2,1",
    ]


async def test_a_path_that_is_too_long_is_an_error_of_the_client() -> None:
    services = Services()
    response = await ask("query($id: ID!) { user(id: $id) { id } }", services, {"id": "9" * 40_000})
    assert response["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert services.calls == []


async def test_equal_calls_are_made_once() -> None:
    services = Services()
    await ask("{ a: user(id: 1) { name } b: user(id: 1) { orders { user { id } } } }", services)
    assert services.paths == ["/users/1", "/orders?user=1"]


async def test_mutations_run_one_after_the_other_and_each_is_made() -> None:
    services = Services()
    query = 'mutation { a: place(user: 1) { id } b: place(user: 1, note: null, lines: [{sku: "x"}]) { id } }'
    await ask(query, services)
    assert [json.loads(one.body) for one in services.calls] == [
        {"user_id": "1", "from": "user 1", "fixed": [1, True]},
        {
            "user_id": "1",
            "note": None,
            "lines": [{"sku": "x", "count": 1}],
            "from": "user 1",
            "fixed": [1, True],
        },
    ]
    assert services.calls[0].headers["content-type"] == "application/json"


COUNTED = """
type Query {
  count: Count @rest(upstream: "users", path: "/count")
  soon: Count @rest(upstream: "users", path: "/count", timeout: "300ms")
}
type Mutation { add: Added @rest(upstream: "users", path: "/count", method: "POST") }
type Added { count: Count @rest(upstream: "users", path: "/count") }
type Count { n: Int }
"""


async def test_what_is_read_behind_a_change_is_read_again() -> None:
    services = Services(lambda _call: answer({"n": sum(one.method == "POST" for one in services.calls)}))
    response = await ask(
        "mutation { a: add { x: count { n } y: count { n } } b: add { count { n } } }", services, sdl=COUNTED
    )
    assert response["data"] == {"a": {"x": {"n": 1}, "y": {"n": 1}}, "b": {"count": {"n": 2}}}
    assert [one.method for one in services.calls] == ["POST", "GET", "POST", "GET"]


async def test_calls_with_another_timeout_are_not_equal() -> None:
    services = Services(lambda _call: answer({"n": 1}))
    await ask("{ soon { n } count { n } again: count { n } }", services, sdl=COUNTED)
    assert [one.timeout for one in services.calls] == [0.3, None]


async def test_values_of_the_caller_are_used() -> None:
    services = Services()
    await ask("{ me { id } }", services, context=RequestContext(claims={"sub": "2"}, plan="pro"))
    assert (services.paths, services.calls[0].headers["x-plan"]) == (["/users/2"], "pro")


async def test_a_caller_without_a_claim_gets_an_error_without_a_call() -> None:
    services = Services()
    response = await ask("{ me { id } }", services)
    assert (services.calls, response["data"]) == ([], {"me": None})
    assert response["errors"][0]["extensions"] == {"code": "BAD_USER_INPUT"}


@pytest.mark.parametrize("value", ["..", ".", ""])
async def test_no_value_changes_which_resource_a_path_names(value: str) -> None:
    services = Services()
    response = await ask("query ($id: ID!) { user(id: $id) { id } }", services, {"id": value})
    assert services.calls == []
    assert response["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_values_are_escaped() -> None:
    services = Services(lambda _call: answer(None))
    await ask('{ user(id: "a/b?c=d&é") { id } }', services)
    assert services.paths == ["/users/a%2Fb%3Fc%3Dd%26%C3%A9"]


async def test_a_parameter_without_a_value_is_left_out() -> None:
    services = Services()
    sdl = SDL.replace("first: Int = 3", "first: Int")
    await ask("{ users { id } }", Services(lambda call: services.calls.append(call) or answer({})), sdl=sdl)
    assert services.paths == ["/users"]


async def test_a_field_that_the_caller_may_not_have_is_null() -> None:
    response = await ask("{ user(id: 1) { id email salary } }")
    assert response["data"] == {"user": {"id": "1", "email": None, "salary": None}}
    assert [(one["path"], one["extensions"]["code"]) for one in response["errors"]] == [
        (["user", "email"], "FORBIDDEN"),
        (["user", "salary"], "FORBIDDEN"),
    ]
    allowed = RequestContext(plan="pro", claims={"scope": "a hr.read", "realm": {"roles": ["staff"]}})
    response = await ask("{ user(id: 1) { email salary } }", context=allowed)
    assert response == {"data": {"user": {"email": "1@example.com", "salary": 1000}}}


async def test_a_failed_part_is_null_with_its_error() -> None:
    response = await ask("{ broken { id } user(id: 1) { id } }", Services(_broken))
    assert response["data"] == {"broken": None, "user": {"id": "1"}}
    assert response["errors"] == [
        {
            "message": "The upstream answered with the status 500.",
            "locations": [{"line": 1, "column": 3}],
            "path": ["broken"],
            "extensions": {"code": "UPSTREAM_ERROR", "status": 500},
        }
    ]


async def test_non_null_makes_the_whole_null() -> None:
    response = await ask("{ strict { id } user(id: 1) { id } }", Services(_broken))
    assert response["data"] is None
    assert [one["path"] for one in response["errors"]] == [["strict"]]


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (Answer(status=200, headers={}, body=b"<secret>"), "UPSTREAM_INVALID_RESPONSE"),
        (Answer(status=200, headers={}, body=b"[" * 100_000), "UPSTREAM_INVALID_RESPONSE"),
        (answer({"id": 1, "salary": "secret"}), "UPSTREAM_INVALID_RESPONSE"),
        (answer("secret"), "UPSTREAM_INVALID_RESPONSE"),
        (answer([{"id": "secret"}]), "UPSTREAM_INVALID_RESPONSE"),
        (answer({"id": {"secret": 1}}), "UPSTREAM_INVALID_RESPONSE"),
        (answer({"error": "secret"}, 403), "UPSTREAM_ERROR"),
        (answer({"note": "secret"}), "NULL_FOR_NON_NULL"),
        (CallFailed("timeout", "secret"), "UPSTREAM_TIMEOUT"),
        (CallFailed("unreachable", "secret"), "UPSTREAM_UNREACHABLE"),
        (CallFailed("too_large", "secret"), "UPSTREAM_RESPONSE_TOO_LARGE"),
    ],
)
async def test_nothing_of_a_bad_answer_is_shown(found: Answer | CallFailed, code: str) -> None:
    def special(_call: Call) -> Answer:
        if isinstance(found, CallFailed):
            raise found
        return found

    context = RequestContext(claims={"scope": "hr.read", "realm": {"roles": "staff"}})
    response = await ask("{ user(id: 1) { id salary } }", Services(special), context=context)
    assert response["errors"][0]["extensions"]["code"] == code
    assert "secret" not in json.dumps(response)


async def test_what_does_not_exist_is_null() -> None:
    response = await ask("{ user(id: 99) { id } }", Services(lambda _call: answer({"no": 1}, 404)))
    assert response == {"data": {"user": None}}


async def test_a_failed_batch_fails_each_of_its_fields() -> None:
    response = await ask(
        "{ users(first: 2) { id orders { id } } }",
        Services(lambda call: answer({}, 500) if call.upstream == "orders" else None),
    )
    assert response["data"] == {"users": [{"id": "1", "orders": None}, {"id": "2", "orders": None}]}
    assert [one["path"] for one in response["errors"]] == [["users", 0, "orders"], ["users", 1, "orders"]]


TENANT = """
type Query { users(first: Int = 3): [User!] @rest(upstream: "users", path: "/users?limit={arg:first}", select: "data.items") }
type User {
  id: ID!
  orders: [Order!] @rest(upstream: "orders", path: "/orders/{header:x-tenant}?user={parent:id}",
                         batch: {path: "/orders/{header:x-tenant}?users={ids}", by: "user_id"})
}
type Order { id: ID! }
"""


@pytest.mark.parametrize("first", [1, 2])
async def test_a_batch_that_needs_a_value_that_the_request_lacks_is_null(first: int) -> None:
    services = Services()
    asked = ask("query ($n: Int) { users(first: $n) { orders { id } } }", services, {"n": first}, sdl=TENANT)
    response = await asyncio.wait_for(asked, 60)
    assert response["data"] == {"users": [{"orders": None}] * first}
    assert [one["extensions"] for one in response["errors"]] == [{"code": "BAD_USER_INPUT"}] * first
    assert services.paths == [f"/users?limit={first}"]


async def test_a_fault_of_ours_leaves_no_field_waiting() -> None:
    def faulty(call: Call) -> Answer | None:
        if call.upstream == "orders":
            raise RuntimeError("secret")
        return None

    response = await asyncio.wait_for(
        ask("{ users(first: 2) { id orders { id } } user(id: 1) { orders { id } } }", Services(faulty)), 60
    )
    assert [one["orders"] for one in response["data"]["users"]] == [None, None]
    assert "secret" not in json.dumps(response)


ANY = """
type Query {
  any: JSON @rest(upstream: "users", path: "/any")
  echo(f: Float): JSON @rest(upstream: "users", path: "/echo?f={arg:f}")
}
type Mutation { send(value: JSON): JSON @rest(upstream: "users", path: "/send", method: "POST", body: {v: "{arg:value}"}) }
"""


@pytest.mark.parametrize("number", [b"1e999", b"-1E+0999", b"1" + b"0" * 400 + b".5"])
async def test_a_number_that_no_response_can_have_is_invalid(number: bytes) -> None:
    body = b'{"a": [1e300, ' + number + b"]}"
    services = Services(lambda _call: Answer(status=200, headers={}, body=body))
    response = await ask("{ any }", services, sdl=ANY)
    assert response["data"] == {"any": None}
    assert response["errors"][0]["extensions"] == {"code": "UPSTREAM_INVALID_RESPONSE"}


async def test_large_numbers_are_handed_on() -> None:
    body = b'{"a": 1e300, "text": "1e999", "whole": 1' + b"0" * 400 + b"}"
    response = await ask(
        "{ any }", Services(lambda _call: Answer(status=200, headers={}, body=body)), sdl=ANY
    )
    assert response["data"]["any"] == {"a": 1e300, "text": "1e999", "whole": 10**400}


@pytest.mark.parametrize("query", ["{ echo(f: 1e999) }", "mutation { send(value: {a: [-1e999]}) }"])
async def test_a_number_that_no_call_can_have_is_bad_input(query: str) -> None:
    services = Services()
    response = await ask(query, services, sdl=ANY)
    assert services.calls == []
    assert [one["extensions"]["code"] for one in response["errors"]] == ["BAD_USER_INPUT"]


BIG = """
type Query { n(first: BigInt): BigInt @rest(upstream: "users", path: "/n?first={arg:first}") }
"""


@pytest.mark.parametrize(
    ("value", "expected"),
    [(10**30, 10**30), ("-12", -12), (3.0, 3), ("12x", None), (1.5, None), (True, None), ({}, None)],
)
async def test_a_big_int_is_a_whole_number(value: Any, expected: int | None) -> None:
    response = await ask("{ n }", Services(lambda _call: answer(value)), sdl=BIG)
    assert response["data"] == {"n": expected}
    codes = [one["extensions"]["code"] for one in response.get("errors", ())]
    assert codes == (["UPSTREAM_INVALID_RESPONSE"] if expected is None else [])


async def test_clients_send_whole_numbers_as_big_int() -> None:
    services = Services(lambda _call: answer(1))
    query = "query ($n: BigInt) { n(first: $n) }"
    assert "errors" not in await ask(query, services, {"n": 10**30}, sdl=BIG)
    assert "errors" not in await ask(f"{{ n(first: {10**30}) }}", services, sdl=BIG)
    assert services.paths == [f"/n?first={10**30}"] * 2
    response = await ask(query, services, {"n": "12x"}, sdl=BIG)
    assert response["errors"][0]["extensions"] == {"code": "BAD_USER_INPUT"}
    with pytest.raises(Refused):
        await ask("{ n(first: 1.5) }", services, sdl=BIG)


async def test_a_request_has_a_bound_of_calls() -> None:
    services = Services()
    response = await ask(
        "{ a: user(id: 1) { id } b: user(id: 2) { id } c: user(id: 3) { id } }",
        services,
        limits=GraphqlLimits(calls=2),
    )
    assert len(services.calls) == 2
    assert response["errors"][0]["extensions"]["code"] == "TOO_MANY_CALLS"


class _Waiting(Services):
    """Services that answer when they are told to. `enough` is set when so many calls are under way."""

    def __init__(self, enough: int) -> None:
        super().__init__()
        self._enough = enough
        self.enough = asyncio.Event()
        self.go = asyncio.Event()
        self.now = self.most = self.cancelled = 0

    async def call(self, call: Call) -> Answer:
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now == self._enough:
            self.enough.set()
        try:
            await self.go.wait()
            return await super().call(call)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1


async def test_calls_at_the_same_time_have_a_bound() -> None:
    services = _Waiting(3)
    query = "{" + " ".join(f"u{one}: user(id: {one}) {{ id }}" for one in range(1, 8)) + "}"
    asked = asyncio.create_task(ask(query, services, limits=GraphqlLimits(parallel=3)))
    await services.enough.wait()
    services.go.set()
    assert len((await asked)["data"]) == 7
    assert services.most == 3


async def test_calls_have_the_time_that_is_left_and_the_headers_of_the_request() -> None:
    services = Services(lambda _call: answer(None))
    context = RequestContext(for_calls={"traceparent": "00-1", "accept": "text/html"})
    operation = Operations(schema(), GraphqlLimits()).prepare("{ slow { id } user(id: 1) { id } }")
    await execution.run(operation, {}, services, context, GraphqlLimits(), 60)
    slow, user = services.calls
    assert slow.timeout == 0.3
    assert user.timeout is not None
    assert 0 < user.timeout <= 60
    assert user.headers == {"traceparent": "00-1", "accept": "application/json"}


async def test_no_call_is_made_when_the_time_is_up() -> None:
    services = Services()
    operation = Operations(schema(), GraphqlLimits()).prepare("{ user(id: 1) { id } }")
    result = await execution.run(operation, {}, services, RequestContext(), GraphqlLimits(), 0)
    assert services.calls == []
    assert result.value["errors"][0]["extensions"]["code"] == "UPSTREAM_TIMEOUT"


async def test_a_client_that_goes_away_cancels_the_calls() -> None:
    services = _Waiting(2)
    asked = asyncio.create_task(ask("{ a: user(id: 1) { id } b: user(id: 2) { id } }", services))
    await services.enough.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert (services.cancelled, services.now) == (2, 0)


async def test_an_operation_that_costs_too_much_makes_no_call() -> None:
    services = Services()
    with pytest.raises(Refused) as refused:
        await ask("query ($n: Int) { users(first: $n) { orders { id } } }", services, {"n": 100})
    assert refused.value.errors[0].extensions == {"code": "COST_TOO_HIGH", "cost": 1100, "limit": 1000}
    assert services.calls == []


async def test_the_json_tells_the_type_of_an_object() -> None:
    sdl = """
    type Query { all: [Pet] @rest(upstream: "users", path: "/all") }
    interface Pet @discriminator(property: "kind", mapping: [{value: "c", type: "Cat"}]) { name: String }
    type Cat implements Pet { name: String lives: Int }
    type Dog implements Pet { name: String }
    """
    pets: list[dict[str, Any]] = [{"kind": "c", "name": "a", "lives": 9}, {"kind": "Dog", "name": "b"}]
    services = Services(lambda _call: answer(pets))
    response = await ask("{ all { __typename name ... on Cat { lives } } }", services, sdl=sdl)
    assert response["data"]["all"] == [
        {"__typename": "Cat", "name": "a", "lives": 9},
        {"__typename": "Dog", "name": "b"},
    ]


async def test_select_renames_within_lists() -> None:
    sdl = """
    type Query { orders: [Order] @rest(upstream: "orders", path: "/all", select: {
      from: "data.rows", fields: {number: "order-id", city: "to.address.city",
                                  lines: {from: "order_lines", fields: {sku: "item.sku"}}, skus: "order_lines.item.sku"}}) }
    type Order { number: Int city: String lines: [Line] skus: [String] total: Int }
    type Line { sku: String count: Int }
    """
    row = {
        "order-id": 7,
        "to": {"address": {"city": "Bonn"}},
        "order_lines": [{"item": {"sku": "x"}, "count": 2}, {"item": None}],
        "total": 3,
    }
    response = await ask(
        "{ orders { number city lines { sku count } skus total } }",
        Services(lambda _call: answer({"data": {"rows": [row]}})),
        sdl=sdl,
    )
    assert response["data"]["orders"] == [
        {
            "number": 7,
            "city": "Bonn",
            "lines": [{"sku": "x", "count": 2}, {"sku": None, "count": None}],
            "skus": ["x", None],
            "total": 3,
        }
    ]


def _broken(call: Call) -> Answer | None:
    return answer({"secret": 1}, 500) if call.path == "/broken" else None


INPUTS = """
input Filter { name: String @value(from: "n_name") inner: Inner @value(from: "i") }
input Inner { first: Int @value(from: "f") }
type Query {
  found(filter: Filter): JSON @rest(upstream: "users", path: "/a?n={arg:filter.name}&f={arg:filter.inner.first}")
  sent(filter: Filter): JSON @rest(upstream: "users", path: "/b", method: "POST", body: {n: "{arg:filter.name}", all: "{arg:filter}"})
}
"""


async def test_templates_find_fields_of_inputs_with_names_of_their_own() -> None:
    services = Services()
    query = '{ found(filter: {name: "N", inner: {first: 1}}) sent(filter: {name: "M"}) }'
    await ask(query, services, sdl=INPUTS)
    assert services.paths == ["/a?n=N&f=1", "/b"]
    assert json.loads(services.calls[1].body) == {"n": "M", "all": {"n_name": "M"}}


async def test_a_batch_that_is_not_found_has_no_values() -> None:
    services = Services(lambda call: answer({}, 404) if "users=" in call.path else None)
    response = await ask("{ users(first: 3) { orders { id } } }", services)
    assert response == {"data": {"users": [{"orders": []}] * 3}}
