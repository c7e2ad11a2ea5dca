"""Errors that the gateway itself answers: problem+json with a named reason, and never HTML or plain text."""

from __future__ import annotations

import json
import socket
import uuid

import pytest

from tests.support.gateway import Gateway, Gateways
from tests.support.ports import free_port

YAML = """
listeners:
  http: {port: $port, address: 127.0.0.1, limits: {max_headers: 2KiB}}
upstreams:
  none: {endpoints: []}
  dead: {endpoints: ["127.0.0.1:$dead"]}
routes:
  read: {path: /items, methods: [GET, HEAD], respond: {body: items}}
  write: {path: /items, methods: [PUT], respond: {body: items}}
  own: {path: /own, respond: {status: 404, body: mine}}
  none: {path: /none, upstream: none}
  dead: {path: /dead, upstream: dead}
errors:
  no_healthy_upstream: {status: 500, headers: {x-more: "1%"}, title: Sorry, detail: "100% down", type: "https://e.test/x"}
  upstream_unreachable: {body: {error: {code: unreachable, tries: 3}}}
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways) -> Gateway:
    return gateways.start(YAML, dead=free_port())


def _raw(gateway: Gateway, data: bytes) -> tuple[int, dict[str, str], bytes]:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(data)
        received = b""
        while more := connection.recv(65536):
            received += more
            head, end, body = received.partition(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if end and length and len(body) >= int(length[0].split(b":")[1]):
                break
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        (b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n", 404, "not_found"),
        (b"POST /items HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", 405, "method_not_allowed"),
        (b"GET /items HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET items HTTP/1.1\r\nhost: x\r\n\r\n", 400, "bad_request"),
        (b"GET /\x01 HTTP/1.1\r\nhost: x\r\n\r\n", 400, "bad_request"),
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (
            b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
            "bad_request",
        ),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"x" * 5000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /own HTTP/1.0\r\nhost: x\r\n\r\n", 426, "upgrade_required"),
        (b"POST /own HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 501, "not_implemented"),
        (b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", 404, "not_found"),
        (
            b"GET /dead HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            403,
            "upgrade_not_allowed",
        ),
        (b"GET /%00 HTTP/1.1\r\nhost: x\r\n\r\n", 400, "bad_path"),
        (b"GET /items HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400, "bad_authority"),
        (b"GET /items HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n", 400, "bad_authority"),
        (b"GET /items HTTP/1.1\r\nhost: x,y\r\n\r\n", 400, "bad_authority"),
        (b"GET /items HTTP/1.1\r\nhost: u@x\r\n\r\n", 400, "bad_authority"),
    ],
)
def test_every_error_is_a_problem_with_its_reason(
    gateway: Gateway, request_: bytes, status: int, reason: str
) -> None:
    found, headers, body = _raw(gateway, request_)
    assert found == status
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-gateway-reason"] == reason
    problem = json.loads(body)
    assert (problem["status"], problem["reason"], problem["type"]) == (status, reason, "about:blank")
    assert problem["title"]


def test_the_problem_names_the_request_that_the_logs_know(gateway: Gateway) -> None:
    assert uuid.UUID(gateway.get("/nowhere").json()["request_id"])


def test_a_405_says_what_is_allowed(gateway: Gateway) -> None:
    answer = gateway.request("DELETE", "/items")
    assert answer.headers["allow"] == "GET, HEAD, PUT"
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_a_route_answers_itself_stays_as_it_was_written(gateway: Gateway) -> None:
    answer = gateway.get("/own")
    assert (answer.status_code, answer.text) == (404, "mine")
    assert "x-gateway-reason" not in answer.headers


def test_status_headers_and_texts_may_be_changed_for_a_reason(gateway: Gateway) -> None:
    answer = gateway.get("/none")
    assert answer.status_code == 500
    assert answer.headers["x-more"] == "1%"
    assert answer.headers["x-gateway-reason"] == "no_healthy_upstream"
    problem = answer.json()
    assert problem.pop("request_id")
    assert problem == {
        "type": "https://e.test/x",
        "title": "Sorry",
        "status": 500,
        "detail": "100% down",
        "reason": "no_healthy_upstream",
    }


def test_the_whole_body_may_be_changed_for_a_reason(gateway: Gateway) -> None:
    answer = gateway.get("/dead")
    assert (answer.status_code, answer.json()) == (503, {"error": {"code": "unreachable", "tries": 3}})
    assert answer.headers["x-gateway-reason"] == "upstream_unreachable"


def test_a_head_request_gets_the_same_headers_and_no_body(gateway: Gateway) -> None:
    answer = gateway.request("HEAD", "/nowhere")
    assert (answer.status_code, answer.content) == (404, b"")
    assert answer.headers["x-gateway-reason"] == "not_found"
