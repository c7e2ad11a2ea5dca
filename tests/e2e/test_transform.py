"""transform and fields through a real Envoy: the exact bytes that the client and the backend get."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import brotli
import pytest
import zstandard

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.policy_server import Stack, Stacks

YAML = """
listeners:
  http: {port: $port, address: 127.0.0.1, trust_request_id: true}
upstreams:
  echo: {endpoints: ["$echo"]}
identity:
  corp: {issuer: "https://idp.test", audiences: [shop], jwks: {file: keys.json}}
plans:
  gold: {}
consumers:
  acme: {plan: gold, api_keys: [{sha256: $hash}]}
errors:
  response_not_transformable: {status: 502, title: "Bad upstream", headers: {x-own: "1"}}
routes:
  user:
    path: /user
    upstream: echo
    policies:
      transform:
        request: {rename: {user_name: userName}, set: {requestId: {from: request_id}}}
  many:
    path: /many/{id}/{part}
    upstream: echo
    policies:
      transform:
        request:
          remove: [password, "items[].secret"]
          rename: {items.price: cost}
          set:
            source: gateway
            count: 3
            nested: {value: {a: [1, null]}}
            meta.part: {from: "path:part"}
            id: {from: "path:id"}
            q: {from: "query:q"}
            agent: {from: "header:x-agent"}
            first: {from: "body:address.city"}
            none: {from: "header:x-none", default: "-"}
            method: {from: method}
            ip: {from: ip}
            route: {from: route}
          headers: {set: {x-id: {from: "path:id"}, x-fixed: "1"}, rename: {x-old: x-new}, remove: [x-gone]}
  only: {path: /only, upstream: echo, policies: {transform: {request: {only: [id, orders.id]}}}}
  wrapped: {path: /wrapped, upstream: echo, policies: {transform: {request: {unwrap: data, wrap: body.inner}}}}
  small: {path: /small, upstream: echo, policies: {transform: {request: {remove: [a], max_body: 64KB}}}}
  passing: {path: /passing, upstream: echo, policies: {transform: {request: {remove: [a], max_body: 1KB, oversize: pass}}}}
  response:
    path: /response
    upstream: echo
    policies:
      transform:
        response:
          remove: [password]
          rename: {user_name: userName}
          set: {from: {from: request_id}, kind: {from: "header:x-kind"}}
          headers: {set: {x-out: {from: "header:x-kind"}}, remove: [x-hidden]}
  stated: {path: /stated, upstream: echo, policies: {transform: {response: {wrap: data, statuses: [2xx, 404], max_body: 1KB}}}}
  views:
    path: /views
    upstream: echo
    policies:
      compression: true
      fields: {by: "header:x-client", web: all, mobile: [id, name, orders.id], iot: [id]}
  both:
    path: /both
    upstream: echo
    policies:
      transform: {response: {rename: {ID: id}}}
      fields: {by: "query:view", small: [id]}
  plan:
    path: /plan
    upstream: echo
    policies:
      api_key: true
      fields: {by: plan, default: [], gold: [id]}
      transform: {request: {set: {consumer: {from: consumer}, plan: {from: plan}}}}
  told: {path: /told, upstream: echo, policies: {transform: {response: {headers: {set: {x-you: {from: ip}}}}}}}
  claims:
    path: /claims
    upstream: echo
    policies:
      jwt: corp
      transform: {request: {set: {sub: {from: "claim:sub"}, roles: {from: "claim:realm.roles"}, n: {from: "claim:n"}}}}
