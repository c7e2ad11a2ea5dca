"""validate by JSON Schema and OpenAPI through a real Envoy and a policy server."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import pytest

from tests.support.backend import Backend
from tests.support.policy_server import Stack, Stacks
from tests.support.wait import wait_for

USER = """
type: object
required: [name]
properties:
  name: {type: string, maxLength: 5}
  email: {type: string, format: email}
  friends: {type: array, items: {$ref: "#"}}
additionalProperties: false
"""
OPENAPI = """
openapi: 3.1.1
servers: [{url: /api}]
paths:
  /users/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
    get:
      parameters: [{name: limit, in: query, schema: {type: integer, maximum: 10}}]
      responses:
        '200': {description: "", content: {application/json: {schema: {type: object, required: [id]}}}}
    put:
      requestBody: {required: true, content: {application/json: {schema: {type: object, required: [name]}}}}
      responses: {default: {description: ""}}
  /files:
    post:
      requestBody: {content: {application/octet-stream: {}}}
      responses: {default: {description: ""}}
"""
YAML = """
listeners: {http: {port: $port, address: 127.0.0.1, trust_request_id: true}}
upstreams: {echo: {endpoints: ["$echo"]}}
errors: {invalid_response: {status: 502, title: Bad upstream}}
routes:
  schema: {path: /schema, upstream: echo, policies: {validate: {json_schema: user.yaml, formats: true, max_body: 64KiB}}}
  both:
    path: /both
    upstream: echo
    policies: {validate: {response_schema: {schema: {type: object, required: [id]}}}}
  shadow:
    path: /shadow
    upstream: echo
    policies: {validate: {json_schema: user.yaml, requests: shadow, response_schema: {schema: {type: array}}, responses: shadow}}
  api: {path: /api/*, upstream: echo, policies: {validate: {openapi: openapi.yaml, responses: enforce}}}
  key: {path: /key, upstream: echo, policies: {validate: {json_schema: user.yaml}, authorize: {consumers: [nobody]}, api_key: true}}
plans: {free: {}}
consumers: {nobody: {plan: free, api_keys: [{sha256: "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"}]}}
"""
ID = "0b3a1f0e-5c1d-4c0e-9b7a-111111111111"
JSON = {"content-type": "application/json", "x-request-id": ID}


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend) -> Stack:
    return stacks.start(YAML, files={"user.yaml": USER, "openapi.yaml": OPENAPI}, echo=backend.address)


@pytest.fixture
def echo(backend: Backend) -> Iterator[Backend]:
    backend.seen.clear()
    yield backend
    backend.status, backend.body, backend.headers = 200, None, {}


def test_a_valid_body_reaches_the_backend_as_it_was_sent(stack: Stack, echo: Backend) -> None:
    for body in ('{"name": "ann"}', '{ "name":"\\u0061", "friends": [{"name": "b"}] }'):
        answer = stack.request("POST", "/schema", content=body, headers=JSON)
        assert answer.status_code == 200, answer.text
        assert echo.seen[-1]["body"] == body
    compressed = gzip.compress(b'{"name": "ann"}')
    answer = stack.request(
        "POST", "/schema", content=compressed, headers={**JSON, "content-encoding": "gzip"}
    )
    assert answer.status_code == 200, answer.text
    assert echo.seen[-1]["headers"]["content-length"] == str(len(compressed))


def test_every_fault_is_told_with_its_place(stack: Stack, echo: Backend) -> None:
    body = '{"name": "abcdef", "email": "x", "friends": [{"name": 1}, {}], "other": 1}'
    answer = stack.request("POST", "/schema", content=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-gateway-reason"] == "invalid_request"
    problem = answer.json()
    assert sorted((one["pointer"], one["detail"]) for one in problem.pop("errors")) == [
        ("#", "Additional properties are not allowed ('other' was unexpected)"),
        ("#/email", 'the value is not a "email"'),
        ("#/friends/0/name", 'the value is not of type "string"'),
        ("#/friends/1", '"name" is a required property'),
        ("#/name", "the value is longer than 5 characters"),
    ]
    assert problem == {
        "type": "about:blank",
        "title": "The request is invalid",
        "status": 400,
        "reason": "invalid_request",
        "request_id": ID,
        "detail": "The request does not match the schema of this route.",
    }
    assert not echo.seen


BAD = [
    (b"", JSON, 400, "invalid_request"),
    (b"{", JSON, 400, "malformed_body"),
    (b'{"name": "a", "name": "b"}', JSON, 400, "malformed_body"),
    (b"[" * 10_000, JSON, 400, "malformed_body"),
    (b'"\xff"', JSON, 400, "malformed_body"),
    (b"NaN", JSON, 400, "malformed_body"),
    (b'{"name": "a"}', {"content-type": "text/plain"}, 415, "unsupported_media_type"),
    (b'{"name": "a"}', {}, 415, "unsupported_media_type"),
    (b'{"name": "a"}', {"content-type": "application/json; charset=utf-16"}, 415, "unsupported_charset"),
    (
        b'{"name": "a"}',
        {"content-type": 'application/json;CharSet=UTF-8; charset="utf-7"'},
        415,
        "unsupported_charset",
    ),
    (b"x", {**JSON, "content-encoding": "gzip"}, 400, "malformed_content_coding"),
    (b"x", {**JSON, "content-encoding": "lzw"}, 415, "unsupported_content_coding"),
    (gzip.compress(b" " * 100_000, mtime=0), {**JSON, "content-encoding": "gzip"}, 413, "body_too_large"),
    (b" " * 100_000, JSON, 413, "body_too_large"),
]


@pytest.mark.parametrize(("body", "headers", "status", "reason"), BAD, ids=lambda one: str(one)[:30])
def test_what_is_no_valid_body_is_rejected(
    stack: Stack, echo: Backend, body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    answer = stack.request("POST", "/schema", content=body, headers=headers)
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (status, reason)
    assert answer.json()["reason"] == reason
    assert not echo.seen


def test_requests_without_a_body_need_none(stack: Stack, echo: Backend) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        assert stack.request(method, "/schema").status_code == 200
    assert len(echo.seen) == 3


def test_a_response_is_compared(stack: Stack, echo: Backend) -> None:
    echo.body = b'{"id": 1}'
    assert stack.get("/both").content == echo.body
    echo.body = b'{"name": 1}'
    answer = stack.get("/both")
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (502, "invalid_response")
    problem = answer.json()
    assert (problem["title"], problem["status"]) == ("Bad upstream", 502)
    assert "name" not in problem
    echo.body, echo.headers = b'{"id": 1}', {"content-type": "application/json; charset=utf-16"}
    assert stack.get("/both").headers["x-gateway-reason"] == "invalid_response"
    echo.body, echo.headers = b'{"name": 1}', {}
    echo.status = 404
    assert stack.get("/both").json() == {"name": 1}
    echo.status = 200
    assert stack.request("HEAD", "/both").status_code == 200


def test_shadow_only_reports(stack: Stack, echo: Backend) -> None:
    for body in (b"{", b'{"name": 1}', b""):
        assert stack.request("POST", "/shadow", content=body, headers=JSON).status_code == 200
    told = stack.policy_server.metrics()
    for message, reason, count in (
        ("request", "malformed_body", 1),
        ("request", "invalid_request", 2),
        ("response", "invalid_response", 3),
    ):
        line = f'xds_invalid_messages_total{{message="{message}",reason="{reason}",route="shadow"}} {count}.0'
        assert line in told
    assert "request does not match its schema route=shadow" in stack.policy_server.log


def test_openapi_describes_parameters_methods_and_bodies(stack: Stack, echo: Backend) -> None:
    echo.body = b'{"id": 1}'
    assert stack.get("/api/users/1?limit=10").status_code == 200
    answer = stack.get("/api/users/x?limit=11")
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (400, "invalid_request")
    assert answer.json()["errors"] == [
        {"parameter": "id", "in": "path", "detail": 'the value is not of type "integer"'},
        {"parameter": "limit", "in": "query", "detail": "the value is greater than the maximum of 10"},
    ]
    answer = stack.request("DELETE", "/api/users/1")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, PUT")
    answer = stack.get("/api/none")
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_found")
    assert stack.request("PUT", "/api/users/1", content="{}", headers=JSON).status_code == 400
    assert stack.request("PUT", "/api/users/1", content='{"name": 1}', headers=JSON).status_code == 200
    latin = {"content-type": "application/json; charset=latin1"}
    answer = stack.request("PUT", "/api/users/1", content='{"name": 1}', headers=latin)
    assert (answer.status_code, answer.json()["reason"]) == (415, "unsupported_charset")
    echo.body = b"{}"
    answer = stack.get("/api/users/1")
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (502, "invalid_response")


def test_a_body_without_a_schema_may_be_large(stack: Stack, echo: Backend) -> None:
    headers = {"content-type": "application/octet-stream"}
    answer = stack.request("POST", "/api/files", content=b"x" * 5_000_000, headers=headers)
    assert answer.status_code == 200
    assert len(echo.seen[-1]["body"]) == 5_000_000


def test_the_caller_is_identified_before_the_body_is_read(stack: Stack, echo: Backend) -> None:
    answer = stack.request("POST", "/key", content=b"{", headers=JSON)
    assert (answer.status_code, answer.json()["reason"]) == (401, "api_key_missing")
    answer = stack.request("POST", "/key", content=b"{", headers={**JSON, "x-api-key": "password"})
    assert (answer.status_code, answer.json()["reason"]) == (400, "malformed_body")


def test_a_changed_schema_is_used_without_a_lost_request(stacks: Stacks, echo: Backend) -> None:
    text = """
    listeners: {http: {port: $port, address: 127.0.0.1}}
    upstreams: {echo: {endpoints: ["$echo"]}}
    routes: {a: {path: /a, upstream: echo, policies: {validate: {json_schema: s.json}}}}
    """
    stack = stacks.start(text, files={"s.json": '{"maximum": 1}'}, echo=echo.address)

    def status() -> int:
        return stack.request("POST", "/a", content=json.dumps(2), headers=JSON).status_code

    assert status() == 400
    (stack.folder / "s.json").write_text('{"maximum": 3}')
    stack.publish()
    seen = set()
    wait_for(lambda: seen.add(status()) or 200 in seen, "the new schema")
    assert seen <= {400, 200}
