"""No answer of an authorization service changes how a message is framed, towards the upstream or towards the client."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from websockets.sync.client import connect
from websockets.sync.server import serve

from filters.framing import BODYLESS, HEADERS
from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways

VALUES = {
    ":path": "no slash",
    ":status": "201",
    "query": "a b\tc",
    "connection": "close, x-mine",
    "content-length": "3",
    "host": "evil.test",
    "te": "trailers",
    "transfer-encoding": "chunked",
    "upgrade": "websocket",
}
YAML = """
listeners: {http: {port: $port}}
upstreams:
  echo: {endpoints: ["$echo"]}
  socket: {endpoints: ["$socket"]}
  grpc-service: {endpoints: ["$grpc"], protocol: grpc}
  http-service: {endpoints: ["$http"]}
routes:
  grpc: {path: /grpc, upstream: echo, policies: {ext_authz: {grpc: grpc-service, timeout: 10s}}}
  http:
    path: /http
    upstream: echo
    policies:
      ext_authz: {timeout: 10s, http: {upstream: http-service, upstream_headers: [c*, h*, k*, p*, t*, u*, x-own]}}
  fault-204: {path: /fault/204, upstream: echo, policies: {fault: {abort: 204}}}
  fault-205: {path: /fault/205, upstream: echo, policies: {fault: {abort: 205}}}
  fault-304: {path: /fault/304, upstream: echo, policies: {fault: {abort: 304}}}
  own-204: {path: /own/204, respond: {status: 204}}
  own-205: {path: /own/205, respond: {status: 205}}
  own-304: {path: /own/304, respond: {status: 304}}
  socket: {path: /socket, upstream: socket, websocket: true, policies: {ext_authz: {grpc: grpc-service, timeout: 10s}}}
"""


class Service(external_auth_pb2_grpc.AuthorizationServicer):
    """Answers as the request's headers say: ``x-do`` what, ``x-name`` with which header."""

    def Check(  # noqa: N802 - the name of the method in the protocol
        self, request: external_auth_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> external_auth_pb2.CheckResponse:
        asked = request.attributes.request.http.headers
        response = external_auth_pb2.CheckResponse()
        own = _option("x-own", "1")
        named = _option(asked["x-name"], VALUES.get(asked["x-name"], "x")) if "x-name" in asked else own
        match asked.get("x-do"):
            case "set":
                response.ok_response.headers.extend([own, named])
            case "query":
                response.ok_response.headers.append(own)
                response.ok_response.query_parameters_to_set.add(key="q", value=VALUES["query"])
            case "remove":
                response.ok_response.headers.append(own)
                response.ok_response.headers_to_remove.append(asked["x-name"])
            case "respond":
                response.ok_response.response_headers_to_add.extend([own, named])
            case "deny":
                response.status.code = 7
                response.denied_response.status.code = int(asked.get("x-status", "403"))  # type: ignore[assignment]
                response.denied_response.body = "denied"
                response.denied_response.headers.extend([own, named])
        return response


def _option(name: str, value: str) -> base_pb2.HeaderValueOption:
    option = base_pb2.HeaderValueOption(append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)
    option.header.key, option.header.value = name, value
    return option


@pytest.fixture(scope="module")
def service() -> Iterator[Backend]:
    with Backend("service") as service:
        yield service


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend, service: Backend) -> Iterator[Gateway]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    echoing = serve(lambda socket: [socket.send(message) for message in socket], "127.0.0.1", 0)
    with echoing, futures.ThreadPoolExecutor(1) as thread:
        thread.submit(echoing.serve_forever)
        yield gateways.start(
            YAML,
            echo=backend.address,
            socket=f"127.0.0.1:{echoing.socket.getsockname()[1]}",
            grpc=f"127.0.0.1:{port}",
            http=service.address,
        )
        echoing.shutdown()
    server.stop(None)


