"""GraphQL over HTTP: media types, methods, statuses and persisted documents."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web

from filters.graphql.operations import Operations
from filters.graphql.request_context import RequestContext
from filters.graphql.settings import GraphqlLimits
from tests.support import graphql_audit
from tests.support.graphql_shop import SDL, Services, answer, schema
from xds_server.composer.calls import Answer, Call
from xds_server.composer.graphql.endpoint import Endpoint, HttpResponse
from xds_server.composer.graphql.requests import HttpRequest, PersistedDocuments, media_type, sha256_of

JSON = "application/json"
RESPONSE_JSON = "application/graphql-response+json"
QUERY = "{ user(id: 1) { name } }"
NAME = {"data": {"user": {"name": "user 1"}}}


def endpoint(
    persisted: PersistedDocuments | None = None,
    *,
    introspection: bool = False,
    sdl: str = SDL,
    **limits: int,
) -> Endpoint:
    """An endpoint of the schema."""
    bounds = GraphqlLimits(**limits)
    return Endpoint(
        operations=Operations(schema(sdl), bounds, introspection=introspection),
        limits=bounds,
        persisted=persisted or PersistedDocuments(by_hash={}),
    )


async def post(
    content: Any, at: Endpoint | None = None, services: Services | None = None, **headers: str
) -> HttpResponse:
    """The response to a POST. A `content` that is no text is sent as JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    sent = {"content-type": JSON, "accept": RESPONSE_JSON} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    request = HttpRequest(method="POST", query="", headers=sent, body=body)
    return await (at or endpoint()).respond(request, services or Services(), RequestContext())


async def get(parameters: Mapping[str, str], at: Endpoint | None = None, **headers: str) -> HttpResponse:
    """The response to a GET."""
    request = HttpRequest(method="GET", query=urlencode(parameters), headers=headers, body=b"")
    return await (at or endpoint()).respond(request, Services(), RequestContext())


def value(response: HttpResponse) -> Any:
    """The JSON of a response."""
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


def code(response: HttpResponse) -> Any:
    """The code of the first error."""
    return value(response)["errors"][0]["extensions"]["code"]


async def test_a_query_is_posted() -> None:
    response = await post({"query": "query a($id: ID!) { user(id: $id) { name } }", "variables": {"id": 1}})
    assert (response.status, value(response)) == (200, NAME)
    assert response.headers == {
        "content-type": f"{RESPONSE_JSON}; charset=utf-8",
        "vary": "accept",
        "x-graphql-cost": "1",
    }


async def test_a_query_is_in_the_url() -> None:
    parameters = {
        "query": "query a($id: ID!) { user(id: $id) { name } } query b { me { id } }",
        "operationName": "a",
        "variables": '{"id": "1"}',
    }
    response = await get(parameters)
    assert (response.status, value(response)) == (200, NAME)
    assert response.headers["content-type"] == f"{JSON}; charset=utf-8"


async def test_a_mutation_needs_post() -> None:
    response = await get({"query": "mutation { place(user: 1) { id } }"})
    assert (response.status, response.headers["allow"]) == (405, "POST")
    response = await post({"query": "mutation { place(user: 1) { id } }"})
    assert value(response) == {"data": {"place": {"id": "1"}}}


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"\xff", {}, 400),
        (b"3", {}, 400),
        ([], {}, 400),
        ([3], {}, 400),
        ({}, {}, 400),
        ({"query": 3}, {}, 400),
        ({"query": QUERY, "variables": []}, {}, 400),
        ({"query": QUERY, "operationName": 3}, {}, 400),
        ({"query": QUERY, "extensions": "x"}, {}, 400),
        ({"extensions": {"persistedQuery": {"version": 2, "sha256Hash": "x"}}}, {}, 400),
        ({"query": "{"}, {}, 400),
        ({"query": "{ nothing }"}, {}, 400),
        ({"query": "{ nothing }"}, {"accept": JSON}, 200),
        ({"query": QUERY}, {"content_type": "text/plain"}, 415),
        ({"query": QUERY}, {"content_encoding": "gzip"}, 415),
        ({"query": QUERY}, {"accept": "text/html"}, 406),
        ({"query": QUERY}, {"accept": "application/json;q=0"}, 406),
        ({"query": "query ($id: ID!) { user(id: $id) { id } }"}, {}, 400),
        (
            {"query": "query ($a: ID!) { user(id: $a) { id } }", "variables": {"a": [[[[[[[[[[[1]]]]]]]]]]]}},
            {},
            400,
        ),
        ({"query": QUERY, "variables": {"a": "x" * 1_000_000}}, {}, 413),
        ([{"query": QUERY}, {"query": QUERY}], {}, 400),
    ],
)
async def test_a_bad_request_has_a_status_and_an_error(
    content: Any, headers: dict[str, str], status: int
) -> None:
    response = await post(content, **headers)
    assert response.status == status
    assert value(response)["errors"][0]["message"]
    assert "data" not in value(response)


