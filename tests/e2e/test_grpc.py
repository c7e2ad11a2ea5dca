"""gRPC through the gateway: calls of every kind, statuses, deadlines, limits, and health checks of the endpoints."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import grpc
import httpx
import pytest

from tests.support.gateway import Gateway, Gateways
from tests.support.grpc_service import Service
from tests.support.wait import wait_for
from xds_server.gateway.model.routes import TIMEOUT

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams:
  echo: {endpoints: ["127.0.0.1:$echo"], protocol: grpc}
  none: {endpoints: [], protocol: grpc}
  checked:
    endpoints: ["127.0.0.1:$one", "127.0.0.1:$two"]
    protocol: grpc
    load_balancing: round_robin
    panic_threshold: 0%
    health_check: {service: shop, interval: 50ms, timeout: 2s, unhealthy_after: 1, healthy_after: 1}
routes:
  echo: {path: /test.Echo/*, upstream: echo}
  slow: {path: /test.Echo/Slow/*, upstream: echo, request_headers: {remove: [grpc-timeout]}}
  capped: {path: /test.Echo/Late/*, upstream: echo, timeout: 100ms}
  late: {path: /test.Echo/Never, upstream: echo, timeout: 200ms, request_headers: {remove: [grpc-timeout]}}
  small: {path: /test.Echo/Small, upstream: echo, max_body: 1KiB}
  denied: {path: /test.Echo/Scope, upstream: echo, policies: {ip_access: {deny: [127.0.0.0/8]}}}
  header: {path: /test.Echo/Header, upstream: echo, policies: {validate: {required_headers: [x-wanted]}}}
  none: {path: /test.None/*, upstream: none}
  checked: {path: /test.Checked/*, upstream: checked}
"""


@pytest.fixture(scope="module")
def services() -> Iterator[list[Service]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Service(name).running()) for name in ("echo", "one", "two")]


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, services: list[Service]) -> Gateway:
    echo, one, two = (service.port for service in services)
    return gateways.start(YAML, echo=echo, one=one, two=two)


@pytest.fixture(scope="module")
def channel(gateway: Gateway) -> Iterator[grpc.Channel]:
    with closing(grpc.insecure_channel(f"127.0.0.1:{gateway.port}")) as channel:
        yield channel


def _call(channel: grpc.Channel, method: str, message: bytes = b"", timeout: float = 30) -> Any:
    return channel.unary_unary(method)(message, timeout=timeout)


def _refused(channel: grpc.Channel, method: str, message: bytes = b"", timeout: float = 30) -> Any:
    with pytest.raises(grpc.RpcError) as refused:
        _call(channel, method, message, timeout)
    return refused.value


def _reason(channel: grpc.Channel, method: str) -> str | None:
    """Why the gateway refused the call, None when it did not."""
    try:
        _call(channel, method)
    except grpc.RpcError as refused:
        return dict(refused.trailing_metadata())["x-gateway-reason"]  # type: ignore[attr-defined]
    return None


def test_calls_of_every_kind_pass(channel: grpc.Channel) -> None:
    assert _call(channel, "/test.Echo/Echo", b"x" * 200_000) == b"x" * 200_000
    counted = channel.unary_stream("/test.Echo/Count")(b"50", timeout=30)
    assert [int(one) for one in counted] == list(range(50))


def test_both_sides_of_a_stream_talk_in_turn(channel: grpc.Channel) -> None:
    heard: list[bytes] = []

    def say() -> Iterator[bytes]:
        for number in range(5):
            wait_for(lambda wanted=number: len(heard) == wanted, "the answer to what was said before")
            yield str(number).encode()

    for answer in channel.stream_stream("/test.Echo/Chat")(say(), timeout=60):
        heard += [answer]  # one by one, for say() looks at it
    assert heard == [b"0", b"1", b"2", b"3", b"4"]


