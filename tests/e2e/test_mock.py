"""Mocks of upstreams through a real Envoy and a real policy server."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.policy_server import Stack, Stacks
from tests.support.wait import wait_for

KEYS = {"free": "key-of-free", "sandbox": "key-of-sandbox"}
YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
plans: {free: {rate_limit: 1000/hour}, sandbox: {rate_limit: 3/hour}}
consumers:
  anna: {plan: free, api_keys: [{sha256: $free}]}
  ben: {plan: sandbox, api_keys: [{sha256: $sandbox}]}
upstreams:
  mocked: {mock: orders.yaml}
  mixed: {endpoints: ["$echo"], mock: {file: orders.yaml, base_path: /mixed, plans: [sandbox]}}
  random: {mock: {file: orders.yaml, base_path: /random, dynamic: true}}
policies: {request_id: true}
routes:
  mocked: {path: /v1/*, upstream: mocked, response_headers: {set: {x-route: mocked}}}
  mixed: {path: /mixed/*, upstream: mixed, policies: {api_key: true}}
  random: {path: /random/*, upstream: random}
  checked: {path: /v1/checked, upstream: mocked, policies: {validate: {required_headers: [x-needed]}}}
"""
DOCUMENT = """
openapi: 3.1.0
info: {title: Orders, version: "1"}
servers: [{url: https://api.example.com/v1}]
paths:
  /orders:
    get:
      responses:
        200: {description: some, content: {application/json: {example: [{id: a}]}}}
        404: {description: none, content: {application/json: {examples: {gone: {value: {error: gone}}, never: {value: 50%}}}}}
        500: {description: failed, content: {text/plain: {example: sorry}}}
    post: {responses: {201: {description: made, headers: {location: {example: /orders/a}}, content: {application/json: {example: {id: a}}}}}}
  /orders/{id}: {parameters: [{name: id, in: path}], get: {responses: {200: {description: one, content: {application/json: {schema: {type: object, properties: {n: {type: integer}}}}}}}}}
  /checked: {get: {responses: {204: {description: none}}}}
"""


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend) -> Stack:
    hashes = {plan: hashlib.sha256(key.encode()).hexdigest() for plan, key in KEYS.items()}
    return stacks.start(YAML, files={"orders.yaml": DOCUMENT}, echo=backend.address, **hashes)


def _get(stack: Stack, path: str, method: str = "GET", **options: Any) -> httpx.Response:
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        return client.request(method, path, **options)


def test_an_upstream_without_endpoints_answers(stack: Stack) -> None:
    response = _get(stack, "/v1/orders")
    assert (response.status_code, response.json()) == (200, [{"id": "a"}])
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-route"] == "mocked"
    assert response.headers["x-request-id"]
    assert "x-gateway-reason" not in response.headers


@pytest.mark.parametrize(
    ("prefer", "status", "body"),
    [
        ("code=404, example=gone", 404, '{"error": "gone"}'),
        ("code=404, example=never", 404, '"50%"'),
        ("code=500", 500, "sorry"),
    ],
)
def test_responses_of_the_document_stay_as_they_are(
    stack: Stack, prefer: str, status: int, body: str
) -> None:
    response = _get(stack, "/v1/orders", headers={"prefer": prefer})
    assert (response.status_code, response.text) == (status, body)
    assert "x-gateway-reason" not in response.headers
    assert response.headers["preference-applied"]


def test_a_request_with_a_body_is_answered_behind_it(stack: Stack) -> None:
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        for size in (0, 3, 500_000):
            response = client.post("/v1/orders", content=b"x" * size)
            assert (response.status_code, response.json()) == (201, {"id": "a"})
            assert response.headers["location"] == "/orders/a"
        assert client.post("/v1/orders", content=b"x" * 2_000_000).status_code == 413


def test_what_the_document_has_not_is_a_problem_with_a_reason(stack: Stack) -> None:
    for path, prefer, status in (("/v1/nowhere", "", 404), ("/v1/orders", "code=402", 404)):
        response = _get(stack, path, headers={"prefer": prefer})
        assert response.status_code == status
        assert response.headers["x-gateway-reason"] == "mock_unanswered"
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert (problem["status"], problem["reason"]) == (status, "mock_unanswered")
        assert problem["request_id"] == response.headers["x-request-id"]
    response = _get(stack, "/v1/orders", "DELETE")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


def test_other_policies_of_the_route_come_first(stack: Stack) -> None:
    assert _get(stack, "/v1/checked").status_code == 400
    assert _get(stack, "/v1/checked", headers={"x-needed": "1"}).status_code == 204


def test_a_plan_has_a_test_environment_with_its_limits(stack: Stack, backend: Backend) -> None:
    real = _get(stack, "/mixed/orders", headers={"x-api-key": KEYS["free"]})
    assert (real.status_code, real.json()["path"]) == (200, "/mixed/orders")
    sent = _get(stack, "/mixed/orders", "POST", content=b"body", headers={"x-api-key": KEYS["free"]})
    assert sent.json()["body"] == "body"
    backend.seen.clear()
    for left in ("2", "1", "0"):
        mocked = _get(stack, "/mixed/orders", headers={"x-api-key": KEYS["sandbox"]})
        assert mocked.json() == [{"id": "a"}]
        assert mocked.headers["x-ratelimit-remaining"] == left
    assert _get(stack, "/mixed/orders", headers={"x-api-key": KEYS["sandbox"]}).status_code == 429
    assert _get(stack, "/mixed/orders").status_code == 401
    assert backend.seen == []


def test_random_values_differ_unless_the_client_wants_none(stack: Stack) -> None:
    values = {_get(stack, "/random/orders/7").json()["n"] for _ in range(20)}
    assert len(values) > 1
    still = {
        _get(stack, "/random/orders/7", headers={"prefer": "dynamic=false"}).json()["n"] for _ in range(5)
    }
    assert still == {0}
    dynamic = _get(stack, "/v1/orders/7", headers={"prefer": "dynamic=true"})
    assert dynamic.headers["preference-applied"] == "dynamic=true"


def test_another_document_takes_over(stacks: Stacks) -> None:
    text = "listeners: {http: {port: $port, address: 127.0.0.1}}\nupstreams: {a: {mock: a.yaml}}\nroutes: {a: {path: /*, upstream: a}}\n"
    document = "openapi: 3.1.0\ninfo: {title: a, version: '1'}\npaths: {/a: {get: {responses: {200: {description: x, content: {text/plain: {example: EXAMPLE}}}}}}}\n"
    stack = stacks.start(text, files={"a.yaml": document.replace("EXAMPLE", "one")})
    assert _get(stack, "/a").text == "one"
    stack.write(text, {"a.yaml": document.replace("EXAMPLE", "two")})
    stack.publish()
    wait_for(lambda: _get(stack, "/a").text == "two", "the other document")
