"""gRPC through the gateway: calls of every kind, statuses, deadlines, limits, and health checks of the endpoints."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.support.gateway import Gateway, free_port, write
from tests.support.wait import wait_for

YAML = """
listeners: {{http: {{port: {port}, address: 127.0.0.1}}}}
upstreams:
  echo: {{endpoints: ["127.0.0.1:{echo}"], protocol: grpc}}
  none: {{endpoints: [], protocol: grpc}}
  checked:
    endpoints: ["127.0.0.1:{one}", "127.0.0.1:{two}"]
    protocol: grpc
    load_balancing: round_robin
    panic_threshold: 0%
    health_check: {{service: shop, interval: 50ms, timeout: 2s, unhealthy_after: 1, healthy_after: 1}}
routes:
  echo: {{path: /test.Echo/*, upstream: echo}}
  late: {{path: /test.Echo/Never, upstream: echo, timeout: 200ms}}
  small: {{path: /test.Echo/Small, upstream: echo, max_body: 1KiB}}
  none: {{path: /test.None/*, upstream: none}}
  checked: {{path: /test.Checked/*, upstream: checked}}
"""


class Echo(grpc.GenericRpcHandler):
    """Answers every method of every service by the method's name."""

    def __init__(self, name: str = "echo") -> None:
        self.name = name
        self.release = threading.Event()

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler[Any, Any]:
        method = handler_call_details.method.rpartition("/")[2]
        unary: dict[str, Any] = {"Name": self._who, "Missing": self._missing, "Never": self._never}
        if method == "Chat":
            return grpc.stream_stream_rpc_method_handler(lambda messages, _: messages)
        if method == "Count":
            return grpc.unary_stream_rpc_method_handler(self._count)
        return grpc.unary_unary_rpc_method_handler(unary.get(method, lambda message, _: message))

    def _who(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("x-served-by", self.name),))
        return self.name.encode()

    def _missing(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
        raise AssertionError("abort raises")

    def _never(self, message: bytes, _: grpc.ServicerContext) -> bytes:
        self.release.wait(30)
        return message

    def _count(self, message: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(int(message)):
            yield str(number).encode()


class Service:
    """A gRPC server with `Echo` and health checking, for the service `shop`."""

    def __init__(self, name: str) -> None:
        self.echo, self.health = Echo(name), health.HealthServicer()
        self.well(True)
        self._server = grpc.server(futures.ThreadPoolExecutor(8), handlers=(self.echo,))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def well(self, well: bool) -> None:
        status = health_pb2.HealthCheckResponse
        self.health.set("shop", status.SERVING if well else status.NOT_SERVING)

    @contextmanager
    def running(self) -> Iterator[Service]:
        self._server.start()
        try:
            yield self
        finally:
            self.echo.release.set()
            self._server.stop(None).wait()


@pytest.fixture(scope="module")
def services() -> Iterator[list[Service]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Service(name).running()) for name in ("echo", "one", "two")]


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory, services: list[Service]) -> Iterator[grpc.Channel]:
    logs = tmp_path_factory.mktemp("grpc")
    echo, one, two = (service.port for service in services)
    yaml = YAML.format(port=free_port(), echo=echo, one=one, two=two)
    with (
        Gateway(write(logs / "gateway", gateway=yaml), logs) as gateway,
        closing(grpc.insecure_channel(f"127.0.0.1:{gateway.port}")) as channel,
    ):
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
        ("/test.Echo/Never", b"", grpc.StatusCode.UNAVAILABLE, "upstream_timeout"),
        ("/test.Echo/Small", b"x" * 1020, grpc.StatusCode.UNKNOWN, "body_too_large"),
        ("/test.Echo/Small", b"x" * 20_000, grpc.StatusCode.UNKNOWN, "body_too_large"),
    ],
)
def test_the_gateway_answers_with_a_status_and_its_reason(
    channel: grpc.Channel, method: str, message: bytes, code: grpc.StatusCode, reason: str
) -> None:
    refused = _refused(channel, method, message)
    assert refused.code() is code
    assert dict(refused.trailing_metadata())["x-gateway-reason"] == reason
    assert f'"reason":"{reason}"' in refused.details()


def test_a_message_within_the_limit_passes(channel: grpc.Channel) -> None:
    assert _call(channel, "/test.Echo/Small", b"x" * 1019) == b"x" * 1019  # 5 bytes are gRPC's own


def test_an_endpoint_that_says_it_is_not_serving_is_left_out(
    channel: grpc.Channel, services: list[Service]
) -> None:
    _, one, two = services

    def served() -> set[bytes]:
        return {_call(channel, "/test.Checked/Name") for _ in range(6)}

    wait_for(lambda: served() == {b"one", b"two"}, "both endpoints")
    one.well(False)
    wait_for(lambda: served() == {b"two"}, "the endpoint that serves")
    two.well(False)
    wait_for(lambda: _reason(channel, "/test.Checked/Name") == "no_healthy_upstream", "nobody to be left")
    one.well(True)
    wait_for(lambda: served() == {b"one"}, "the endpoint that is back")