async def test_variables_that_are_not_declared_are_not_looked_at() -> None:
    response = await post({"query": QUERY, "variables": {"a": [[[[[[[[[[[[1]]]]]]]]]]]]}})
    assert (response.status, value(response)) == (200, NAME)


async def test_a_body_has_the_size_that_is_allowed() -> None:
    at = endpoint(request=100)
    assert value(await post({"query": QUERY}, at)) == NAME
    response = await post({"query": QUERY + " " * 100}, at)
    assert (response.status, value(response)["errors"][0]["message"]) == (
        413,
        "The body is larger than 100 bytes.",
    )


async def test_a_field_that_fails_is_no_failed_request() -> None:
    response = await post({"query": "{ me { id } }"})
    assert (response.status, value(response)["data"]) == (200, {"me": None})


@pytest.mark.parametrize(
    "content", [b"{", {"query": "{ nothing }"}, {"query": "{ me { id } }"}, {"query": "{ broken { id } }"}]
)
async def test_nobody_stores_a_response_with_errors(content: Any) -> None:
    response = await post(content, services=Services(_failing))
    assert (response.headers["cache-control"], response.headers["vary"]) == ("no-store", "accept")


async def test_nobody_stores_a_list_with_an_error_or_a_response_in_parts() -> None:
    response = await post([{"query": QUERY}, {"query": "{ nothing }"}], endpoint(operations=2))
    assert response.headers["cache-control"] == "no-store"
    for accept in ("multipart/mixed", "text/event-stream"):
        response = await post({"query": DEFERRED if accept == "multipart/mixed" else QUERY}, accept=accept)
        assert response.headers["cache-control"] == "no-store"
        if not isinstance(response.body, bytes):
            await response.body.aclose()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"cache-control": "max-age=60"}, {"vary": "accept"}),
        ({"cache-control": "max-age=60, Private"}, {"vary": "accept", "cache-control": "private, no-store"}),
        ({"cache-control": 'private="x", a=b'}, {"vary": "accept", "cache-control": "private, no-store"}),
        ({"cache-control": "no-store"}, {"vary": "accept", "cache-control": "private, no-store"}),
        ({"vary": "X-Tenant, accept"}, {"vary": "accept, x-tenant"}),
        ({"vary": "*"}, {"vary": "accept, *"}),
    ],
)
async def test_what_an_upstream_says_about_storing_holds_for_the_response(
    headers: dict[str, str], expected: dict[str, str]
) -> None:
    def special(call: Call) -> Answer | None:
        return Answer(status=200, headers=headers, body=b"[]") if call.upstream == "orders" else None

    query = {"query": "{ user(id: 1) { orders { id } } }"}
    for content in (query, [query, {"query": QUERY}]):
        response = await post(content, endpoint(operations=2), Services(special))
        found = {name: text for name, text in response.headers.items() if name in ("vary", "cache-control")}
        assert found == expected


def _failing(call: Call) -> Answer | None:
    return answer(None, 500) if call.path == "/broken" else None


