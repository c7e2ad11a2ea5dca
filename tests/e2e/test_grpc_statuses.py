"""gRPC statuses of what the policy server decides, for clients of gRPC and of gRPC-Web."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import grpc
import httpx
import pytest

from tests.support.grpc_service import Service
from tests.support.policy_server import Stack, Stacks
from tests.support.wait import wait_for

POLICY = """
from filters.ext_authz import Decision, Request, allow, deny

async def check(request: Request) -> Decision:
    wanted = request.headers.get("x-status")
    return deny(int(wanted)) if wanted else allow()
"""
UNAVAILABLE_RETRIED = (
    '{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.01s", '
    '"maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}'
)
FRAME = b"\0\0\0\0\0"


YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams:
  echo: {endpoints: ["127.0.0.1:$service"], protocol: grpc}
  none: {endpoints: [], protocol: grpc}
policies: {grpc_web: true}
errors: {ip_denied: {status: 404}}
consumers: {acme: {api_keys: [{sha256: "$digest"}]}}
routes:
  rate: {path: /t.T/Rate, upstream: echo, policies: {rate_limit: {requests: 1, per: month, by: "header:x-who"}}}
  quota: {path: /t.T/Quota, upstream: echo, policies: {quota: {bytes: 1B, per: month, by: "header:x-who"}}}
  local: {path: /t.T/Local, upstream: echo, policies: {rate_limit: {requests: 1, per: month, scope: local, by: "header:x-who"}}}
  both: {path: /t.T/Both, upstream: echo, policies: {ext_authz: {python: "p.py:check", timeout: 20s}, rate_limit: {requests: 1, per: month, by: "header:x-who"}}}
  python: {path: /t.T/Python, upstream: echo, policies: {ext_authz: {python: "p.py:check", timeout: 20s}}}
  late: {path: /t.T/Never, upstream: echo, timeout: 100ms}
  get: {path: /t.T/Get, methods: [GET], upstream: echo}
  header: {path: /t.T/Header, upstream: echo, policies: {validate: {required_headers: [x-wanted]}}}
  key: {path: /t.T/Key, upstream: echo, policies: {api_key: true}}
  denied: {path: /t.T/Denied, upstream: echo, policies: {ip_access: {deny: [127.0.0.0/8]}}}
  none: {path: /t.T/None, upstream: none}
  answered: {path: /t.T/Answered, respond: {status: 429, body: later}}
"""


@pytest.fixture(scope="module")
def stack(stacks: Stacks) -> Iterator[Stack]:
    with Service("echo").running() as service:
        stack = stacks.start(YAML, files={"p.py": POLICY}, tcp=True, service=service.port, digest="0" * 64)
        wait_for(lambda: web(stack, "Rate", x_who="ready").headers.get("ratelimit"), "the first decision")
        yield stack


def web(stack: Stack, method: str, **headers: str) -> httpx.Response:
    """A call of gRPC-Web."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    sent["content-type"] = "application/grpc-web+proto"
    return httpx.post(f"{stack.url}/t.T/{method}", headers=sent, content=FRAME, timeout=30)


def status(stack: Stack, method: str, **headers: str) -> grpc.StatusCode:
    """The status of a call of gRPC, by a client that tries again where that is its way."""
    metadata = [(name.replace("_", "-"), value) for name, value in headers.items()]
    options = [("grpc.service_config", UNAVAILABLE_RETRIED), ("grpc.use_local_subchannel_pool", 1)]
    with closing(grpc.insecure_channel(stack.url.removeprefix("http://"), options)) as channel:
        try:
            channel.unary_unary(f"/t.T/{method}")(b"", timeout=30, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined, no-any-return]
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", ["Rate", "Local", "Both", "Quota"])
def test_a_limit_is_exhausted_and_not_unavailable(stack: Stack, method: str) -> None:
    if method == "Quota":  # counted when an answer has ended
        web(stack, method, x_who="grpc")
        wait_for(
            lambda: web(stack, method, x_who="grpc").headers.get("grpc-status") == "8", "the bytes to count"
        )
    else:
        assert status(stack, method, x_who="grpc") is grpc.StatusCode.OK
    assert status(stack, method, x_who="grpc") is grpc.StatusCode.RESOURCE_EXHAUSTED
    answer = web(stack, method, x_who="grpc")
    assert (answer.status_code, answer.headers["grpc-status"]) == (200, "8")


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("Never", grpc.StatusCode.DEADLINE_EXCEEDED),
        ("Get", grpc.StatusCode.UNIMPLEMENTED),
        ("Header", grpc.StatusCode.INVALID_ARGUMENT),
        ("Key", grpc.StatusCode.UNAUTHENTICATED),
        ("Denied", grpc.StatusCode.UNIMPLEMENTED),  # errors: gives it the status of what is not there
        ("None", grpc.StatusCode.UNAVAILABLE),
        ("Nothing", grpc.StatusCode.UNIMPLEMENTED),
        ("Answered", grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_each_answer_of_the_gateway_has_its_status(stack: Stack, method: str, code: grpc.StatusCode) -> None:
    assert status(stack, method) is code
    answer = web(stack, method)
    assert (answer.status_code, answer.headers["grpc-status"]) == (200, str(code.value[0]))
    plain = httpx.post(f"{stack.url}/t.T/{method}", content=b"")
    assert "grpc-status" not in plain.headers


@pytest.mark.parametrize(
    ("http", "code"),
    [
        ("400", grpc.StatusCode.INVALID_ARGUMENT),
        ("401", grpc.StatusCode.UNAUTHENTICATED),
        ("403", grpc.StatusCode.PERMISSION_DENIED),
        ("404", grpc.StatusCode.UNIMPLEMENTED),
        ("429", grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("503", grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_what_a_policy_in_python_refuses_has_the_status_of_its_status(
    stack: Stack, http: str, code: grpc.StatusCode
) -> None:
    assert status(stack, "Python", x_status=http) is code
    answer = web(stack, "Python", x_status=http)
    assert (answer.status_code, answer.headers["grpc-status"]) == (200, str(code.value[0]))


def test_what_the_upstream_says_stays(stack: Stack) -> None:
    assert status(stack, "Python") is grpc.StatusCode.OK
    assert b"grpc-status:0" in web(stack, "Python").content
