"""Bodies that are no text reach policies and services byte for byte, whatever else the policy says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc

from tests.support.backend import Backend
from tests.support.policy_server import Stack, Stacks

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams:
  echo: {endpoints: ["$echo"]}
  service: {endpoints: ["127.0.0.1:$service"], protocol: grpc}
  http: {endpoints: ["$http"]}
routes:
  deny: {path: /deny, upstream: echo, policies: {ext_authz: {python: "p.py:told", body: true, timeout: 20s}}}
  allow: {path: /allow, upstream: echo, policies: {ext_authz: {python: "p.py:told", body: true, timeout: 20s, on_error: allow}}}
  narrow: {path: /narrow, upstream: echo, policies: {ext_authz: {python: "p.py:told", body: true, timeout: 20s, headers: [x-a]}}}
  cut: {path: /cut, upstream: echo, policies: {ext_authz: {python: "p.py:told", body: {max: 8, partial: true}, timeout: 20s}}}
  limited:
    path: /limited
    upstream: echo
    policies: {ext_authz: {python: "p.py:told", body: true, timeout: 20s, headers: [x-a]}, rate_limit: 1000000/hour}
  service: {path: /service, upstream: echo, policies: {ext_authz: {grpc: service, body: true, timeout: 20s}}}
  lenient: {path: /lenient, upstream: echo, policies: {ext_authz: {grpc: service, body: true, timeout: 20s, on_error: allow}}}
  http: {path: /http, upstream: echo, policies: {ext_authz: {http: http, body: true, timeout: 20s}}}
  bare: {path: /bare, upstream: echo, policies: {ext_authz: {python: "p.py:told", timeout: 20s, headers: [x-a]}}}
"""
POLICY = """
import hashlib
from filters.ext_authz import Decision, Request, allow

async def told(request: Request) -> Decision:
    body = request.body
    return allow(headers={"x-digest": "none" if body is None else hashlib.sha256(body).hexdigest()})
"""
BODY = bytes(range(256)) + "é€".encode() + b"\xff\xfe"


class Service(external_auth_pb2_grpc.AuthorizationServicer):
    """Tells the upstream the digest of the body that it got."""

    def Check(  # noqa: N802 - the name of the method in the protocol
        self, request: external_auth_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> external_auth_pb2.CheckResponse:
        response = external_auth_pb2.CheckResponse()
        option = response.ok_response.headers.add()
        option.header.key = "x-digest"
        option.header.value = hashlib.sha256(request.attributes.request.http.raw_body).hexdigest()
        return response


@pytest.fixture(scope="module")
def http() -> Iterator[Backend]:
    with Backend("http") as http:
        yield http


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend, http: Backend) -> Iterator[Stack]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    addresses = {"echo": backend.address, "service": port, "http": http.address}
    yield stacks.start(YAML, files={"p.py": POLICY}, **addresses)
    server.stop(None).wait()


@pytest.mark.parametrize("path", ["/deny", "/allow", "/narrow", "/limited", "/service", "/lenient"])
@pytest.mark.parametrize("body", [BODY, b"plain", b"\0", "é".encode("latin1")])
def test_a_body_is_sent_byte_for_byte(stack: Stack, backend: Backend, path: str, body: bytes) -> None:
    answer = stack.request("POST", path, content=body)
    assert answer.status_code == 200, answer.text
    assert backend.seen[-1]["headers"]["x-digest"] == hashlib.sha256(body).hexdigest()
    assert backend.seen[-1]["headers"]["content-length"] == str(len(body))


def test_the_beginning_of_a_body_too(stack: Stack, backend: Backend) -> None:
    assert stack.request("POST", "/cut", content=BODY[250:]).status_code == 200
    assert backend.seen[-1]["headers"]["x-digest"] == hashlib.sha256(BODY[250:258]).hexdigest()


def test_a_service_over_http_gets_a_text(stack: Stack, http: Backend) -> None:
    """Envoy sends it no body at all if bytes are asked for, and bytes that are no UTF-8 are no text."""
    assert stack.request("POST", "/http", content="plain é".encode()).status_code == 200
    assert http.seen[-1]["body"] == "plain é"


def test_a_policy_without_the_body_does_not_wait_for_it(stack: Stack, backend: Backend) -> None:
    large = b"\xff" * 100_000
    assert stack.request("POST", "/bare", content=large).status_code == 200
    assert backend.seen[-1]["headers"]["x-digest"] == "none"
