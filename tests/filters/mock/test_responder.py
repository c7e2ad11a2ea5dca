"""Which response of a document answers a request."""

from __future__ import annotations

import json
import random

import pytest

from filters.api_documents import openapi
from filters.mock.preferences import Preferences, best_type, preferences
from filters.mock.responder import Found, Responder

DOCUMENT = b"""
openapi: 3.1.0
info: {title: a, version: "1"}
paths:
  /orders:
    get:
      responses:
        404: {description: none, content: {application/problem+json: {example: {title: gone}}}}
        201: {description: later}
        200:
          description: some
          headers:
            X-Total: {schema: {type: integer, example: 7}}
            X-List: {schema: {type: array, items: {type: string}}, example: [a, b]}
            Content-Length: {schema: {type: integer}}
            X-Envoy-Attempts: {schema: {type: integer, default: 3}}
          content:
            text/csv: {example: "a,b"}
            application/json:
              schema: {type: array, items: {$ref: "#/components/schemas/Order"}}
              examples: {two: {value: [1, 2]}, none: {value: []}, far: {externalValue: "https://example.com"}}
        5XX: {description: failure, content: {text/plain: {schema: {const: sorry}}}}
    post: {responses: {default: {description: any, content: {"*/*": {example: done}}}}}
  /orders/last: {get: {responses: {200: {description: x, content: {text/plain: {example: last}}}}}}
  /orders/{id}:
    parameters: [{name: id, in: path, required: true}]
    get: {responses: {200: {description: x, content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}}}
    delete: {responses: {204: {description: gone, content: {text/plain: {example: never}}}}}
    put: {responses: {302: {description: moved}}}
    patch: {responses: {}}
    options: {responses: {100: {description: early}, 3XX: {description: moved, headers: {Location: {example: /next}}}}}
components:
  schemas:
    Order:
      type: object
      properties: {id: {type: string, format: uuid}, count: {type: integer, minimum: 1, maximum: 5}, secret: {type: string, writeOnly: true}}
"""
RESPONDER = Responder(openapi.read(DOCUMENT, "/v1"))


def _answer(method: str, path: str, prefer: str = "", accept: str | None = None) -> Found:
    return RESPONDER.answer(method, path, preferences(prefer), accept)


def _json(found: Found) -> object:
    assert dict(found.headers)["content-type"] == "application/json"
    return json.loads(found.body)


def test_success_is_the_lowest_status() -> None:
    found = _answer("GET", "/v1/orders")
    assert (found.status, _json(found)) == (200, [1, 2])


def test_headers_are_those_of_the_document_that_a_response_may_have() -> None:
    headers = dict(_answer("GET", "/v1/orders").headers)
    assert headers == {"x-total": "7", "x-list": '["a","b"]', "content-type": "application/json"}


@pytest.mark.parametrize(
    ("prefer", "status", "body"),
    [
        ("code=404", 404, b'{"title": "gone"}'),
        ("code=201", 201, b""),
        ("code=503", 503, b"sorry"),
        ("example=none", 200, b"[]"),
        ('code=200, example="none"', 200, b"[]"),
        ("respond-async, example=none; wait=5", 200, b"[]"),
        ("dynamic=false", 200, b"[1, 2]"),
    ],
)
def test_a_client_chooses_the_response(prefer: str, status: int, body: bytes) -> None:
    found = _answer("GET", "/v1/orders", prefer)
    assert (found.status, found.body) == (status, body)
    applied = dict(found.headers)["preference-applied"]
    assert applied.replace('"', "").split(", ") == [
        one.split(";")[0] for one in prefer.replace('"', "").split(", ") if one != "respond-async"
    ]


def test_the_media_type_is_that_of_the_client() -> None:
    found = _answer("GET", "/v1/orders", accept="text/*, application/json;q=0.5")
    assert (dict(found.headers)["content-type"], found.body) == ("text/csv", b"a,b")
    assert _answer("GET", "/v1/orders", accept="image/png").status == 406
    assert _answer("POST", "/v1/orders").headers == (("content-type", "application/octet-stream"),)


def test_a_value_fits_the_schema_of_responses() -> None:
    assert _json(_answer("GET", "/v1/orders/7")) == {"id": "123e4567-e89b-12d3-a456-426614174000", "count": 1}


def test_a_plain_path_wins_over_one_with_names() -> None:
    assert _answer("GET", "/v1/orders/last").body == b"last"


def test_random_values_fit_the_schema_too() -> None:
    found = RESPONDER.answer("GET", "/v1/orders/7", Preferences(), None, random.Random(3))
    value = json.loads(found.body)
    assert 1 <= value["count"] <= 5
    assert RESPONDER.answer("GET", "/v1/orders/7", Preferences(), None, random.Random(3)) == found
    several = {
        RESPONDER.answer("GET", "/v1/orders/7", Preferences(), None, random.Random(one)).body
        for one in range(9)
    }
    assert len(several) > 1


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        ("HEAD", 200, {"content-type"}),
        ("DELETE", 204, set()),
        ("PUT", 302, {"location"}),
        ("OPTIONS", 300, {"location"}),
    ],
)
def test_statuses_without_a_body(method: str, status: int, headers: set[str]) -> None:
    found = _answer(method, "/v1/orders/7")
    assert (found.status, set(dict(found.headers))) == (status, headers)
    assert method == "HEAD" or found.body == b""


@pytest.mark.parametrize(
    ("method", "path", "prefer", "status", "detail"),
    [
        ("GET", "/v1/nowhere", "", 404, "The document has no operation with this path."),
        ("GET", "/orders", "", 404, "The document has no operation with this path."),
        ("GET", "/v1/orders/1/2", "", 404, "The document has no operation with this path."),
        ("PATCH", "/v1/orders", "", 405, "The document has no operation with this method."),
        ("PATCH", "/v1/orders/7", "", 404, "The operation has no response."),
        ("GET", "/v1/orders", "code=402", 404, "The operation has no response with the status 402."),
        ("GET", "/v1/orders", "code=200, example=x", 404, "The response has no example 'x'."),
        ("GET", "/v1/orders", "example=far", 404, "The response has no example 'far'."),
        ("GET", "/v1/orders", "code=99", 400, "The preference 'code' has no such value."),
        ("GET", "/v1/orders", "code=100", 400, "The preference 'code' has no such value."),
        ("GET", "/v1/orders", "dynamic=yes", 400, "The preference 'dynamic' has no such value."),
    ],
)
def test_what_the_document_has_not_is_a_problem(
    method: str, path: str, prefer: str, status: int, detail: str
) -> None:
    found = _answer(method, path, prefer)
    assert (found.status, found.detail) == (status, detail)
    assert (dict(found.headers).get("allow") == "GET, POST") == (status == 405)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/plain", "text/plain"),
        ("text/*", "text/plain"),
        ("application/json;q=0.1, text/plain;q=0.2", "text/plain"),
        ("*/*, application/json;q=0", "text/plain"),
        ("text/plain;q=0, */*;q=0.1", "application/json"),
        ("image/png", None),
        ("nonsense", None),
        ("text/plain;q=9", None),
    ],
)
def test_the_best_type_is_that_of_rfc_9110(accept: str | None, kind: str | None) -> None:
    assert best_type(accept, ["text/plain", "application/json"]) == kind
