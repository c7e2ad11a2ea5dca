"""Processors in Python through the real Envoy: exact bytes at client and backend."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.policy_server import Stack, Stacks
from tests.support.sockets import SocketServer, read_head
from tests.support.wait import wait_for

PROCESSORS = """
import asyncio
import sys
import time

from filters.ext_proc import Processor, Request, Response, change, respond


class Headers(Processor):
    async def request_headers(self, request):
        self.method = request.method
        if request.query.get("answer") == "own":
            return respond(418, "teapot", {"x-own": "1"})
        if request.query.get("answer") == "problem":
            return respond(403)
        values = {
            "x-path": request.path, "x-query": request.query_string, "x-host": request.host,
            "x-route": request.route, "x-name": request.path_params.get("name", ""),
            "x-address": request.client_address, "x-request": request.id,
        }
        return change(values, add={"x-many": "added"}, remove=["x-secret"])

    async def response_headers(self, request, response):
        return change({"x-method": self.method, "x-status": str(response.status)}, remove=["x-backend"])


class Bodies(Processor):
    async def request_body(self, request, body):
        return b"<" + body + b">"

    async def response_body(self, request, response, body):
        return change({"x-was": str(len(body))}, body=b"[" + body + b"]")


class Same(Processor):
    async def request_body(self, request, body):
        return None

    async def response_body(self, request, response, body):
        return body


class Chunks(Processor):
    def request_chunk(self, request, chunk, last):
        return chunk.upper() + (b"!" if last else b"")

    async def response_chunk(self, request, response, chunk, last):
        await asyncio.sleep(0)
        return chunk.upper() + (b"!" if last else b"")


class Skips(Processor):
    async def request_headers(self, request):
        return change({"x-skipped": "yes"}, skip_body=True)

    async def request_body(self, request, body):
        return b"never"

    async def response_headers(self, request, response):
        return change({"x-skipped": "yes"}, status=201, skip_body=True)

    async def response_body(self, request, response, body):
        return b"never"


class SkipsPieces(Processor):
    async def request_headers(self, request):
        return change({"x-skipped": "yes"}, skip_body=True)

    async def request_chunk(self, request, chunk, last):
        return b"never"

    async def response_headers(self, request, response):
        return change({"x-skipped": "yes"}, status=201, skip_body=True)

    async def response_chunk(self, request, response, chunk, last):
        return b"never"


class Fails(Processor):
    async def request_headers(self, request):
        return self.fail(request, "request_headers")

    async def request_body(self, request, body):
        return self.fail(request, "request_body")

    async def response_headers(self, request, response):
        return self.fail(request, "response_headers")

    async def response_body(self, request, response, body):
        return self.fail(request, "response_body")

    def fail(self, request, where):
        if request.query.get("at") != where:
            return None
        how = request.query["how"]
        if how == "raise":
            raise RuntimeError("no luck")
        if how == "exit":
            sys.exit(3)
        if how == "type":
            return 7
        if how == "grow":
            return bytes(2000)
        if how == "header":
            return change({"content-length": "1"})
        return respond(409, {"at": where})


class FailsInPieces(Processor):
    def __init__(self):
        self.seen = 0

    async def request_chunk(self, request, chunk, last):
        return self.fail(request, "request_chunk", chunk)

    async def response_chunk(self, request, response, chunk, last):
        return self.fail(request, "response_chunk", chunk)

    def fail(self, request, where, chunk):
        self.seen += len(chunk)
        if request.query["at"] == where and self.seen > 100_000:
            raise RuntimeError("no luck")
        return chunk


class FailsToBegin(Processor):
    def __init__(self):
        sys.exit(3)

    async def request_headers(self, request):
        return None


class Slow(Processor):
    def request_body(self, request, body):
        time.sleep(1)
        return b"late"

    async def response_body(self, request, response, body):
        await asyncio.sleep(1)
        return b"late"


class SlowResponse(Processor):
    async def response_body(self, request, response, body):
        await asyncio.sleep(1)
        return b"late"
