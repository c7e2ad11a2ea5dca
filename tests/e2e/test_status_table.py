"""The status table: one failure of each stage, for clients of HTTP, gRPC and gRPC-Web (docs/reference/errors.md)."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import unquote

import grpc
import httpx
import pytest

from tests.support.backend import Backend
from tests.support.grpc_service import Service
from tests.support.grpc_shop import PROTO
from tests.support.policy_server import Stack, Stacks
from tests.support.tokens import jwks, token
from tests.support.wait import wait_for

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
identity:
  corp: {issuer: "https://idp.test", audiences: [shop], jwks: {inline: '$jwks'}}
consumers: {acme: {api_keys: [{sha256: "$digest"}], basic_auth: {username: acme, sha256: "$digest"}}}
upstreams:
  echo: {endpoints: ["127.0.0.1:$service"], protocol: grpc}
  rest: {endpoints: ["$rest"]}
  none: {endpoints: [], protocol: grpc}
  away: {endpoints: ["127.0.0.1:1"], protocol: grpc}
  silent: {endpoints: ["127.0.0.1:$silent"], protocol: grpc}
  closing: {endpoints: ["127.0.0.1:$closing"], protocol: grpc}
  garbled: {endpoints: ["127.0.0.1:$garbled"], protocol: grpc}
policies: {grpc_web: true}
policy_sets: {who: {rate_limit: {requests: 1, per: month, by: "header:x-who"}}}
routes:
  header: {path: /t.T/Header, upstream: echo, policies: {validate: {required_headers: [x-wanted]}}}
  kind: {path: /t.T/Kind, upstream: echo, policies: {validate: {content_types: [text/plain]}}}
  size: {path: /t.T/Size, upstream: echo, policies: {validate: {max_body: 1B}}}
  ip: {path: /t.T/Ip, upstream: echo, policies: {ip_access: {deny: [127.0.0.0/8]}}}
  challenge: {path: /t.T/Challenge, upstream: echo, policies: {browser_challenge: true}}
  csrf: {path: /t.T/Csrf, upstream: echo, policies: {csrf: true}}
  jwt: {path: /t.T/Jwt, upstream: echo, policies: {jwt: corp}}
  key: {path: /t.T/Key, upstream: echo, policies: {api_key: true}}
  basic: {path: /t.T/Basic, upstream: echo, policies: {basic_auth: true}}
  scope: {path: /t.T/Scope, upstream: echo, policies: {jwt: corp, authorize: {scopes: [admin]}}}
  deny: {path: /t.T/Deny, upstream: echo, policies: {ext_authz: {python: "p.py:refuse", timeout: 20s}}}
  raise: {path: /t.T/Raise, upstream: echo, policies: {ext_authz: {python: "p.py:broken", timeout: 20s}}}
  gone: {path: /t.T/Gone, upstream: echo, policies: {ext_authz: {grpc: away}}}
  rate: {path: /t.T/Rate, upstream: echo, use: [who]}
  local: {path: /t.T/Local, upstream: echo, policies: {rate_limit: {requests: 1, per: month, scope: local, by: "header:x-who"}}}
  get: {path: /t.T/Get, methods: [GET], upstream: echo}
  quota: {path: /t.T/Name, upstream: echo, policies: {quota: {bytes: 1B, per: month, by: "header:x-who"}}}
  slots: {path: /t.T/Chat, upstream: echo, policies: {concurrency: {requests: 1, by: "header:x-who"}}}
  process: {path: /t.T/Process, upstream: echo, policies: {ext_proc: {python: "r.py:Broken", timeout: 20s}}}
  refuse: {path: /t.T/Refuse, upstream: echo, policies: {ext_proc: {python: "r.py:Refusing", timeout: 20s}}}
  schema: {path: /t.T/Schema, upstream: rest, policies: {validate: {json_schema: {schema: {required: [name]}}}}}
  change: {path: /t.T/Change, upstream: echo, policies: {transform: {request: {remove: [a], max_body: 1KB}}}}
  view: {path: /t.T/View, upstream: rest, policies: {transform: {response: {remove: [a], max_body: 1KB}}}}
  cached: {path: /t.T/Cached, upstream: rest, policies: {cache: {ttl: 1m}}}
  message: {path: /shop.v1.Shop/*, upstream: echo, policies: {grpc_transcoding: {protos: [shop.proto], rpc_paths: true}}}
  none: {path: /t.T/None, upstream: none}
  away: {path: /t.T/Away, upstream: away}
  late: {path: /t.T/Late, upstream: silent, timeout: 200ms, retry: 0}
  reset: {path: /t.T/Reset, upstream: closing, retry: 0}
  garbled: {path: /t.T/Garbled, upstream: garbled, retry: 0}
  fault: {path: /t.T/Fault, upstream: echo, policies: {fault: {abort: {status: 418}}}}
  answer: {path: /t.T/Answer, respond: {status: 429, body: "later\\n"}}
  changed: {path: /t.T/Changed, upstream: echo, policies: {ip_access: {deny: [127.0.0.0/8]}, cors: {allow_origins: ["https://page.test"]}}}
"""
POLICY = """
from filters.ext_authz import Decision, Request, deny

async def refuse(request: Request) -> Decision:
    return deny(403, body="read\\nonly")

async def broken(request: Request) -> Decision:
    raise ValueError("x")
"""
PROCESSORS = """
from filters.ext_proc import Processor, respond

class Broken(Processor):
    async def request_headers(self, request):
        raise ValueError("x")

class Refusing(Processor):
    async def request_headers(self, request):
        return respond(409)
"""
FRAME = b"\0\0\0\0\0"


