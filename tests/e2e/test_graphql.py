"""GraphQL through the real Envoy: the query goes to the composer, and its calls go back through Envoy."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import graphql_audit
from tests.support.graphql_backend import ShopBackend
from tests.support.graphql_shop import SDL
from tests.support.running import Served
from tests.support.wait import wait_for

PERSISTED = "query Name { user(id: 2) { name } }"
OPENAPI = """
openapi: 3.1.0
info: {title: users, version: "1"}
paths:
  /users/{id}:
    get:
      operationId: getUser
      parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
      responses: {"200": {description: "", content: {application/json: {schema: {$ref: "#/components/schemas/Person"}}}}}
components: {schemas: {Person: {type: object, properties: {id: {type: integer}, email: {type: string}}}}}
"""
GATEWAY = """
listeners: {http: {port: $port, access_log: true}}
upstreams:
  users: {endpoints: [$users]}
  orders: {endpoints: [$users]}
consumers: {acme: {plan: pro, api_keys: [{sha256: $key}]}}
plans: {pro: {}}
routes:
  version: {path: /version, respond: {body: "$version"}}
  graphql:
    path: /graphql
    timeout: 5s
    graphql: {schema: schema.graphql, limits: {operations: 3}, max_answer: 100KB}
    policies: {api_key: {optional: true}, request_headers: {remove: [x-private]}}
  cached:
    path: /cached
    graphql: {schema: schema.graphql}
    policies: {api_key: {optional: true}, cache: 60s}
  open:
    path: /open
    graphql: {schema: honest.graphql, introspection: true, limits: {cost: 1000000000, depth: 100, aliases: 1000, calls: 10000}}
  events:
    path: /events
    timeout: 0
    graphql: {schema: schema.graphql}
  limited:
    path: /limited
    graphql: {schema: schema.graphql}
    policies:
      rate_limit:
        - {requests: 20, per: month, cost: graphql, by: "header:x-client"}
        - {requests: 1000, per: month, by: "header:x-client"}
  persisted:
    path: /persisted
    graphql: {schema: schema.graphql, persisted: {files: ["queries/*.graphql"]}}
  generated:
    path: /generated
    graphql: {from_openapi: [{file: openapi.yml, upstream: users}]}
