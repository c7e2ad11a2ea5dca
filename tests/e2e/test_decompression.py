"""decompression through a real Envoy: the bytes that other policies and the backend get, and what is rejected."""

from __future__ import annotations

import gzip
import hashlib
import json
import signal
import zlib
from collections.abc import Callable, Iterator

import brotli
import httpx
import pytest
import zstandard

from tests.support.backend import Backend
from tests.support.grpc_service import Service
from tests.support.policy_server import Stack, Stacks
from tests.support.wait import wait_for

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
consumers: {acme: {api_keys: [{sha256: "$digest"}]}}
upstreams:
  echo: {endpoints: ["$echo"]}
  service: {endpoints: ["127.0.0.1:$service"], protocol: grpc}
policies: {decompression: {max_body: 100KB}}
routes:
  plain: {path: /plain, upstream: echo}
  large: {path: /large, upstream: echo, policies: {decompression: {max_body: 4MB}}}
  usual: {path: /usual, upstream: echo, policies: {decompression: true}}
  off: {path: /off, upstream: echo, policies: {decompression: off}}
  socket: {path: /socket, upstream: echo, websocket: true}
  rpc: {path: /t.T/*, upstream: service}
  key: {path: /key, upstream: echo, policies: {api_key: true}}
  schema: {path: /schema, upstream: echo, policies: {validate: {json_schema: {schema: {required: [name]}}}}}
  change: {path: /change, upstream: echo, policies: {transform: {request: {rename: {a: b}}}}}
  policy: {path: /policy, upstream: echo, policies: {ext_authz: {python: "p.py:check", body: true, timeout: 20s}}}
  process: {path: /process, upstream: echo, policies: {ext_proc: {python: "r.py:Upper", timeout: 20s}}}
  sized: {path: /sized, upstream: echo, policies: {validate: {max_body: 1KB}}}
"""
POLICY = """
from filters.ext_authz import Decision, Request, allow, deny

def check(request: Request) -> Decision:
    return allow(headers={"x-seen": request.body.decode()}) if request.body else deny(403)
"""
PROCESSOR = """
from filters.ext_proc import Processor

class Upper(Processor):
    async def request_body(self, request, body):
        return body.upper()
"""
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "deflate": zlib.compress,
    "gzip, br": lambda body: brotli.compress(gzip.compress(body)),
    "identity, gzip": gzip.compress,
}
JSON = {"content-type": "application/json"}
BODY = b'{"a": 1.10, "name": "x"}'


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend) -> Iterator[Stack]:
    with Service("echo").running() as service:
        yield stacks.start(
            YAML,
            files={"p.py": POLICY, "r.py": PROCESSOR},
            echo=backend.address,
            service=service.port,
            digest=hashlib.sha256(b"key").hexdigest(),
        )


@pytest.fixture
def echo(backend: Backend) -> Backend:
    backend.seen.clear()
    return backend


def post(stack: Stack, path: str, body: bytes, coding: str, **headers: str) -> httpx.Response:
    return stack.request("POST", path, content=body, headers={**JSON, "content-encoding": coding, **headers})


def rejected(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["reason"] == answer.headers["x-gateway-reason"]
    assert answer.json()["request_id"]
    return answer.status_code, answer.json()["reason"]


@pytest.mark.parametrize("coding", ENCODERS)
@pytest.mark.parametrize("version", [1, 2])
def test_the_backend_gets_the_plain_body(stack: Stack, echo: Backend, coding: str, version: int) -> None:
    headers = {
        **JSON,
        "content-encoding": coding,
        "content-digest": "sha-256=:x:",
        "repr-digest": "sha-256=:y:",
    }
    with httpx.Client(http1=version == 1, http2=version == 2) as client:
        answer = client.post(f"{stack.url}/plain", content=ENCODERS[coding](BODY), headers=headers)
    assert answer.status_code == 200
    sent = echo.seen[-1]
    assert sent["body"].encode() == BODY
    assert sent["headers"]["content-length"] == str(len(BODY))
    assert not {"content-encoding", "content-digest", "repr-digest", "transfer-encoding"} & set(
        sent["headers"]
    )


def test_a_body_in_pieces_is_decoded_too(stack: Stack, echo: Backend) -> None:
    packed = gzip.compress(BODY)
    pieces = (packed[at : at + 5] for at in range(0, len(packed), 5))
    headers = {**JSON, "content-encoding": "gzip"}
    assert httpx.post(f"{stack.url}/plain", content=pieces, headers=headers).status_code == 200
    assert echo.seen[-1]["body"].encode() == BODY


def test_gzip_of_several_members_is_one_body(stack: Stack, echo: Backend) -> None:
    post(stack, "/plain", gzip.compress(BODY) + gzip.compress(b"  "), "gzip")
    assert echo.seen[-1]["body"].encode() == BODY + b"  "


@pytest.mark.parametrize("coding", ["", "identity"])
def test_other_bodies_pass_at_any_size(stack: Stack, echo: Backend, coding: str) -> None:
    body = b"x" * 300_000
    headers = {"content-encoding": coding} if coding else {}
    answer = stack.request("POST", "/plain", content=body, headers=headers)
    assert answer.status_code == 200
    assert echo.seen[-1]["body"].encode() == body


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_a_request_without_a_body_has_no_coding(stack: Stack, echo: Backend, method: str) -> None:
    assert stack.request(method, "/plain", headers={"content-encoding": "gzip"}).status_code == 200
    assert "content-encoding" not in echo.seen[-1]["headers"]


@pytest.mark.parametrize(
    ("coding", "body", "status", "reason"),
    [
        ("compress", b"x", 415, "unsupported_content_coding"),
        ("gzip, own", b"x", 415, "unsupported_content_coding"),
        ("gzip", b"x", 400, "malformed_content_coding"),
        ("gzip", gzip.compress(BODY)[:-4], 400, "malformed_content_coding"),
        ("br", gzip.compress(BODY), 400, "malformed_content_coding"),
        ("gzip", gzip.compress(b"x" * 100_001), 413, "body_too_large"),
        ("gzip", b"x" * 100_001, 413, "body_too_large"),
    ],
    ids=["unknown", "one unknown", "not gzip", "cut", "other coding", "grows", "large already"],
)
def test_a_body_that_cannot_be_decoded_is_rejected(
    stack: Stack, echo: Backend, coding: str, body: bytes, status: int, reason: str
) -> None:
    answer = post(stack, "/plain", body, coding)
    assert rejected(answer) == (status, reason)
    assert answer.headers.get("accept-encoding") == ("gzip, br, zstd, deflate" if status == 415 else None)
    assert not echo.seen


def test_a_body_of_the_limit_passes(stack: Stack, echo: Backend) -> None:
    assert post(stack, "/plain", gzip.compress(b"x" * 100_000), "gzip").status_code == 200
    assert len(echo.seen[-1]["body"]) == 100_000
    assert (
        post(stack, "/large", zstandard.ZstdCompressor().compress(b"x" * 4_000_000), "zstd").status_code
        == 200
    )
    assert len(echo.seen[-1]["body"]) == 4_000_000


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate"])
def test_a_body_that_grows_a_thousandfold_needs_little_memory(stack: Stack, coding: str) -> None:
    bomb = ENCODERS[coding](bytes(200_000_000))
    assert len(bomb) < 200_000
    before = stack.memory()
    answers = {rejected(post(stack, "/usual", bomb, coding)) for _ in range(5)}
    assert answers == {(413, "body_too_large")}
    assert stack.memory() - before < 50_000_000


def test_other_policies_see_the_plain_body(stack: Stack, echo: Backend) -> None:
    packed = gzip.compress(BODY)
    assert post(stack, "/schema", packed, "gzip").status_code == 200
    assert rejected(post(stack, "/schema", gzip.compress(b"{}"), "gzip")) == (400, "invalid_request")
    post(stack, "/change", packed, "gzip")
    assert echo.seen[-1]["body"].encode() == BODY.replace(b'"a"', b'"b"')
    wait_for(lambda: post(stack, "/policy", packed, "gzip").status_code == 200, "the policy")
    assert echo.seen[-1]["headers"]["x-seen"].encode() == BODY
    post(stack, "/process", packed, "gzip")
    assert echo.seen[-1]["body"].encode() == BODY.upper()


def test_nobody_without_a_credential_makes_the_gateway_decode(stack: Stack, echo: Backend) -> None:
    def decoded() -> float:
        lines = stack.policy_server.metrics().splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith("xds_decoded_bodies_total"))

    before = decoded()
    assert rejected(post(stack, "/key", gzip.compress(BODY), "gzip")) == (401, "api_key_missing")
    assert decoded() == before
    assert post(stack, "/key", gzip.compress(BODY), "gzip", **{"x-api-key": "key"}).status_code == 200
    assert echo.seen[-1]["body"].encode() == BODY
    assert decoded() == before + 1


@pytest.mark.parametrize("size", [1000, 1001, 5000, 90_000])
def test_a_smaller_limit_on_bodies_holds_for_the_plain_body(stack: Stack, echo: Backend, size: int) -> None:
    answer = post(stack, "/sized", gzip.compress(b"x" * size), "gzip")
    if size > 1000:
        assert rejected(answer) == (413, "body_too_large")
    else:
        assert len(echo.seen[-1]["body"]) == size


def test_a_route_without_it_passes_the_compressed_body(stack: Stack, echo: Backend) -> None:
    post(stack, "/off", gzip.compress(BODY, mtime=0), "gzip")
    assert echo.seen[-1]["headers"]["content-encoding"] == "gzip"


def test_grpc_and_upgrades_are_left_alone(stack: Stack, echo: Backend) -> None:
    """Both are streams, whose end may never come."""
    with httpx.Client(http1=False, http2=True) as client:
        headers = {"content-type": "application/grpc", "te": "trailers", "content-encoding": "own"}
        answer = client.post(f"{stack.url}/t.T/Any", content=b"\0\0\0\0\2ok", headers=headers)
    assert answer.content == b"\0\0\0\0\2ok"
    headers = {"connection": "upgrade", "upgrade": "websocket", "content-encoding": "gzip"}
    assert stack.get("/socket", headers=headers).status_code == 200
    assert echo.seen[-1]["headers"]["content-encoding"] == "gzip"


def test_without_a_policy_server_compressed_bodies_are_503(stack: Stack, echo: Backend) -> None:
    stack.policy_server.signal(signal.SIGSTOP)
    try:
        assert rejected(post(stack, "/plain", gzip.compress(BODY), "gzip")) == (
            503,
            "decompression_unavailable",
        )
        assert stack.request("POST", "/plain", content=BODY).status_code == 200
    finally:
        stack.policy_server.signal(signal.SIGCONT)
    assert json.loads(echo.seen[-1]["body"])["name"] == "x"