class Row(NamedTuple):
    """One failure: its stage, the method called, and what clients of HTTP and of gRPC get.

    `body` is false if the response is no problem. `verb` and `content` are the request of a client of HTTP.
    """

    stage: str
    method: str
    status: int
    reason: str
    code: int
    headers: Mapping[str, str] = {}
    body: bool = True
    verb: str = "POST"
    content: bytes = b"{}"


def bearer() -> dict[str, str]:
    return {"authorization": f"Bearer {token(scope='read')}"}


TABLE = (
    Row("receive", "%00", 400, "bad_path", 3),
    Row("validate", "Header", 400, "missing_header", 3),
    Row("validate", "Kind", 415, "unsupported_media_type", 3),
    Row("validate", "Size", 413, "body_too_large", 8),
    Row("access", "Ip", 403, "ip_denied", 7),
    Row("access", "Challenge", 403, "browser_challenge_required", 7),
    Row("access", "Csrf", 403, "csrf_denied", 7, {"origin": "https://other.test"}),
    Row("authenticate", "Jwt", 401, "jwt_missing", 16),
    Row("authenticate", "Jwt", 401, "jwt_malformed", 16, {"authorization": "Bearer x"}),
    Row("authenticate", "Key", 401, "api_key_missing", 16),
    Row("authenticate", "Basic", 401, "basic_auth_missing", 16),
    Row("authorize", "Scope", 403, "not_authorized", 7, {"authorization": "a good token"}),
    Row("authorize", "Deny", 403, "ext_authz_denied", 7, body=False),
    Row("authorize", "Raise", 503, "ext_authz_failed", 14),
    Row("authorize", "Gone", 503, "ext_authz_unavailable", 14),
    Row("limit", "Rate", 429, "rate_limited", 8),
    Row("limit", "Local", 429, "rate_limited", 8),
    Row("limit", "Name", 429, "quota_exceeded", 8),
    Row("limit", "Chat", 429, "concurrency_exceeded", 8),
    Row("route", "Nothing", 404, "not_found", 12),
    Row("route", "Get", 405, "method_not_allowed", 12),
    Row("transcode", "/shop.v1.Shop/Nothing", 404, "not_found", 12),
    Row("transform", "Process", 500, "processor_failed", 13),
    Row("transform", "Refuse", 409, "processor_rejected", 2),
    Row("backend", "None", 503, "no_healthy_upstream", 14),
    Row("backend", "Away", 503, "upstream_unreachable", 14),
    Row("backend", "Late", 504, "upstream_timeout", 4),
    Row("backend", "Reset", 502, "upstream_reset", 14),
    Row("backend", "Garbled", 502, "upstream_protocol_error", 14),
    Row("backend", "Fault", 418, "fault_injected", 2),
)
HTTP_ONLY = (
    Row("validate", "Schema", 400, "invalid_request", 3),
    Row("validate", "Schema", 400, "malformed_body", 3, content=b"{"),
    Row("validate", "Schema", 415, "unsupported_media_type", 3, {"content-type": "text/plain"}),
    Row("transcode", "/shop.v1.Shop/Plain", 400, "invalid_message", 3, content=b"{"),
    Row("transform", "Change", 400, "malformed_body", 3, content=b'{"a":1,"a":2}'),
    Row("transform", "Change", 400, "malformed_content_coding", 3, {"content-encoding": "gzip"}),
    Row("transform", "Change", 413, "body_too_large", 8, content=b'{"a":"%s"}' % bytes(1000)),
    Row(
        "transform",
        "Change",
        415,
        "unsupported_charset",
        3,
        {"content-type": "application/json; charset=latin1"},
    ),
    Row("transform", "Change", 415, "unsupported_content_coding", 3, {"content-encoding": "compress"}),
    Row("transform", "View", 500, "response_not_transformable", 13, content=b"{"),
    Row("transform", "View", 500, "response_too_large", 13, content=b'{"a":"%s"}' % (b"a" * 100_000)),
    Row(
        "cache", "Cached", 504, "not_cached", 4, {"cache-control": "only-if-cached"}, verb="GET", content=b""
    ),
)
"""Failures that only messages of JSON or GET can have: messages of gRPC pass these policies unchanged."""


