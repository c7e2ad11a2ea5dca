"""Processors on routes whose messages are streams: gRPC, WebSocket and server-sent events."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from queue import SimpleQueue

import grpc
import httpx
import pytest
import websockets.sync.client
import websockets.sync.server

from tests.support.backend import Backend
from tests.support.grpc_service import Service
from tests.support.policy_server import Stack, Stacks
from tests.support.sockets import SocketServer, read_head
from tests.support.wait import wait_for

PROCESSORS = """
from filters.ext_proc import Processor, change


class Pieces(Processor):
    async def request_headers(self, request):
        return change({"x-seen": "yes"})

    async def request_chunk(self, request, chunk, last):
        return chunk

    async def response_headers(self, request, response):
        return change({"x-seen": "yes"})

    async def response_chunk(self, request, response, chunk, last):
        return chunk.replace(b"data", b"DATA")


class Whole(Processor):
    async def response_body(self, request, response, body):
        return body
"""
GATEWAY = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams:
  echo: {endpoints: ["127.0.0.1:$echo"], protocol: grpc}
  socket: {endpoints: ["127.0.0.1:$socket"]}
  events: {endpoints: ["$events"]}
  any: {endpoints: ["$backend"]}
routes:
  calls: {path: /test.Echo/*, upstream: echo, policies: {ext_proc: {python: "p.py:Pieces", timeout: 5s}}}
  socket: {path: /socket, upstream: socket, websocket: true, policies: {ext_proc: {python: "p.py:Pieces", timeout: 5s}}}
  events: {path: /events, upstream: events, policies: {ext_proc: {python: "p.py:Pieces", timeout: 5s}}}
  whole: {path: /whole, upstream: events, policies: {ext_proc: {python: "p.py:Whole", timeout: 5s}}}
  any: {path: /any, upstream: any, policies: {ext_proc: {python: "p.py:Whole", timeout: 5s}}}
"""


def _events(connection: socket.socket) -> None:
    read_head(connection)
    connection.sendall(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: 1\n\n"
    )
    if connection.recv(1) == b"":  # the client has read the first event, and leaves
        return


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    def echo(connection: websockets.sync.server.ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with (
        Service("echo").running() as service,
        websockets.sync.server.serve(echo, "127.0.0.1", 0) as server,
        SocketServer(_events) as events,
        Backend() as backend,
        Stacks(tmp_path_factory.mktemp("streams")) as stacks,
    ):
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = server.socket.getsockname()[1]
        one = stacks.start(
            GATEWAY,
            files={"p.py": PROCESSORS},
            echo=service.port,
            socket=port,
            events=events.address,
            backend=backend.address,
        )
        wait_for(lambda: one.get("/any").status_code == 200, "the processors")
        yield one
        server.shutdown()


@pytest.fixture(scope="module")
def channel(stack: Stack) -> Iterator[grpc.Channel]:
    with closing(grpc.insecure_channel(f"127.0.0.1:{stack.listener}")) as channel:
        yield channel


def test_a_grpc_stream_passes_message_by_message(channel: grpc.Channel) -> None:
    sent: SimpleQueue[bytes | None] = SimpleQueue()
    call = channel.stream_stream("/test.Echo/Chat")(iter(sent.get, None), timeout=30)
    for number in range(5):
        sent.put(b"data %d" % number)
        assert next(call) == b"DATA %d" % number
    sent.put(None)
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK
    assert dict(call.initial_metadata())["x-seen"] == "yes"


def test_the_trailers_of_a_call_are_kept(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/test.Echo/Name").with_call(b"", timeout=30)[1]
    assert dict(call.trailing_metadata())["x-served-by"] == "echo"
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/test.Echo/Missing")(b"", timeout=30)
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")


def test_an_upgrade_passes_in_pieces(stack: Stack) -> None:
    with websockets.sync.client.connect(f"ws://127.0.0.1:{stack.listener}/socket", open_timeout=30) as one:
        assert one.response is not None
        assert one.response.headers["x-seen"] == "yes"
        for text in ("one", "two"):
            one.send(text)
            assert one.recv(30) == text


def test_events_pass_as_they_come(stack: Stack) -> None:
    with httpx.stream("GET", stack.url + "/events", timeout=30) as response:
        assert next(response.iter_raw()) == b"DATA: 1\n\n"


def test_events_are_no_whole_body(stack: Stack) -> None:
    response = stack.get("/whole")
    assert (response.status_code, response.json()["reason"]) == (500, "processor_stream")


def test_a_grpc_call_is_no_whole_body(stack: Stack) -> None:
    headers = {"content-type": "application/grpc", "te": "trailers"}
    with httpx.Client(http1=False, http2=True, timeout=30) as client:
        response = client.post(stack.url + "/any", content=b"\0\0\0\0\0", headers=headers)
    assert response.headers["x-gateway-reason"] == "processor_stream"
    assert response.headers["grpc-status"] == "3"
    assert "processors of this route need whole bodies" in response.headers["grpc-message"]