"""
HONEST = re.sub(r"  (me|strict|email|salary): .*\n|(?s:type Subscription .*?\n}\n)", "", SDL).replace(
    "user(id: ID!)", "user(id: Int!)"
)
"""The schema without fields that fail, whatever the arguments and the caller are."""


@pytest.fixture(scope="module")
def backend() -> Iterator[ShopBackend]:
    with ShopBackend() as running:
        yield running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, backend: ShopBackend) -> Iterator[Served]:
    root = Path(tmp_path_factory.mktemp("graphql"))
    key = hashlib.sha256(b"secret-key").hexdigest()
    running = Served(root, GATEWAY, users=backend.address, key=key)
    running.folder.mkdir()
    (running.folder / "schema.graphql").write_text(SDL)
    (running.folder / "honest.graphql").write_text(HONEST)
    (running.folder / "queries").mkdir()
    (running.folder / "queries" / "name.graphql").write_text(f"{PERSISTED}\n")
    (running.folder / "openapi.yml").write_text(OPENAPI)
    running.write("1")
    with running:
        running.until("1")
        yield running


def ask(served: Served, query: str, path: str = "/graphql", **more: Any) -> httpx.Response:
    """The response to a query."""
    headers = {"accept": "application/graphql-response+json", **more.pop("headers", {})}
    return httpx.post(f"{served.url}{path}", json={"query": query, **more}, headers=headers, timeout=30)


def test_one_query_becomes_few_calls(served: Served, backend: ShopBackend) -> None:
    backend.seen.clear()
    response = ask(served, "{ users(first: 3) { name orders { total } } }", headers={"traceparent": TRACE})
    assert response.status_code == 200
    assert "errors" not in response.json(), (response.text, served.log[-3000:])
    assert response.json()["data"]["users"][0] == {"name": "user 1", "orders": [{"total": 1}, {"total": 2}]}
    assert backend.paths() == ["/users?limit=3", "/orders?users=1,2,3"]
    assert response.headers["x-graphql-cost"] == "33"
    assert all(one.headers["traceparent"].split("-")[1] == TRACE.split("-")[1] for one in backend.seen)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_calls_have_the_headers_of_the_client(served: Served, backend: ShopBackend) -> None:
    backend.seen.clear()
    sent = {"cookie": "a=b", "authorization": "Basic x", "x-private": "1", "if-none-match": "x"}
    assert "errors" not in ask(served, "{ user(id: 3) { id } }", headers=sent).json()
    (seen,) = backend.seen
    assert (seen.headers["cookie"], seen.headers["authorization"]) == ("a=b", "Basic x")
    assert seen.headers["accept"] == "application/json"
    assert not {"x-private", "if-none-match", "content-type"}.intersection(seen.headers)


def test_the_cache_has_no_errors_and_each_media_type_for_itself(served: Served, backend: ShopBackend) -> None:
    def got(accept: str) -> httpx.Response:
        headers = {"accept": accept, "x-api-key": "secret-key"}
        url = f"{served.url}/cached"
        return httpx.get(url, params={"query": "{ broken { id } }"}, headers=headers, timeout=30)

    backend.answer("/broken", {}, status=500)
    assert got("application/json").json()["data"] == {"broken": None}
    backend.answer("/broken", {"id": 7})
    assert got("application/json").json() == {"data": {"broken": {"id": "7"}}}
    backend.answer("/broken", {"id": 8})
    assert got("application/json").json() == {"data": {"broken": {"id": "7"}}}, "it is in the cache"
    other = got("application/graphql-response+json")
    assert other.headers["content-type"].startswith("application/graphql-response+json")


def test_mutations_send_json(served: Served, backend: ShopBackend) -> None:
    backend.seen.clear()
    query = "mutation ($lines: [Line!]) { place(user: 1, lines: $lines) { id user { name } } }"
    response = ask(served, query, variables={"lines": [{"sku": "x"}]})
    assert response.json() == {"data": {"place": {"id": "1", "user": {"name": "user 1"}}}}
    post, _ = backend.seen
    assert (post.method, json.loads(post.body)["lines"]) == ("POST", [{"sku": "x", "count": 1}])


def test_fields_are_allowed_by_plan(served: Served) -> None:
    query = "{ user(id: 1) { name email } }"
    refused = ask(served, query).json()
    assert refused["data"] == {"user": {"name": "user 1", "email": None}}
    assert refused["errors"][0]["path"] == ["user", "email"]
    assert refused["errors"][0]["extensions"] == {"code": "FORBIDDEN"}
    allowed = ask(served, query, headers={"x-api-key": "secret-key"}).json()
    assert allowed == {"data": {"user": {"name": "user 1", "email": "1@example.com"}}}


def test_a_caller_cannot_say_who_it_is(served: Served) -> None:
    forged = {"x-gateway-caller": json.dumps({"plan": "pro"}), "x-consumer-plan": "pro"}
    assert ask(served, "{ user(id: 1) { email } }", headers=forged).json()["data"] == {
        "user": {"email": None}
    }


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({"json": {"secret": 1}, "status": 500}, "UPSTREAM_ERROR"),
        ({"body": b"<p>secret</p>"}, "UPSTREAM_INVALID_RESPONSE"),
        ({"json": "secret" * 100_000}, "UPSTREAM_RESPONSE_TOO_LARGE"),
        ({"json": "secret" * 100, "cut_off": True}, "UPSTREAM_UNREACHABLE"),
        ({"json": {"id": {"secret": 1}}}, "UPSTREAM_INVALID_RESPONSE"),
    ],
    ids=["failed", "no JSON", "too large", "cut off", "unfit"],
)
def test_a_failed_part_is_null_with_its_error(
    served: Served, backend: ShopBackend, script: dict[str, Any], code: str
) -> None:
    backend.answer("/broken", **script)
    response = ask(served, "{ broken { id } user(id: 1) { id } }")
    assert response.status_code == 200
    assert response.json()["data"] in (
        {"broken": None, "user": {"id": "1"}},
        {"broken": {"id": None}, "user": {"id": "1"}},
    )
    error = response.json()["errors"][0]
    assert (error["path"][0], error["extensions"]["code"]) == ("broken", code)
    assert "secret" not in response.text


def test_a_slow_call_fails_alone(served: Served, backend: ShopBackend) -> None:
    slow = backend.answer("/slow", {"id": 1}, release=threading.Event())
    response = ask(served, "{ slow { id } user(id: 1) { id } }")
    assert response.json()["data"] == {"slow": None, "user": {"id": "1"}}
    assert response.json()["errors"][0]["extensions"]["code"] == "UPSTREAM_TIMEOUT"
    assert slow.given_up.wait(20)


def test_a_client_that_goes_away_cancels_the_calls(served: Served, backend: ShopBackend) -> None:
    slow = backend.answer("/users/6", {"id": 6}, release=threading.Event())
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{served.url}/graphql", json={"query": "{ user(id: 6) { id } }"}, timeout=1)
    assert slow.given_up.wait(20)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{ me {" + "boss {" * 20 + "id" + "}" * 22, "TOO_DEEP"),
        ("{" + " ".join(f"a{one}: me {{ id }}" for one in range(40)) + "}", "TOO_MANY_ALIASES"),
        ("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }", "GRAPHQL_VALIDATION_FAILED"),
        ("#" + "x" * 500_000 + "\n{ me { id } }", "DOCUMENT_TOO_LARGE"),
        ("{ users(first: 100000) { id } }", "COST_TOO_HIGH"),
        ("{ __schema { types { name } } }", "INTROSPECTION_DISABLED"),
    ],
    ids=["deep", "aliases", "circle", "large", "cost", "introspection"],
)
def test_hostile_queries_make_no_call(served: Served, backend: ShopBackend, query: str, code: str) -> None:
    backend.seen.clear()
    response = ask(served, query)
    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (400, code)
    assert backend.seen == []


def test_only_persisted_documents_are_executed(served: Served) -> None:
    name = hashlib.sha256(PERSISTED.encode()).hexdigest()
    found = served.get("/persisted", params={"documentId": f"sha256:{name}"})
    assert found.json() == {"data": {"user": {"name": "user 2"}}}
    refused = ask(served, "{ user(id: 1) { id } }", "/persisted")
    assert refused.json()["errors"][0]["extensions"]["code"] == "PERSISTED_QUERY_ONLY"


def test_a_document_that_is_added_to_the_folder_is_executed(served: Served) -> None:
    query = "query Added { user(id: 3) { name } }"
    asked = {"documentId": f"sha256:{hashlib.sha256(query.encode()).hexdigest()}"}
    unknown = served.get("/persisted", params=asked).json()
    assert unknown["errors"][0]["extensions"]["code"] == "PERSISTED_QUERY_NOT_FOUND"
    (served.folder / "queries" / "added.graphql").write_text(query)
    wait_for(lambda: "data" in served.get("/persisted", params=asked).json(), "the new document")
    assert served.get("/persisted", params=asked).json() == {"data": {"user": {"name": "user 3"}}}


def test_the_cost_of_operations_is_limited(served: Served, backend: ShopBackend) -> None:
    one, other = {"x-client": "one"}, {"x-client": "other"}

    def left(headers: dict[str, str]) -> str:
        # an operation that is refused costs nothing
        limits = ask(served, "{ nothing }", "/limited", headers=headers).headers["ratelimit"]
        return limits.partition("graphql-cost")[2].partition("r=")[2].partition(";")[0]

    assert left(one) == "20"
    query = "{ users(first: 15) { id } }"
    assert ask(served, query, "/limited", headers=one).status_code == 200
    wait_for(lambda: left(one) == "5", "the cost to be counted")
    assert ask(served, query, "/limited", headers=one).status_code == 200, "it is counted behind the request"
    wait_for(
        lambda: ask(served, query, "/limited", headers=one).status_code == 429, "the limit to be exceeded"
    )
    assert ask(served, query, "/limited", headers=other).status_code == 200


def test_a_client_that_leaves_before_the_answer_pays_the_most_that_it_could_cost(
    served: Served, backend: ShopBackend
) -> None:
    slow = backend.answer("/users/9", {"id": 9}, release=threading.Event())
    sent = {"x-client": "impatient"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{served.url}/limited", json={"query": "{ user(id: 9) { id } }"}, headers=sent, timeout=1)
    assert slow.given_up.wait(20)
    wait_for(
        lambda: ask(served, "{ nothing }", "/limited", headers=sent).status_code == 429,
        "the cost to be counted",
    )


def test_an_openapi_document_is_a_schema(served: Served) -> None:
    response = ask(served, "{ getUser(id: 3) { id email } }", "/generated")
    assert response.json() == {"data": {"getUser": {"id": 3, "email": "3@example.com"}}}


def test_a_list_of_operations_has_a_list_of_results(served: Served) -> None:
    content = [{"query": "{ user(id: 1) { id } }"}, {"query": "{ nothing }"}]
    response = httpx.post(f"{served.url}/graphql", json=content, timeout=30)
    assert [("data" in one) for one in response.json()] == [True, False]


def test_deferred_parts_are_streamed(served: Served, backend: ShopBackend) -> None:
    late = backend.answer("/orders", [{"id": 1, "user_id": 5, "total": 3}], release=threading.Event())
    query = "{ user(id: 5) { id ... @defer { orders { total } } } }"
    headers = {"accept": "multipart/mixed"}
    with httpx.stream(
        "POST", f"{served.url}/graphql", json={"query": query}, headers=headers, timeout=30
    ) as response:
        assert response.headers["content-type"] == 'multipart/mixed; boundary="-"'
        parts = response.iter_text()
        text = ""
        while "pending" not in text:
            text += next(parts)
        assert "total" not in text
        assert late.release is not None
        late.release.set()
        text += "".join(parts)
    del backend.answers["/orders"]
    assert '"total":3' in text
    assert text.endswith("-----\r\n")


def test_events_of_an_upstream_are_results_of_a_subscription(served: Served, backend: ShopBackend) -> None:
    query = {"query": "subscription { placed(user: 2) { id user { name } } }"}
    headers = {"accept": "text/event-stream"}
    with httpx.stream("POST", f"{served.url}/events", json=query, headers=headers, timeout=30) as response:
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
        lines = (line for line in response.iter_lines() if line.startswith(("event", "data")))
        backend.events.put(b'{"order": {"id": 1, "user_id": 2}}')
        assert next(lines) == "event: next"
        assert next(lines) == 'data: {"data":{"placed":{"id":"1","user":{"name":"user 2"}}}}'
        backend.events.put(b'{"order": {"id": 2}}')
        backend.events.put(None)
        assert [*lines] == [
            "event: next",
            'data: {"data":{"placed":{"id":"2","user":null}}}',
            "event: complete",
            "data:",
        ]


def test_a_client_that_leaves_ends_the_stream_of_the_upstream(served: Served, backend: ShopBackend) -> None:
    backend.left.clear()
    url, query = f"{served.url}/events", {"query": "subscription { placed { id } }"}
    with httpx.stream(
        "GET", url, params=query, headers={"accept": "text/event-stream"}, timeout=30
    ) as response:
        backend.events.put(b'{"order": {"id": 1}}')
        assert next(line for line in response.iter_lines() if line.startswith("data")).startswith("data: {")
    assert backend.left.wait(20)


def test_a_schema_that_changes_is_used_without_a_failed_request(served: Served, backend: ShopBackend) -> None:
    statuses: list[str] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            statuses.append(ask(served, "{ user(id: 1) { name } }").text)

    thread = threading.Thread(target=load)
    thread.start()
    (served.folder / "schema.graphql").write_text(
        SDL.replace("type User {", 'type User { nick: String @value(from: "full.name")')
    )
    served.write("2")
    wait_for(lambda: "errors" not in ask(served, "{ user(id: 1) { nick } }").json(), "the new schema")
    (served.folder / "schema.graphql").write_text(SDL.replace("type User {", "type User { broken: Nothing"))
    served.write("3")
    served.says("Unknown type 'Nothing'")
    assert ask(served, "{ user(id: 1) { nick } }").json() == {"data": {"user": {"nick": "user 1"}}}
    done.set()
    thread.join()
    assert set(statuses) == {'{"data":{"user":{"name":"user 1"}}}'}
    (served.folder / "schema.graphql").write_text(SDL)
    served.write("4")
    served.until("4")


async def test_the_audits_of_graphql_over_http_pass(served: Served) -> None:
    folder = await asyncio.to_thread(graphql_audit.installed)
    assert await asyncio.to_thread(graphql_audit.failures, folder, f"{served.url}/open") == []


OPTIONS = (
    "--phases fuzzing --max-examples 10 --seed 12 --generation-deterministic --suppress-health-check all --workers 1 "
    "--request-timeout 60 --no-color --continue-on-failure --warnings off"
)


def test_schemathesis_finds_nothing(served: Served, backend: ShopBackend, tmp_path: Path) -> None:
    backend.answers.clear()
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/open", *OPTIONS.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