async def test_a_list_of_operations_shares_its_calls() -> None:
    services = Services()
    content = [{"query": QUERY}, {"query": "{ nothing }"}, {"query": "{ user(id: 1) { id } }"}]
    response = await post(content, endpoint(operations=3), services)
    assert response.status == 200
    first, second, third = value(response)
    assert (first, third) == (NAME, {"data": {"user": {"id": "1"}}})
    assert second["errors"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
    assert (services.paths, response.headers["x-graphql-cost"]) == (["/users/1"], "2")


async def test_persisted_documents_are_named_by_their_hash() -> None:
    at = endpoint(PersistedDocuments.of((QUERY,), only=True))
    name = sha256_of(QUERY)
    extension = {"persistedQuery": {"version": 1, "sha256Hash": name}}
    assert value(await post({"extensions": extension}, at)) == NAME
    assert value(await post({"documentId": f"sha256:{name}"}, at)) == NAME
    assert value(await post({"query": QUERY}, at)) == NAME
    assert value(await get({"extensions": json.dumps(extension)}, at)) == NAME
    assert value(await get({"documentId": name}, at)) == NAME


async def test_other_documents_are_refused() -> None:
    at = endpoint(PersistedDocuments.of((QUERY,), only=True))
    assert code(await post({"documentId": "sha256:00"}, at)) == "PERSISTED_QUERY_NOT_FOUND"
    assert code(await post({"query": "{ me { id } }"}, at)) == "PERSISTED_QUERY_ONLY"
    wrong = {"persistedQuery": {"version": 1, "sha256Hash": "00"}}
    assert code(await post({"query": QUERY, "extensions": wrong}, at)) == "BAD_USER_INPUT"


DEFERRED = "{ user(id: 1) { id ... @defer { orders { id } boss { id } email } } }"


async def test_what_is_deferred_comes_in_a_part_of_its_own() -> None:
    services = Services()
    response = await post({"query": DEFERRED}, services=services, accept="multipart/mixed, application/json")
    assert response.headers["content-type"] == 'multipart/mixed; boundary="-"'
    assert not isinstance(response.body, bytes)
    assert services.paths == ["/users/1"]
    content = b"".join([one async for one in response.body])
    assert services.paths == ["/users/1", "/orders?user=1"]
    *parts, end = content.split(b"\r\n---")
    assert end == b"--\r\n"
    values = [json.loads(one.partition(b"\r\n\r\n")[2]) for one in parts[1:]]
    assert values[0]["data"] == {"user": {"id": "1"}}
    (deferred,) = (one for value in values for one in value.get("incremental", ()))
    assert deferred["data"] == {"orders": [{"id": "11"}, {"id": "12"}], "boss": None, "email": None}
    assert [one["extensions"]["code"] for one in deferred["errors"]] == ["FORBIDDEN"]
    assert values[-1]["hasNext"] is False


async def test_closing_a_response_in_parts_cancels_its_calls() -> None:
    response = await post({"query": DEFERRED}, accept="multipart/mixed")
    assert not isinstance(response.body, bytes)
    first = await anext(response.body)
    assert b"pending" in first
    await response.body.aclose()


async def test_a_client_that_accepts_no_parts_cannot_defer() -> None:
    assert code(await post({"query": DEFERRED})) == "INCREMENTAL_NOT_ACCEPTED"
    older = "multipart/mixed;deferSpec=20220824, application/json"
    assert code(await post({"query": DEFERRED}, accept=older)) == "INCREMENTAL_NOT_ACCEPTED"
    assert value(await post({"query": QUERY}, accept=older)) == NAME


async def events(query: str, services: Services) -> list[tuple[str, Any]]:
    """The events of a response: their names and their data."""
    response = await post({"query": query}, services=services, accept="text/event-stream")
    assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
    content = (
        response.body if isinstance(response.body, bytes) else b"".join([one async for one in response.body])
    )
    found = [one.split(b"\n") for one in content.split(b"\n\n") if one not in (b"", b":")]
    return [(name[7:].decode(), json.loads(data[6:] or b"null")) for name, data in found]


async def test_events_of_a_stream_are_results_of_a_subscription() -> None:
    services = Services()
    services.events = [b'{"order": {"id": 1, "user_id": 2}}', b'{"order": {"id": 3, "user_id": 99}}']
    found = await events('subscription { placed(user: "2") { id user { name } } }', services)
    assert found == [
        ("next", {"data": {"placed": {"id": "1", "user": {"name": "user 2"}}}}),
        ("next", {"data": {"placed": {"id": "3", "user": None}}}),
        ("complete", None),
    ]
    assert services.paths == ["/placed?user=2", "/users/2", "/users/99"]
    assert services.calls[0].headers["accept"] == "text/event-stream"


@pytest.mark.parametrize(
    ("services", "codes"),
    [
        (Services(lambda _call: answer({"secret": 1}, 500)), ["UPSTREAM_ERROR"]),
        (Services(lambda _call: answer({"secret": 1})), ["UPSTREAM_INVALID_RESPONSE"]),
    ],
)
async def test_a_subscription_that_cannot_begin_is_one_error(services: Services, codes: list[str]) -> None:
    (_, value), complete = await events("subscription { placed { id } }", services)
    assert [one["extensions"]["code"] for one in value["errors"]] == codes
    assert complete[0] == "complete"
    assert "secret" not in json.dumps(value)


async def test_a_bad_event_ends_a_subscription() -> None:
    services = Services()
    services.events = [b'{"order": {"id": 1}}', b"secret", b'{"order": {"id": 2}}']
    first, second, complete = await events("subscription { placed { id } }", services)
    assert first[1] == {"data": {"placed": {"id": "1"}}}
    assert second[1]["errors"][0]["extensions"]["code"] == "UPSTREAM_INVALID_RESPONSE"
    assert complete == ("complete", None)


async def test_a_caller_may_not_subscribe_to_every_field() -> None:
    services = Services()
    (_, value), _ = await events("subscription { salaries }", services)
    assert (value["errors"][0]["extensions"]["code"], services.calls) == ("FORBIDDEN", [])


async def test_a_query_can_be_answered_by_events() -> None:
    assert await events(QUERY, Services()) == [("next", NAME), ("complete", None)]


async def test_a_subscription_needs_events() -> None:
    assert code(await post({"query": "subscription { salaries }"})) == "SUBSCRIPTION_NOT_ACCEPTED"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("application/json; charset=utf-8", JSON),
        ("application/graphql-response+json, application/json;q=0.9", RESPONSE_JSON),
        ("application/json;q=0.5, application/graphql-response+json;q=0.4", JSON),
        ("text/html", None),
        ("application/json;q=x", None),
    ],
)
def test_the_media_type_is_negotiated(accept: str | None, expected: str | None) -> None:
    assert media_type(accept) == expected