"""
GATEWAY = """
listeners: {http: {port: $port, address: 127.0.0.1, access_log: true}}
upstreams: {backend: {endpoints: ["$backend"]}, nobody: {endpoints: ["$nobody"]}}
routes:
  plain: {path: /plain, upstream: backend}
  headers: {path: "/headers/{name}", upstream: backend, policies: {ext_proc: {python: "p.py:Headers"}}}
  bodies: {path: /bodies, upstream: backend, policies: {ext_proc: {python: "p.py:Bodies", max_body: 200KB}}}
  same: {path: /same, upstream: backend, policies: {ext_proc: {python: "p.py:Same"}}}
  chunks: {path: /chunks, upstream: backend, policies: {ext_proc: {python: "p.py:Chunks"}}}
  skips: {path: /skips, upstream: backend, policies: {ext_proc: {python: "p.py:Skips"}}}
  skips-pieces: {path: /skips-pieces, upstream: backend, policies: {ext_proc: {python: "p.py:SkipsPieces"}}}
  fails: {path: /fails, upstream: backend, policies: {ext_proc: {python: "p.py:Fails", max_body: 1000}}}
  fails-in-pieces: {path: /fails-in-pieces, upstream: backend, policies: {ext_proc: {python: "p.py:FailsInPieces"}}}
  fails-to-begin: {path: /fails-to-begin, upstream: backend, policies: {ext_proc: {python: "p.py:FailsToBegin"}}}
  slow: {path: /slow, upstream: backend, policies: {ext_proc: {python: "p.py:Slow", timeout: 50ms}}}
  slow-response: {path: /slow-response, upstream: backend, policies: {ext_proc: {python: "p.py:SlowResponse", timeout: 50ms}}}
  lenient: {path: /lenient, upstream: backend, policies: {ext_proc: {python: "p.py:Slow", timeout: 50ms, on_error: allow}}}
  nobody: {path: /nobody, upstream: nobody, policies: {ext_proc: {python: "p.py:Bodies"}}}