def name(row: Row) -> str:
    """The row in the name of a test."""
    return f"{row.stage}-{row.method}-{row.reason}"


EACH = pytest.mark.parametrize("row", TABLE, ids=map(name, TABLE))
EACH_OF_HTTP = pytest.mark.parametrize("row", TABLE + HTTP_ONLY, ids=map(name, TABLE + HTTP_ONLY))


@contextmanager
def listening(answer: bytes | None) -> Iterator[int]:
    """A server that sends `answer` to each connection and closes it, or that says nothing for None."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    held.append(connection)
                    if answer is not None:
                        connection.recv(65536)
                        connection.sendall(answer)
                        connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend) -> Iterator[Stack]:
    with ExitStack() as servers:
        service = servers.enter_context(Service("echo").running())
        ports = {
            "rest": backend.address,
            "silent": servers.enter_context(listening(None)),
            "closing": servers.enter_context(listening(b"")),
            "garbled": servers.enter_context(listening(b"no HTTP/2\r\n\r\n")),
        }
        files = {"p.py": POLICY, "r.py": PROCESSORS, "shop.proto": PROTO.read_text()}
        stack = stacks.start(
            YAML, files=files, tcp=True, service=service.port, digest="0" * 64, jwks=jwks(), **ports
        )
        wait_for(
            lambda: web(stack, "Rate", {"x-who": "ready"}).headers.get("ratelimit"), "the first decision"
        )
        yield stack


def call(stack: Stack, row: Row, kind: str, **options: Any) -> httpx.Response:
    """The failing call of a row; a limit fails after calls that it accepts."""
    path = row.method if row.method.startswith("/") else f"/t.T/{row.method}"
    who = f"{kind} {options}"
    headers = {"content-type": kind, "accept": kind, "x-who": who, **row.headers}
    if row.headers.get("authorization") == "a good token":
        headers |= bearer()
    http = kind == "application/json"
    content = row.content if http else base64.b64encode(FRAME) if "text" in kind else FRAME
    with httpx.Client(base_url=stack.url, timeout=30, **options) as client, held(stack, row, who):

        def answer() -> httpx.Response:
            return client.request(row.verb if http else "POST", path, headers=headers, content=content)

        if row.stage != "limit":
            return answer()
        answers: list[httpx.Response] = []

        def rejected() -> bool:
            answers.append(answer())
            return answers[-1].headers.get("x-gateway-reason") == row.reason

        wait_for(rejected, lambda: f"a rejection after {answers}")
        return answers[-1]


@contextmanager
def held(stack: Stack, row: Row, who: str) -> Iterator[None]:
    """Keep a call in progress that takes the only slot, if the row is about that."""
    if row.method != "Chat":
        yield
        return
    end = threading.Event()

    def messages() -> Iterator[bytes]:
        yield b"first"
        end.wait(30)

    with grpc.insecure_channel(f"127.0.0.1:{stack.listener}") as channel:
        answers = channel.stream_stream("/t.T/Chat")(messages(), metadata=[("x-who", who)])
        assert next(answers) == b"first"
        yield
        end.set()
        assert list(answers) == []


def web(stack: Stack, method: str, headers: Mapping[str, str]) -> httpx.Response:
    sent = {"content-type": "application/grpc-web+proto", **headers}
    return httpx.post(f"{stack.url}/t.T/{method}", headers=sent, content=FRAME, timeout=30)


def problem(text: str, row: Row) -> None:
    found = json.loads(text)
    assert (found["reason"], found["status"]) == (row.reason, row.status)
    assert bool(found["request_id"]) is (row.stage != "receive")  # malformed requests have none yet
    assert found["title"]


@EACH_OF_HTTP
@pytest.mark.parametrize("version", [1, 2])
def test_a_client_of_http_gets_the_status_and_a_problem(
    stack: Stack, backend: Backend, row: Row, version: int
) -> None:
    backend.body = row.content
    answer = call(stack, row, "application/json", http1=version == 1, http2=version == 2)
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (row.status, row.reason)
    assert "grpc-status" not in answer.headers
    if row.body:
        assert answer.headers["content-type"] == "application/problem+json"
        problem(answer.text, row)
    else:
        assert answer.text == "read\nonly"


@EACH
def test_a_client_of_grpc_gets_the_grpc_status(stack: Stack, row: Row) -> None:
    answer = call(stack, row, "application/grpc", http1=False, http2=True)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/grpc")
    assert (answer.headers["grpc-status"], answer.headers["x-gateway-reason"]) == (str(row.code), row.reason)
    assert answer.content == b""
    message = unquote(answer.headers["grpc-message"])
    if row.body:
        problem(message, row)
    else:
        assert message == "read\nonly"


@EACH
@pytest.mark.parametrize(
    "kind", ["application/grpc-web+proto", "application/grpc-web", "application/grpc-web-text"]
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_client_of_grpc_web_gets_the_grpc_status_in_a_readable_response(
    stack: Stack, row: Row, kind: str, version: int
) -> None:
    """Browsers' clients do not look at the gRPC status of a response with another HTTP status."""
    answer = call(stack, row, kind, http1=version == 1, http2=version == 2)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/grpc-web")
    assert answer.headers["content-type"].startswith("application/grpc-web-text") == (kind.endswith("-text"))
    assert (answer.headers["grpc-status"], answer.headers["x-gateway-reason"]) == (str(row.code), row.reason)
    trailer = f"grpc-status:{row.code}\r\n".encode()
    frame = b"\x80" + len(trailer).to_bytes(4, "big") + trailer
    if kind.endswith("-text"):
        assert answer.content == (b"" if row.stage == "backend" else base64.b64encode(frame))
    else:
        assert answer.content == frame
    problem(unquote(answer.headers["grpc-message"]), row)


def test_what_a_route_answers_has_a_grpc_status_too(stack: Stack) -> None:
    row = Row("route", "Answer", 429, "", 8)
    plain = call(stack, row, "application/json")
    assert (plain.status_code, plain.text, "x-gateway-reason" in plain.headers) == (429, "later\n", False)
    answer = call(stack, row, "application/grpc", http1=False, http2=True)
    assert (answer.status_code, answer.headers["grpc-status"], answer.headers["grpc-message"]) == (
        200,
        "8",
        "later%0A",
    )
    answer = call(stack, row, "application/grpc-web+proto")
    assert (answer.status_code, answer.headers["grpc-status"]) == (200, "8")


def test_a_page_may_read_the_grpc_status(stack: Stack) -> None:
    answer = web(stack, "Changed", {"origin": "https://page.test"})
    assert (answer.status_code, answer.headers["grpc-status"]) == (200, "7")
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"grpc-status", "grpc-message"} <= set(exposed)
    assert answer.headers["access-control-allow-origin"] == "https://page.test"


def test_other_requests_of_the_same_routes_are_none_of_grpc_web(stack: Stack) -> None:
    answer = call(stack, Row("access", "Ip", 403, "ip_denied", 7), "text/plain")
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