HONEST = re.sub(r"  (me|strict): .*\n|(?s:type Subscription .*?\n}\n)", "", SDL).replace(
    "user(id: ID!)", "user(id: Int!)"
)
"""The schema without fields that fail, whatever the arguments are."""
CONTEXT = RequestContext(plan="pro", claims={"scope": "hr.read", "realm": {"roles": ["staff"]}})


async def _served(request: web.Request) -> web.Response:
    found = HttpRequest(
        method=request.method,
        query=request.rel_url.raw_query_string,
        headers={name.lower(): text for name, text in request.headers.items()},
        body=await request.read(),
    )
    at = endpoint(introspection=True, sdl=HONEST, cost=10**9, depth=100, aliases=1000, calls=10_000)
    response = await at.respond(found, Services(), CONTEXT)
    assert isinstance(response.body, bytes)
    return web.Response(status=response.status, headers=response.headers, body=response.body)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """The URL of an HTTP server that has nothing but the endpoint."""
    application = web.Application()
    application.router.add_route("*", "/graphql", _served)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/graphql"
    await runner.cleanup()


async def test_the_audits_of_graphql_over_http_pass(url: str) -> None:
    folder = await asyncio.to_thread(graphql_audit.installed)
    assert await asyncio.to_thread(graphql_audit.failures, folder, url) == []


OPTIONS = (
    "--phases fuzzing --max-examples 30 --seed 12 --generation-deterministic --suppress-health-check all --workers 1 "
    "--request-timeout 60 --no-color --continue-on-failure --warnings off"
)


async def test_schemathesis_finds_nothing(url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", url, *OPTIONS.split()]
    done = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(done.communicate(), 300)
    assert done.returncode == 0, output.decode()[-10_000:]
    assert "passed" in output.decode()