"""
KEY = "k-3f8a"


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend) -> Stack:
    import hashlib

    digest = hashlib.sha256(KEY.encode()).hexdigest()
    return stacks.start(YAML, files={"keys.json": tokens.jwks()}, echo=backend.address, hash=digest)


@pytest.fixture
def echo(backend: Backend) -> Iterator[Backend]:
    backend.seen.clear()
    yield backend
    backend.status, backend.body, backend.headers = 200, None, {}


ID = "0b3a1f0e-5c1d-4c0e-9b7a-111111111111"
JSON = {"content-type": "application/json", "x-request-id": ID}


@dataclass(frozen=True)
class Case:
    path: str
    sent: str
    got: str
    headers: dict[str, str] = field(default_factory=dict)


REQUESTS = [
    Case("/user", '{"user_name": "john"}', f'{{"userName": "john", "requestId": "{ID}"}}'),
    Case("/user", '{"requestId":"forged","user_name":1.10}', f'{{"requestId":"{ID}","userName":1.10}}'),
    Case("/user", "[]", "[]"),
    Case(
        "/user",
        '[{"user_name":1},{"x":2}]',
        f'[{{"userName":1,"requestId":"{ID}"}},{{"x":2,"requestId":"{ID}"}}]',
    ),
    Case("/user", '"text"', '"text"'),
    Case("/user", "", ""),
    Case("/user", "{}", "not json", {"content-type": "text/plain"}),
    Case(
        "/user",
        '{"user_name":1}',
        f'{{"userName":1,"requestId":"{ID}"}}',
        {"content-type": "application/vnd.x+JSON; charset=UTF-8"},
    ),
    Case(
        "/only", '{"id":1, "x":2, "orders":[{"id":3,"y":4}], "z":{"id":5}}', '{"id":1, "orders":[{"id":3}]}'
    ),
    Case("/only", '{"x":[1e400,12345678901234567890]}', "{}"),
    Case(
        "/wrapped",
        '{"data": {"a": 12345678901234567890}, "b":1}',
        '{"body":{"inner":{"a": 12345678901234567890}}}',
    ),
    Case("/wrapped", "[1,2]", '{"body":{"inner":[1,2]}}'),
]


@pytest.mark.parametrize("case", REQUESTS, ids=lambda one: f"{one.path} {one.sent}"[:60])
def test_the_backend_gets_exactly_the_changed_body(stack: Stack, echo: Backend, case: Case) -> None:
    sent = "not json" if case.got == "not json" else case.sent
    answer = stack.request("POST", case.path, content=sent, headers={**JSON, **case.headers})
    assert answer.status_code == 200, answer.text
    assert echo.seen[-1]["body"] == case.got
    assert echo.seen[-1]["headers"].get("content-length", "0") == str(len(case.got.encode()))


def test_values_come_from_the_request(stack: Stack, echo: Backend) -> None:
    body = '{"password": "x", "items": [{"price": 1.50, "secret": 1}], "address": {"city": "Zürich"}, "ip": "forged"}'
    sent = {**JSON, "x-agent": 'say "hi"', "x-old": "o", "x-gone": "g", "x-id": "forged"}
    answer = stack.request("POST", "/many/a%20b/c?q=1%2B1&q=2", content=body.encode(), headers=sent)
    assert answer.status_code == 200, answer.text
    assert echo.seen[-1]["body"] == (
        '{"items": [{"cost": 1.50}], "address": {"city": "Zürich"}, "ip": "127.0.0.1", "source": "gateway", "count": 3, '
        '"nested": {"a":[1,null]}, "meta": {"part": "c"}, "id": "a b", "q": "1+1", "agent": "say \\"hi\\"", '
        '"first": "Zürich", "none": "-", "method": "POST", "route": "many"}'
    )
    headers = echo.seen[-1]["headers"]
    assert (headers["x-id"], headers["x-fixed"], headers["x-new"]) == ("a b", "1", "o")
    assert not {"x-old", "x-gone"} & headers.keys()


def test_headers_change_for_every_body(stack: Stack, echo: Backend) -> None:
    for content, kind in ((b"\xff\x00", "application/octet-stream"), (b"", "application/json")):
        stack.request("POST", "/many/1/2", content=content, headers={"content-type": kind, "x-old": "o"})
        assert echo.seen[-1]["headers"]["x-new"] == "o"
    stack.request("GET", "/many/1/2", headers={"x-old": "o"})
    assert echo.seen[-1]["headers"]["x-new"] == "o"


BAD = [
    (b"{", "malformed_body", "byte 1 of the JSON: the text ends within an object"),
    (b'{"a":1,"a":2}', "malformed_body", "byte 7 of the JSON: the name occurs twice in an object"),
    (b'{"a":1,"\\u0061":2}', "malformed_body", "byte 7 of the JSON: the name occurs twice in an object"),
    (
        b'{"user_name":1,"userName":2}',
        "malformed_body",
        "byte 0 of the JSON: the object has a member of the new name too",
    ),
    (b"[" * 10_000, "malformed_body", "byte 256 of the JSON: more than 256 levels"),
    (b'"\xff"', "malformed_body", "byte 1 of the JSON: the text is not UTF-8"),
    (b"NaN", "malformed_body", "byte 0 of the JSON: not a value"),
    (b"{} {}", "malformed_body", "byte 3 of the JSON: more than one value"),
    ('{"a":1}'.encode("utf-16"), "malformed_body", "byte 0 of the JSON: not a value"),
]


@pytest.mark.parametrize(("sent", "reason", "detail"), BAD)
def test_a_malformed_body_is_rejected(
    stack: Stack, echo: Backend, sent: bytes, reason: str, detail: str
) -> None:
    answer = stack.request("POST", "/user", content=sent, headers=JSON)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-gateway-reason"] == reason
    assert answer.json() == {
        "type": "about:blank",
        "title": "The request body is malformed",
        "status": 400,
        "reason": reason,
        "request_id": ID,
        "detail": detail,
    }
    assert not echo.seen


@pytest.mark.parametrize("parameters", ["charset=latin1", 'charset="UTF-8";Charset=utf-7'])
def test_another_charset_is_rejected(stack: Stack, echo: Backend, parameters: str) -> None:
    headers = {"content-type": f"application/json; {parameters}"}
    answer = stack.request("POST", "/user", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (415, "unsupported_charset")
    assert not echo.seen


CODINGS = {
    "gzip": gzip.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip, br": lambda body: brotli.compress(gzip.compress(body)),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_body_is_changed(stack: Stack, echo: Backend, coding: str) -> None:
    headers = {**JSON, "content-encoding": coding, "content-digest": "sha-256=:x:"}
    content = CODINGS[coding](b'{"user_name":1}')
    answer = stack.request("POST", "/user", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    assert echo.seen[-1]["body"] == f'{{"userName":1,"requestId":"{ID}"}}'
    assert not {"content-encoding", "content-digest"} & echo.seen[-1]["headers"].keys()


@pytest.mark.parametrize(
    ("coding", "content", "status", "reason"),
    [
        ("compress", b"x", 415, "unsupported_content_coding"),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-4], 400, "malformed_content_coding"),
        ("gzip", b"{}", 400, "malformed_content_coding"),
        ("gzip", gzip.compress(b'"' + b"a" * 100_000 + b'"', mtime=0), 413, "body_too_large"),
    ],
)
def test_a_body_that_cannot_be_decoded_is_rejected(
    stack: Stack, echo: Backend, coding: str, content: bytes, status: int, reason: str
) -> None:
    answer = stack.request("POST", "/small", content=content, headers={**JSON, "content-encoding": coding})
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert ("accept-encoding" in answer.headers) == (status == 415)
    assert not echo.seen


def _chunks(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), 1000):
        yield body[at : at + 1000]


@pytest.mark.parametrize("size", [63_990, 64_000, 64_001, 100_000, 1_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_rejected(stack: Stack, echo: Backend, size: int, chunked: bool) -> None:
    body = b'{"a":1,"b":"' + b"x" * (size - 14) + b'"}'
    answer = stack.request("POST", "/small", content=_chunks(body) if chunked else body, headers=JSON)
    if size <= 64_000:
        assert answer.status_code == 200, answer.text
        assert echo.seen[-1]["body"].encode() == body.replace(b'"a":1,', b"")
    else:
        assert (answer.status_code, answer.headers["x-gateway-reason"]) == (413, "body_too_large")
        assert not echo.seen


def test_a_large_body_may_pass(stack: Stack, echo: Backend) -> None:
    body = b'{"a":1,"b":"' + b"x" * 100_000 + b'"}'
    stack.request("POST", "/passing", content=body, headers=JSON)
    assert echo.seen[-1]["body"].encode() == body
    stack.request("POST", "/passing", content=b'{"a":1,"b":2}', headers=JSON)
    assert echo.seen[-1]["body"] == '{"b":2}'


def test_a_response_is_changed(stack: Stack, echo: Backend) -> None:
    echo.body = b'{"user_name": "john", "password": "x", "n": 1.10}'
    echo.headers = {"x-kind": "k", "x-hidden": "h", "etag": '"v1"', "accept-ranges": "bytes", "digest": "d"}
    answer = stack.request("GET", "/response", headers={"x-request-id": ID, "range": "bytes=0-1"})
    assert answer.text == f'{{"userName": "john", "n": 1.10, "from": "{ID}", "kind": "k"}}'
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["etag"] == 'W/"v1"'
    assert answer.headers["x-out"] == "k"
    assert not {"x-hidden", "accept-ranges", "digest"} & answer.headers.keys()
    asked = echo.seen[-1]["headers"]
    assert asked["accept-encoding"] == "identity"
    assert "range" not in asked


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_compressed_response_is_changed(stack: Stack, echo: Backend, coding: str) -> None:
    echo.body, echo.headers = CODINGS[coding](b'{"password":1,"a":2}'), {"content-encoding": coding}
    answer = stack.request("GET", "/response", headers={"x-request-id": ID})
    assert answer.json() == {"a": 2, "from": ID}
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"password":1', {}, 200),
        (b'{"password":1,"password":2}', {}, 200),
        (b'"\xff"', {}, 200),
        (b'{"password":1}', {"content-encoding": "gzip"}, 200),
        (b'{"password":1}', {"content-encoding": "lzw"}, 200),
        (b'{"password":1}', {"content-type": "application/json; charset=latin1"}, 200),
        (b'"password"', {"content-range": "bytes 0-9/20"}, 206),
    ],
)
def test_a_response_that_cannot_be_changed_does_not_reach_the_client(
    stack: Stack, echo: Backend, body: bytes, headers: dict[str, str], status: int
) -> None:
    echo.body, echo.headers, echo.status = body, {**headers, "set-cookie": "s=1", "etag": '"x"'}, status
    answer = stack.request("GET", "/response", headers={"x-request-id": ID})
    assert answer.status_code == 502  # `errors:` says so
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-gateway-reason"] == "response_not_transformable"
    assert answer.headers["x-own"] == "1"
    problem = answer.json()
    assert (problem["title"], problem["status"], problem["request_id"]) == ("Bad upstream", 502, ID)
    assert b"password" not in answer.content.replace(problem["detail"].encode(), b"")
    assert not {"set-cookie", "etag", "content-encoding", "content-range"} & answer.headers.keys()


def test_only_some_statuses_are_changed(stack: Stack, echo: Backend) -> None:
    echo.body = b"[1]"
    for status, changed in ((200, True), (201, True), (404, True), (400, False), (500, False)):
        echo.status = status
        answer = stack.request("GET", "/stated")
        assert (answer.status_code, answer.text) == (status, '{"data":[1]}' if changed else "[1]")


def test_a_large_response_is_rejected(stack: Stack, echo: Backend) -> None:
    echo.body = json.dumps("x" * 2000).encode()
    answer = stack.request("GET", "/stated")
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (500, "response_too_large")


def test_a_response_without_a_body_keeps_its_status(stack: Stack, echo: Backend) -> None:
    echo.body, echo.headers = b'{"password":1}', {"etag": '"v"'}
    answer = stack.request("HEAD", "/response")
    assert (answer.status_code, answer.headers["etag"]) == (200, 'W/"v"')
    assert "content-length" not in answer.headers
    echo.body = b""
    for status in (204, 304):
        echo.status = status
        answer = stack.request("GET", "/response")
        assert (answer.status_code, answer.content) == (status, b"")


def test_the_gateways_own_answers_are_not_changed(stack: Stack, echo: Backend) -> None:
    answer = stack.request("GET", "/plan")
    assert (answer.status_code, answer.json()["reason"]) == (401, "api_key_missing")


WHOLE = {"id": 1, "name": "n", "orders": [{"id": 2, "total": 3}], "more": "x" * 600}
VIEWS = {
    "web": WHOLE,
    "mobile": {"id": 1, "name": "n", "orders": [{"id": 2}]},
    "iot": {"id": 1},
    "other": WHOLE,
    None: WHOLE,
}


@pytest.mark.parametrize("client", VIEWS)
def test_each_kind_of_client_has_its_view(stack: Stack, echo: Backend, client: str | None) -> None:
    echo.body = json.dumps(WHOLE).encode()
    headers = {"accept-encoding": "gzip"} | ({"x-client": client} if client else {})
    answer = stack.request("GET", "/views", headers=headers)
    assert answer.json() == VIEWS[client]
    assert "x-client" in answer.headers["vary"]
    assert ("content-encoding" in answer.headers) == (VIEWS[client] is WHOLE)


def test_a_view_leaves_errors_alone(stack: Stack, echo: Backend) -> None:
    echo.body, echo.status = b'{"error":"no"}', 404
    assert stack.request("GET", "/views", headers={"x-client": "iot"}).json() == {"error": "no"}


def test_a_view_follows_the_transformation(stack: Stack, echo: Backend) -> None:
    echo.body = b'{"ID":1,"x":2}'
    assert stack.request("GET", "/both?view=small").text == '{"id":1}'
    assert stack.request("GET", "/both").text == '{"id":1,"x":2}'


def test_a_view_by_plan_and_values_of_the_consumer(stack: Stack, echo: Backend) -> None:
    echo.body = b'{"id":1,"x":2}'
    headers = {**JSON, "x-api-key": KEY}
    answer = stack.request("POST", "/plan", content=b'{"plan":"forged"}', headers=headers)
    assert answer.text == '{"id":1}'
    assert echo.seen[-1]["body"] == '{"plan":"gold","consumer":"acme"}'


@pytest.mark.parametrize("path", ["/plan", "/told"])
@pytest.mark.parametrize(
    ("sent", "got"),
    [
        ({}, "private"),
        ({"cache-control": "Public, max-age=60, s-maxage=600"}, "private, max-age=60"),
        ({"cache-control": "max-age=60, PRIVATE", "cdn-cache-control": "max-age=600"}, "max-age=60, PRIVATE"),
        ({"cache-control": 'private="x-a, x-b", max-age=1'}, 'private, private="x-a, x-b", max-age=1'),
        ({"cache-control": "no-store", "surrogate-control": "max-age=600"}, "no-store"),
    ],
)
@pytest.mark.parametrize("status", [200, 304, 404])
def test_no_shared_cache_keeps_what_depends_on_the_caller(
    stack: Stack, echo: Backend, path: str, sent: dict[str, str], got: str, status: int
) -> None:
    echo.headers, echo.status, echo.body = sent, status, b"{}" if status != 304 else b""
    answer = stack.request("GET", path, headers={"x-api-key": KEY})
    assert (answer.status_code, answer.headers.get_list("cache-control")) == (status, [got])
    assert not {"cdn-cache-control", "surrogate-control"} & answer.headers.keys()


def test_what_does_not_depend_on_the_caller_may_be_shared(stack: Stack, echo: Backend) -> None:
    echo.headers, echo.body = {"cache-control": "public, max-age=60"}, b"{}"
    for path in ("/views", "/both", "/response"):
        assert stack.request("GET", path).headers["cache-control"] == "public, max-age=60"


def test_claims_keep_their_types(stack: Stack, echo: Backend) -> None:
    token = tokens.token(sub="me", realm={"roles": ["a", "b"]}, n=2**60)
    headers = {**JSON, "authorization": f"Bearer {token}"}
    answer = stack.request("POST", "/claims", content=b'{"n": "forged"}', headers=headers)
    assert answer.status_code == 200, answer.text
    # Envoy rounds numbers of this size, so they have no value.
    assert echo.seen[-1]["body"] == '{"sub": "me", "roles": ["a","b"]}'
