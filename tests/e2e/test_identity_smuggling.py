"""Who calls is said by the gateway alone: whatever way a client finds to say it, the upstream does not hear it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Self

import h2.config
import h2.connection
import h2.events
import pytest

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.identity_cases import ACME, CONSUMERS, PROVIDERS

Fields = Sequence[tuple[str, str]]


class Recorder:
    """An HTTP/2 server that answers 200 and keeps the fields of requests and of their trailers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.seen: list[Fields] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        state = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        state.initiate_connection()
        with connection:
            connection.sendall(state.data_to_send())
            while data := connection.recv(65536):
                for event in state.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived | h2.events.TrailersReceived):
                        self.seen.append(event.headers)
                    elif isinstance(event, h2.events.StreamEnded):
                        state.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
                connection.sendall(state.data_to_send())


class PlainRecorder:
    """An HTTP/1 server that answers one request of a chunked body with 200 and keeps its bytes."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.seen = b""

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            while not (b"\r\n0\r\n" in self.seen and self.seen.endswith(b"\r\n\r\n")):
                self.seen += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


def post(port: int, path: str, headers: Fields, trailers: Fields) -> None:
    """One request over HTTP/2, to its answer."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    start = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), *headers]
    client.send_headers(1, start)
    client.send_data(1, b"x")
    client.send_headers(1, trailers, end_stream=True)
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(client.data_to_send())
        ended = False
        while not ended:
            events = client.receive_data(connection.recv(65536))
            ended = any(isinstance(one, h2.events.StreamEnded) for one in events)
            connection.sendall(client.data_to_send())


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with Recorder() as running:
        yield running


YAML = """
listeners: {http: {port: $port, underscores_in_headers: allow}}
upstreams:
  echo: {endpoints: [$echo]}
  recorder: {endpoints: ["127.0.0.1:$recorder"], protocol: http2}
$providers$consumers
routes:
  open: {path: /open, upstream: recorder}
  key: {path: /key, upstream: recorder, policies: {api_key: true}}
  echo: {path: /echo, upstream: echo, policies: {api_key: true}}
  socket: {path: /socket, upstream: echo, websocket: true, policies: {api_key: true}}
  open-socket: {path: /open-socket, upstream: echo, websocket: true}
  respond: {path: /respond, respond: {status: 200, body: hi}, policies: {api_key: true}}
  redirect: {path: /redirect, redirect: {to: "https://x.test/", status: 302}, policies: {api_key: true}}
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend, recorder: Recorder) -> Gateway:
    return gateways.start(
        YAML,
        files={"jwks.json": tokens.jwks()},
        echo=backend.address,
        recorder=recorder.port,
        providers=PROVIDERS,
        consumers=CONSUMERS,
    )


def ask(gateway: Gateway, path: str, headers: str, method: str = "GET") -> tuple[int, bytes]:
    """Status and body of a request whose headers go out as they are written."""
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as connection:
        lines = f"{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n"
        connection.sendall(lines.encode())
        with connection.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            length = 0
            while line := answer.readline().strip().lower():
                name, _, value = line.partition(b":")
                length = int(value) if name == b"content-length" else length
            return status, b"" if method == "HEAD" else answer.read(length)


@pytest.mark.parametrize("path", ["/open", "/key"])
def test_trailers_say_it_no_more_than_headers(gateway: Gateway, recorder: Recorder, path: str) -> None:
    recorder.seen.clear()
    spoofed = [("x-consumer", "root"), ("x_consumer", "root"), ("x-user-id", "root")]
    post(gateway.port, path, [*spoofed, ("x-api-key", ACME)], [*spoofed, ("x-checksum", "1")])
    headers, trailers = recorder.seen
    said = {name: value for name, value in headers if name.startswith(("x-consumer", "x_", "x-user"))}
    assert said == ({} if path == "/open" else {"x-consumer": "acme", "x-consumer-plan": "pro"})
    assert list(trailers) == [("x-checksum", "1")]


PLAIN = """
listeners: {http: {port: $port, underscores_in_headers: $underscores}}
upstreams: {recorder: {endpoints: ["127.0.0.1:$recorder"]}}
routes:
  open: {path: /open, upstream: recorder}
"""


@pytest.mark.parametrize("underscores", ["reject", "drop", "allow"])
def test_an_upstream_of_http_1_hears_it_in_no_way(gateways: Gateways, underscores: str) -> None:
    """Envoy drops the trailers, so that no filter has to remove them."""
    said = [("x-consumer", "root"), ("x-consumer-plan", "pro")]
    spelled = [("x_consumer", "root"), ("x-consumer_plan", "pro"), ("x_consumer_plan", "pro")]
    with PlainRecorder() as recorder:
        gateway = gateways.start(PLAIN, recorder=recorder.port, underscores=underscores)
        sent = said if underscores == "reject" else [*said, *spelled]
        post(gateway.port, "/open", [*sent, ("x-kept", "1")], [*said, ("x-checksum", "1")])
        head, _, rest = recorder.seen.lower().partition(b"\r\n\r\n")
    assert b"\r\nx-kept: 1" in head
    assert b"consumer" not in head
    assert rest == b"1\r\nx\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("path", "headers", "consumer"),
    [
        ("/echo", "connection: x-consumer, x-consumer-plan\r\n", "acme"),
        ("/echo", "x-a: b\r\n x-consumer: root\r\n", "acme"),
        ("/socket", "connection: upgrade, x-consumer\r\nupgrade: websocket\r\nx-consumer: root\r\n", "acme"),
        ("/open-socket", "connection: upgrade\r\nupgrade: websocket\r\nx-consumer: root\r\n", None),
    ],
)
def test_no_header_takes_it_away_or_brings_another(
    gateway: Gateway, backend: Backend, path: str, headers: str, consumer: str | None
) -> None:
    backend.seen.clear()
    ask(gateway, path, f"x-api-key: {ACME}\r\n{headers}")
    (seen,) = backend.seen
    assert [value for name, value in seen["header_list"] if name in ("x-consumer", "x_consumer")] == (
        [consumer] if consumer else []
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"])
@pytest.mark.parametrize("path", ["/echo", "/respond", "/redirect"])
def test_no_method_and_no_answer_of_the_gateway_itself_goes_without_a_credential(
    gateway: Gateway, path: str, method: str
) -> None:
    assert ask(gateway, path, "x-consumer: acme\r\n", method)[0] == 401


def test_an_upgrade_without_a_credential_is_refused(gateway: Gateway) -> None:
    status, body = ask(gateway, "/socket", "connection: upgrade\r\nupgrade: websocket\r\n")
    assert (status, json.loads(body)["reason"]) == (401, "api_key_missing")