def test_what_the_service_says_arrives(channel: grpc.Channel) -> None:
    refused = _refused(channel, "/test.Echo/Missing")
    assert (refused.code(), refused.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")
    _, call = channel.unary_unary("/test.Echo/Name").with_call(b"", timeout=30)
    assert dict(call.trailing_metadata())["x-served-by"] == "echo"


@pytest.mark.parametrize(
    ("method", "message", "code", "reason"),
    [
        ("/test.Nobody/Any", b"", grpc.StatusCode.UNIMPLEMENTED, "not_found"),
        ("/test.None/Any", b"", grpc.StatusCode.UNAVAILABLE, "no_healthy_upstream"),
        ("/test.Echo/Never", b"", grpc.StatusCode.DEADLINE_EXCEEDED, "upstream_timeout"),
        ("/test.Echo/Small", b"x" * 1020, grpc.StatusCode.RESOURCE_EXHAUSTED, "body_too_large"),
        ("/test.Echo/Small", b"x" * 20_000, grpc.StatusCode.RESOURCE_EXHAUSTED, "body_too_large"),
        ("/test.Echo/Scope", b"", grpc.StatusCode.PERMISSION_DENIED, "ip_denied"),
        ("/test.Echo/Header", b"", grpc.StatusCode.INVALID_ARGUMENT, "missing_header"),
    ],
)
def test_the_gateway_answers_with_a_status_and_its_reason(
    channel: grpc.Channel, method: str, message: bytes, code: grpc.StatusCode, reason: str
) -> None:
    refused = _refused(channel, method, message)
    assert refused.code() is code
    assert dict(refused.trailing_metadata())["x-gateway-reason"] == reason
    assert f'"reason":"{reason}"' in refused.details()


def test_the_time_limit_of_a_call_is_that_of_its_client(gateway: Gateway) -> None:
    """Asked without a library, which would end the call by its own clock. The service is told the limit too, so that either
    it or the gateway answers first.
    """
    headers = {"content-type": "application/grpc", "te": "trailers", "grpc-timeout": "200m"}
    with httpx.Client(base_url=gateway.url, http1=False, http2=True, timeout=30, headers=headers) as client:
        for method in ("Slow/Never", "Late/Never"):
            answer = client.post(f"/test.Echo/{method}", content=b"\0\0\0\0\0")
            assert answer.headers["grpc-status"] == "4"
            assert answer.headers.get("x-gateway-reason", "upstream_timeout") == "upstream_timeout"
        assert "grpc-status" not in client.post("/test.Echo/Echo", content=b"\0\0\0\0\0").headers
        with pytest.raises(httpx.RemoteProtocolError, match="StreamReset"):  # its answer has begun
            client.post("/test.Echo/Slow/Unending", content=b"\0\0\0\0\0")


def test_a_stream_lasts_longer_than_other_answers_may(channel: grpc.Channel, services: list[Service]) -> None:
    messages = channel.unary_stream("/test.Echo/Unending")(b"", timeout=60)
    assert next(messages) == b"first"
    threading.Event().wait(TIMEOUT.total_seconds() + 1)
    services[0].echo.release.set()
    assert list(messages) == [b"last"]
    services[0].echo.release.clear()


def test_a_message_within_the_limit_passes(channel: grpc.Channel) -> None:
    assert _call(channel, "/test.Echo/Small", b"x" * 1019) == b"x" * 1019  # 5 bytes are gRPC's own


def test_an_endpoint_that_says_it_is_not_serving_is_left_out(
    channel: grpc.Channel, services: list[Service]
) -> None:
    _, one, two = services

    def served() -> set[bytes]:
        return {_call(channel, "/test.Checked/Name") for _ in range(6)}

    unserved = (grpc.RpcError,)
    wait_for(lambda: served() == {b"one", b"two"}, "both endpoints", also=unserved)
    one.well(False)
    wait_for(lambda: served() == {b"two"}, "the endpoint that serves", also=unserved)
    two.well(False)
    wait_for(lambda: _reason(channel, "/test.Checked/Name") == "no_healthy_upstream", "nobody to be left")
    one.well(True)
    wait_for(lambda: served() == {b"one"}, "the endpoint that is back", also=unserved)