"""


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend() as one:
        yield one


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Stack]:
    with Stacks(tmp_path_factory.mktemp("ext_proc")) as stacks:
        one = stacks.start(GATEWAY, files={"p.py": PROCESSORS}, backend=backend.address, nobody="127.0.0.1:9")
        wait_for(lambda: one.get("/bodies").status_code == 200, "the processors")
        yield one


@pytest.fixture(autouse=True)
def _fresh(backend: Backend) -> None:
    backend.seen.clear()
    backend.status, backend.headers, backend.body = 200, {}, None


def _raw(stack: Stack, request: bytes) -> bytes:
    """What comes back for these bytes until the connection ends."""
    with socket.create_connection(("127.0.0.1", stack.listener), timeout=30) as connection:
        connection.sendall(request)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_headers_are_read_and_changed(stack: Stack, backend: Backend) -> None:
    backend.headers = {"x-backend": "1"}
    response = stack.get("/headers/a%2db?x=1&y", headers={"x-secret": "s", "x-many": "own"})
    (seen,) = backend.seen
    headers = seen["headers"]
    assert response.status_code == 200
    assert (headers["x-path"], headers["x-query"], headers["x-name"]) == ("/headers/a-b", "x=1&y", "a-b")
    assert (headers["x-route"], headers["x-address"]) == ("headers", "127.0.0.1")
    assert headers["x-request"] == headers["x-request-id"]
    assert headers["x-host"] == f"127.0.0.1:{stack.listener}"
    assert [value for name, value in seen["header_list"] if name == "x-many"] == ["own", "added"]
    assert "x-secret" not in headers
    assert response.headers["x-method"] == "GET"
    assert response.headers["x-status"] == "200"
    assert "x-backend" not in response.headers


def test_a_processor_answers_with_a_body_of_its_own_or_a_problem(stack: Stack, backend: Backend) -> None:
    own = stack.get("/headers/a?answer=own")
    assert (own.status_code, own.text, own.headers["x-own"]) == (418, "teapot", "1")
    assert own.headers["x-gateway-reason"] == "processor_rejected"
    problem = stack.get("/headers/a?answer=problem")
    assert problem.status_code == 403
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["reason"] == problem.headers["x-gateway-reason"] == "processor_rejected"
    assert backend.seen == []


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_whole_bodies_are_replaced_and_their_length_is_right(
    stack: Stack, backend: Backend, size: int
) -> None:
    backend.body, backend.headers = (
        b"y" * size,
        {"etag": '"one"', "digest": "d", "content-type": "text/plain"},
    )
    response = httpx.post(stack.url + "/bodies", content=b"x" * size)
    (seen,) = backend.seen
    assert response.status_code == 200
    assert seen["body"] == "<" + "x" * size + ">"
    assert seen["headers"]["content-length"] == str(size + 2)
    assert response.content == b"[" + b"y" * size + b"]"
    assert response.headers["content-length"] == str(size + 2)
    assert response.headers["x-was"] == str(size)
    assert response.headers["etag"] == 'W/"one"'
    assert "digest" not in response.headers


def test_chunked_requests_and_trailers(stack: Stack, backend: Backend) -> None:
    request = (
        b"POST /bodies HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2\r\nde\r\n0\r\nx-trailer: 1\r\n\r\n"
    )
    assert _raw(stack, request).startswith(b"HTTP/1.1 200")
    (seen,) = backend.seen
    assert seen["body"] == "<abcde>"


def test_compressed_bodies_without_a_length(stack: Stack, backend: Backend) -> None:
    body = gzip.compress(b"world")
    chunks = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"

    def answer(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(head + chunks)

    request = b"POST /bodies HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-encoding: gzip\r\n"
    assert _raw(stack, request + b"transfer-encoding: chunked\r\n\r\n" + chunks).startswith(b"HTTP/1.1 200")
    (seen,) = backend.seen
    assert seen["body"] == "<world>"
    assert "content-encoding" not in seen["headers"]
    with SocketServer(answer) as server:
        stack.write(GATEWAY, {"p.py": PROCESSORS}, backend=backend.address, nobody=server.address)
        stack.publish()
        wait_for(lambda: stack.get("/nobody").status_code == 200, "the other upstream")
        response = stack.get("/nobody")
    assert response.content == b"[world]"
    assert "content-encoding" not in response.headers
    stack.write(GATEWAY, {"p.py": PROCESSORS}, backend=backend.address, nobody="127.0.0.1:9")
    stack.publish()
    wait_for(lambda: stack.get("/nobody").status_code == 503, "the former upstream")


def test_a_large_body_without_a_length(stack: Stack, backend: Backend) -> None:
    def pieces() -> Iterator[bytes]:
        yield from [b"x" * 10_000] * 100

    response = httpx.post(stack.url + "/bodies", content=pieces())
    assert (response.status_code, response.json()["reason"]) == (413, "body_too_large")
    assert backend.seen == []


def test_messages_without_a_body_are_left_alone(stack: Stack, backend: Backend) -> None:
    backend.body = b""
    assert stack.get("/bodies").content == b""
    assert httpx.post(stack.url + "/bodies", content=b"").content == b""
    assert all(seen["body"] == "" for seen in backend.seen)
    backend.body = b"abc"
    head = httpx.head(stack.url + "/bodies")
    assert (head.status_code, head.headers["content-length"]) == (200, "3")
    for status in (204, 304):
        backend.status, backend.body = status, b""
        assert stack.get("/bodies").status_code == status


def test_compressed_bodies_are_decoded(stack: Stack, backend: Backend) -> None:
    backend.body = gzip.compress(b"hello")
    backend.headers = {"content-encoding": "gzip", "content-type": "text/plain"}
    content = gzip.compress(b"wor") + gzip.compress(b"ld")
    response = httpx.post(stack.url + "/bodies", content=content, headers={"content-encoding": "gzip"})
    (seen,) = backend.seen
    assert seen["body"] == "<world>"
    assert "content-encoding" not in seen["headers"]
    assert "content-encoding" not in response.headers
    assert response.content == b"[hello]"


def test_a_body_that_stays_the_same_passes_as_it_was_sent(stack: Stack, backend: Backend) -> None:
    content = gzip.compress(b"hello")
    backend.body = content
    backend.headers = {"content-encoding": "gzip", "content-type": "text/plain", "etag": '"one"'}
    with httpx.stream(
        "POST", stack.url + "/same", content=content, headers={"content-encoding": "gzip"}
    ) as response:
        assert b"".join(response.iter_raw()) == content
        assert response.headers["content-encoding"] == "gzip"
        assert response.headers["etag"] == '"one"'
    (seen,) = backend.seen
    assert seen["headers"]["content-length"] == str(len(content))


@pytest.mark.parametrize(
    ("content", "coding", "status", "reason"),
    [
        (b"x" * 300_000, "identity", 413, "body_too_large"),
        (gzip.compress(bytes(10_000_000), mtime=0), "gzip", 413, "body_too_large"),
        (b"no gzip", "gzip", 400, "malformed_content_coding"),
        (gzip.compress(b"cut", mtime=0)[:-2], "gzip", 400, "malformed_content_coding"),
        (b"x", "exi", 415, "unsupported_content_coding"),
    ],
)
def test_requests_whose_bodies_cannot_be_read(
    stack: Stack, backend: Backend, content: bytes, coding: str, status: int, reason: str
) -> None:
    response = httpx.post(stack.url + "/bodies", content=content, headers={"content-encoding": coding})
    assert response.status_code == status, response.text
    assert response.headers["x-gateway-reason"] == reason
    assert response.json()["reason"] == reason
    assert backend.seen == []


@pytest.mark.parametrize(
    ("content", "coding", "reason"),
    [
        (b"x" * 300_000, "identity", "response_too_large"),
        (gzip.compress(bytes(10_000_000), mtime=0), "gzip", "response_too_large"),
        (b"no gzip", "gzip", "malformed_content_coding"),
        (b"x", "exi", "unsupported_content_coding"),
    ],
)
def test_responses_whose_bodies_cannot_be_read(
    stack: Stack, backend: Backend, content: bytes, coding: str, reason: str
) -> None:
    backend.body, backend.headers = content, {"content-encoding": coding}
    response = stack.get("/bodies")
    assert response.status_code == 500
    assert response.headers["x-gateway-reason"] == reason
    assert response.json()["reason"] == reason


def test_pieces_are_processed_as_they_come(stack: Stack, backend: Backend) -> None:
    backend.body, backend.headers = b"y" * 100_000, {"content-type": "text/plain"}
    response = httpx.post(stack.url + "/chunks", content=b"x" * 100_000)
    (seen,) = backend.seen
    assert seen["body"] == "X" * 100_000 + "!"
    assert response.content == b"Y" * 100_000 + b"!"


def test_pieces_with_trailers(stack: Stack, backend: Backend) -> None:
    request = (
        b"POST /chunks HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n"
    )
    response = _raw(stack, request)
    assert b"!" in response


@pytest.mark.parametrize("path", ["/skips", "/skips-pieces"])
def test_a_body_that_no_processor_wants_passes_unseen(stack: Stack, backend: Backend, path: str) -> None:
    backend.body = b"y" * 3_000_000
    response = httpx.post(stack.url + path, content=b"x" * 3_000_000)
    (seen,) = backend.seen
    assert seen["body"] == "x" * 3_000_000
    assert seen["headers"]["x-skipped"] == "yes"
    assert response.status_code == 201
    assert response.content == backend.body


@pytest.mark.parametrize("at", ["request_headers", "request_body", "response_headers", "response_body"])
@pytest.mark.parametrize("how", ["raise", "exit", "type", "grow", "header"])
def test_a_processor_that_fails_is_a_500_that_names_the_method(
    stack: Stack, backend: Backend, at: str, how: str
) -> None:
    response = httpx.post(f"{stack.url}/fails?at={at}&how={how}", content=b"x")
    assert response.status_code == 500
    assert response.headers["x-gateway-reason"] == "processor_failed"
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["reason"] == "processor_failed"
    assert problem["detail"] == f"A processor failed in {at}."
    assert problem["request_id"]
    assert len(backend.seen) == (1 if at.startswith("response") else 0)


def test_a_failure_in_a_piece_of_a_request_is_a_500(stack: Stack) -> None:
    response = httpx.post(stack.url + "/fails-in-pieces?at=request_chunk", content=b"x" * 1_000_000)
    assert response.status_code == 500
    assert response.json()["detail"] == "A processor failed in request_chunk."


def test_a_failure_in_a_piece_of_a_response_cuts_it_visibly(stack: Stack, backend: Backend) -> None:
    backend.body, backend.headers = b"y" * 1_000_000, {"content-type": "text/plain"}
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        httpx.post(stack.url + "/fails-in-pieces?at=response_chunk", content=b"x")


def test_a_processor_that_cannot_begin_is_a_500(stack: Stack) -> None:
    response = stack.get("/fails-to-begin")
    assert (response.status_code, response.json()["reason"]) == (500, "processor_failed")
    assert stack.get("/headers/a").status_code == 200, "the server goes on"


@pytest.mark.parametrize("at", ["request_headers", "request_body", "response_headers", "response_body"])
def test_a_processor_answers_in_every_method(stack: Stack, at: str) -> None:
    response = httpx.post(f"{stack.url}/fails?at={at}&how=respond", content=b"x")
    assert response.status_code == 409
    assert response.json() == {"at": at}


@pytest.mark.parametrize("path", ["/slow", "/slow-response"])
def test_a_call_that_takes_too_long_is_a_500(stack: Stack, path: str) -> None:
    response = httpx.post(stack.url + path, content=b"x")
    assert response.status_code == 500
    assert response.headers["x-gateway-reason"] == "processor_timeout"


def test_on_error_allow_lets_the_message_pass_as_it_is(stack: Stack, backend: Backend) -> None:
    backend.body = b"y"
    response = httpx.post(stack.url + "/lenient", content=b"x")
    (seen,) = backend.seen
    assert (response.status_code, response.content, seen["body"]) == (200, b"y", "x")


def test_expect_100_continue(stack: Stack, backend: Backend) -> None:
    with socket.create_connection(("127.0.0.1", stack.listener), timeout=30) as connection:
        connection.sendall(
            b"POST /bodies HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\nconnection: close\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 100")
        connection.sendall(b"abc")
        assert b"200 OK" in connection.recv(65536)
    (seen,) = backend.seen
    assert seen["body"] == "<abc>"


def test_the_gateways_own_answers_are_not_processed(stack: Stack) -> None:
    unreachable = httpx.post(stack.url + "/nobody", content=b"x")
    assert unreachable.status_code == 503
    assert unreachable.json()["reason"] == "upstream_unreachable"
    assert "x-was" not in unreachable.headers


def test_the_access_log_has_the_reason(stack: Stack) -> None:
    stack.get("/fails?at=request_headers&how=raise")

    def reasons() -> list[Any]:
        return [one.get("reason") for one in stack.envoy.access_log()]

    wait_for(lambda: "processor_failed" in reasons(), "the reason in the access log")