def _post(gateway: Gateway, path: str, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
    """Two requests on one connection: the second is lost where the first was framed wrongly."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    try:
        for _ in range(2):
            connection.request("POST", path, body=b"hello", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        return answer, body
    finally:
        connection.close()


def _expect_request(body: bytes) -> None:
    """The upstream saw what the client sent, and what the service may add."""
    seen = json.loads(body)
    names = [name for name, _ in seen["header_list"]]
    assert seen["body"] == "hello"
    assert seen["headers"]["content-length"] == "5"
    assert seen["headers"]["x-own"] == "1"
    assert seen["headers"]["host"] != "evil.test"
    assert sorted(HEADERS.intersection(names)) == ["content-length", "host"]


@pytest.mark.parametrize("name", sorted(HEADERS))
@pytest.mark.parametrize("what", ["set", "remove"])
def test_a_service_over_grpc_does_not_frame_requests(gateway: Gateway, what: str, name: str) -> None:
    answer, body = _post(gateway, "/grpc", {"x-do": what, "x-name": name})
    assert answer.status == 200
    _expect_request(body)


@pytest.mark.parametrize(
    "name", [":path", ":method", ":authority", ":scheme", ":protocol", ":status", ":own"]
)
@pytest.mark.parametrize("what", ["set", "remove"])
def test_a_service_over_grpc_changes_no_pseudo_header(gateway: Gateway, what: str, name: str) -> None:
    answer, body = _post(gateway, "/grpc?a=b", {"x-do": what, "x-name": name})
    assert answer.status == 200
    _expect_request(body)
    seen = json.loads(body)
    assert (seen["method"], seen["path"]) == ("POST", "/grpc?a=b")


def test_a_parameter_with_a_space_is_no_answer_of_a_service_over_grpc(gateway: Gateway) -> None:
    answer, body = _post(gateway, "/grpc?a=b", {"x-do": "query"})
    assert (answer.status, json.loads(body)["reason"]) == (500, "ext_authz_invalid")


@pytest.mark.parametrize(
    ("what", "name", "status"),
    [
        ("respond", ":path", 200),
        ("respond", ":own", 200),
        ("deny", ":path", 403),
        ("deny", ":status", 403),
        ("deny", ":own", 403),
    ],
)
def test_a_service_over_grpc_sets_no_pseudo_header_of_an_answer(
    gateway: Gateway, what: str, name: str, status: int
) -> None:
    answer, _ = _post(gateway, "/grpc", {"x-do": what, "x-name": name})
    assert answer.status == status
    assert not [one for one in answer.headers if one.startswith(":")]
    _expect_response(answer)


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_a_service_over_grpc_does_not_frame_responses(gateway: Gateway, name: str) -> None:
    answer, body = _post(gateway, "/grpc", {"x-do": "respond", "x-name": name})
    assert answer.status == 200
    assert json.loads(body)["body"] == "hello"
    _expect_response(answer)


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_a_service_over_grpc_does_not_frame_its_refusals(gateway: Gateway, name: str) -> None:
    answer, body = _post(gateway, "/grpc", {"x-do": "deny", "x-name": name})
    assert (answer.status, body) == (403, b"denied")
    _expect_response(answer)


def _expect_response(answer: http.client.HTTPResponse) -> None:
    assert answer.headers["x-own"] == "1"
    names = [name.lower() for name in answer.headers]
    assert set(HEADERS.intersection(names)) <= {"connection", "content-length", "transfer-encoding"}
    assert answer.headers.get("connection", "close") == "close"  # Envoy may close where a body was not read
    assert answer.headers.get("content-length", "") != "3"


@pytest.mark.parametrize("status", sorted(BODYLESS))
@pytest.mark.parametrize("path", ["/grpc", "/http", "/fault", "/own"])
def test_a_status_without_a_body_has_none(gateway: Gateway, service: Backend, path: str, status: int) -> None:
    service.headers, service.body, service.status = {}, b"" if path == "/http" else b"x", status
    try:
        path = f"{path}/{status}" if path in ("/fault", "/own") else path
        answer, body = _post(gateway, path, {"x-do": "deny", "x-status": str(status)})
    finally:
        service.status = 200
    assert (answer.status, body) == (status, b"")
    assert answer.headers.get("content-length", "0") == "0"
    assert "location" not in answer.headers


def test_a_websocket_is_still_upgraded(gateway: Gateway) -> None:
    with connect(f"ws://127.0.0.1:{gateway.port}/socket", proxy=None) as socket:
        socket.send("hello")
        assert socket.recv() == "hello"


@pytest.mark.parametrize("name", sorted(HEADERS - {"content-length", "transfer-encoding"}))
def test_a_service_over_http_does_not_frame_requests(gateway: Gateway, service: Backend, name: str) -> None:
    service.headers, service.body = {name: VALUES.get(name, "x"), "x-own": "1"}, b"abc"
    answer, body = _post(gateway, "/http", {})
    assert answer.status == 200
    _expect_request(body)


@pytest.mark.parametrize("name", ["host", "http2-settings", "keep-alive", "te", "trailer"])
def test_a_service_over_http_does_not_frame_its_refusals(
    gateway: Gateway, service: Backend, name: str
) -> None:
    service.headers, service.body, service.status = {name: "x", "x-own": "1"}, b"denied", 403
    try:
        answer, body = _post(gateway, "/http", {})
    finally:
        service.status = 200
    assert (answer.status, body) == (403, b"denied")
    _expect_response(answer)
