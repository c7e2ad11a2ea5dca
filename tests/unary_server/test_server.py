"""The server with real clients: grpcio and the h2 library, over TCP, a Unix socket and mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import h2.config
import h2.connection
import h2.events
import hpack
import pytest

from filters.unary import Later, RpcError, UnaryMethod, Undoable
from tests.support.certificates import authority
from tests.support.http2 import FIELDS, Seen, grpc_message, parse
from tests.support.wait import eventually
from xds_server.unary_server import frames
from xds_server.unary_server.events import ServerLimits
from xds_server.unary_server.frames import Frame
from xds_server.unary_server.server import UnaryServer, server_context


async def _later(body: bytes) -> bytes:
    await asyncio.sleep(0)
    return b"later " + body


def _soon(body: bytes) -> Later:
    future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, body)
    return Later(future, lambda found: b"soon " + found)


def _refuse_soon(body: bytes) -> Later:
    return Later(_soon(body).future, _refuse)


def _refuse(_body: bytes) -> bytes:
    raise RpcError(7, "not for you: ü\n")


async def _refuse_later(_body: bytes) -> bytes:
    await asyncio.sleep(0)
    raise RpcError(16, "who are you")


def _break(_body: bytes) -> bytes:
    raise ZeroDivisionError


class Slow:
    """A method that waits until it is told, and counts who gave up."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.given_up = asyncio.Event()

    async def __call__(self, body: bytes) -> bytes:
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        return b"slow " + body


def _method(name: str, call: Callable[[Any], Any], parse: Callable[[bytes], Any] = bytes) -> UnaryMethod:
    return UnaryMethod(
        path=f"/test.Service/{name}", parse=parse, call=call, serialize=lambda value: value.encode()
    )


@pytest.fixture
async def slow() -> Slow:
    return Slow()


@pytest.fixture
async def server(slow: Slow) -> AsyncIterator[UnaryServer]:
    methods = (
        _method("Echo", lambda body: b"echo " + body),
        _method("Text", lambda body: body, lambda body: body.decode()),
        _method("Later", _later),
        _method("Soon", _soon),
        _method("RefuseSoon", _refuse_soon),
        _method("Refuse", _refuse),
        _method("RefuseLater", _refuse_later),
        _method("Break", _break),
        _method("Large", lambda body: bytes(int(body))),
        _method("Slow", slow),
    )
    server = UnaryServer(methods, limits=ServerLimits(max_message=1 << 20))
    yield server
    await server.drain(0)


@asynccontextmanager
async def _channel(server: UnaryServer) -> AsyncIterator[Callable[..., Any]]:
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def call(name: str, body: bytes = b"x", **options: Any) -> bytes:
            answer: bytes = await channel.unary_unary(f"/test.Service/{name}")(body, **options)
            return answer

        yield call


async def test_values_and_coroutines_are_answered(server: UnaryServer) -> None:
    async with _channel(server) as call:
        assert await call("Echo") == b"echo x"
        assert await call("Echo", b"") == b"echo "
        assert await call("Text", b"text") == b"text"
        assert await call("Later") == b"later x"
        assert await call("Soon") == b"soon x"


async def test_a_response_of_a_future_can_be_awaited_too() -> None:
    assert await _soon(b"x") == b"soon x"
    with pytest.raises(RpcError):
        await _refuse_soon(b"x")


@pytest.mark.parametrize("expires", [False, True])
async def test_a_future_that_no_client_waits_for_is_cancelled(expires: bool) -> None:
    begun = asyncio.Event()
    waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def never(_body: bytes) -> Later:
        begun.set()
        return Later(waiting, bytes)

    server = UnaryServer([_method("Never", never)])
    async with _channel(server) as call:
        asking = asyncio.ensure_future(call("Never", timeout=0.1 if expires else None))
        await begun.wait()
        if expires:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await asking
            assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, 30)
        await eventually(lambda: server.busy == 0, "the server to be idle")
    await server.drain(0)


async def test_many_calls_at_once_get_their_own_answers(server: UnaryServer) -> None:
    async with _channel(server) as call:
        bodies = [str(number).encode() for number in range(500)]
        answers = await asyncio.gather(*(call("Later" if int(body) % 2 else "Echo", body) for body in bodies))
        assert answers == [(b"later " if int(body) % 2 else b"echo ") + body for body in bodies]


async def test_large_messages_pass_both_ways(server: UnaryServer) -> None:
    async with _channel(server) as call:
        assert await call("Echo", bytes(900_000)) == b"echo " + bytes(900_000)
        assert len(await call("Large", b"3000000")) == 3_000_000


@pytest.mark.parametrize(
    ("name", "body", "code", "text"),
    [
        ("Refuse", b"", grpc.StatusCode.PERMISSION_DENIED, "not for you: ü\n"),
        ("RefuseLater", b"", grpc.StatusCode.UNAUTHENTICATED, "who are you"),
        ("RefuseSoon", b"", grpc.StatusCode.PERMISSION_DENIED, "not for you: ü\n"),
        ("Break", b"", grpc.StatusCode.UNKNOWN, "the method failed"),
        ("Nothing", b"", grpc.StatusCode.UNIMPLEMENTED, "no such method"),
        ("Text", b"\xff", grpc.StatusCode.INTERNAL, "the message cannot be read"),
        ("Echo", bytes(2 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED, "a message is at most 1048576 bytes"),
    ],
)
async def test_failures_have_their_status(
    server: UnaryServer, name: str, body: bytes, code: grpc.StatusCode, text: str
) -> None:
    async with _channel(server) as call:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call(name, body)
        assert (failed.value.code(), failed.value.details()) == (code, text)


async def test_compressed_messages_are_refused_properly(server: UnaryServer) -> None:
    async with _channel(server) as call:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call("Echo", bytes(10_000), compression=grpc.Compression.Gzip)
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_ends_the_work(server: UnaryServer, slow: Slow) -> None:
    async with _channel(server) as call:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call("Slow", timeout=0.2)
        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(slow.given_up.wait(), 30)


async def test_a_call_that_is_given_up_ends_the_work(server: UnaryServer, slow: Slow) -> None:
    async with _channel(server) as call:
        calling = asyncio.ensure_future(call("Slow"))
        await asyncio.wait_for(slow.begun.wait(), 30)
        calling.cancel()
        await asyncio.wait_for(slow.given_up.wait(), 30)


@pytest.mark.parametrize("later", [False, True])
async def test_an_answer_that_nobody_read_is_undone_and_no_other(later: bool) -> None:
    undone: list[bytes] = []
    happened = asyncio.Event()

    def taking(body: bytes) -> Any:
        def undo() -> None:
            undone.append(body)
            happened.set()

        async def soon() -> Undoable:
            await asyncio.sleep(0)
            return Undoable(body, undo)

        return soon() if later else Undoable(body, undo)

    server = UnaryServer([_method("Take", taking)])
    port = await server.start("127.0.0.1:0")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = h2.connection.H2Connection()
    client.initiate_connection()
    ended: set[int] = set()
    for stream in (1, 3, 5):
        client.send_headers(stream, [*FIELDS[:2], (":path", "/test.Service/Take"), *FIELDS[3:]])
        client.send_data(stream, b"\0\0\0\0\1%d" % stream, end_stream=True)
    writer.write(client.data_to_send())
    while ended != {1, 3, 5}:
        found = client.receive_data(await asyncio.wait_for(reader.read(65536), 30))
        ended |= {one.stream_id for one in found if isinstance(one, h2.events.StreamEnded)}
    writer.write(client.data_to_send() + frames.frame(Frame.RST_STREAM, 0, 3, bytes(4)))
    await asyncio.wait_for(happened.wait(), 30)
    assert undone == [b"3"]
    writer.close()
    await server.drain(0)


async def test_draining_finishes_what_is_under_way(server: UnaryServer, slow: Slow) -> None:
    async with _channel(server) as call:
        calling = asyncio.ensure_future(call("Slow"))
        await asyncio.wait_for(slow.begun.wait(), 30)
        draining = asyncio.ensure_future(server.drain(30))
        await asyncio.sleep(0)
        assert not draining.done()
        slow.go.set()
        assert await calling == b"slow x"
        await asyncio.wait_for(draining, 30)


async def test_what_outlasts_the_grace_is_cut(server: UnaryServer, slow: Slow) -> None:
    async with _channel(server) as call:
        calling = asyncio.ensure_future(call("Slow"))
        await asyncio.wait_for(slow.begun.wait(), 30)
        await server.drain(0.01)
        with pytest.raises(grpc.aio.AioRpcError):
            await calling


async def test_a_silent_peer_is_asked_for_a_sign_of_life_and_cut(slow: Slow) -> None:
    server = UnaryServer([_method("Slow", slow)], keepalive=0.02)
    port = await server.start("127.0.0.1:0")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(frames.PREFACE + frames.settings({}))
    seen = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := await asyncio.wait_for(reader.read(65536), 30):
            seen += data
    assert [one.kind for one in parse(bytes(seen)) if one.kind == Frame.PING and not one.flags] == [
        Frame.PING
    ]
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    assert server.busy == 0
    await server.drain(0)


async def test_a_peer_that_answers_is_kept(slow: Slow) -> None:
    """The peer lives in the loop of the server, so that a busy machine delays both."""
    server = UnaryServer([_method("Slow", slow)], keepalive=0.2)
    port = await server.start("127.0.0.1:0")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    fields = [(name, "/test.Service/Slow" if name == ":path" else value) for name, value in FIELDS]
    head = frames.frame(Frame.HEADERS, frames.END_HEADERS, 1, hpack.Encoder().encode(fields))
    body = frames.frame(Frame.DATA, frames.END_STREAM, 1, grpc_message(b"x"))
    writer.write(frames.PREFACE + frames.settings({}) + head + body)
    answered = 0
    while answered < 3:
        seen = await _frame(reader)
        if seen.kind == Frame.PING and not seen.flags:
            writer.write(frames.frame(Frame.PING, frames.ACK, 0, seen.payload))
            answered += 1
    slow.go.set()
    while seen.kind != Frame.DATA:
        seen = await _frame(reader)
    assert seen.payload == grpc_message(b"slow x")
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await server.drain(0)


async def _frame(reader: asyncio.StreamReader) -> Seen:
    """The next frame. Raises IncompleteReadError where the connection was cut."""
    async with asyncio.timeout(30):
        head = await reader.readexactly(9)
        (found,) = parse(head + await reader.readexactly(int.from_bytes(head[:3], "big")))
        return found


async def test_draining_ends_idle_connections_of_clients_that_go_on(server: UnaryServer) -> None:
    async with _channel(server) as call:
        assert await call("Echo") == b"echo x"
        await asyncio.wait_for(server.drain(60), 30)


async def test_a_unix_socket_serves_and_a_stale_one_is_replaced(server: UnaryServer, tmp_path: Path) -> None:
    path = tmp_path / "policy.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    await server.start(f"unix:{path}")
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        assert await channel.unary_unary("/test.Service/Echo")(b"x") == b"echo x"


async def test_mutual_tls_serves_clients_with_a_certificate_only(server: UnaryServer, tmp_path: Path) -> None:
    files = {}
    for name, (certificate, key) in {
        "server": authority().issue("localhost"),
        "client": authority().issue("c"),
    }.items():
        files[name] = (tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
        files[name][0].write_bytes(certificate)
        files[name][1].write_bytes(key)
    (tmp_path / "ca.crt").write_bytes(authority().pem)
    context = server_context(*map(str, files["server"]), ca=str(tmp_path / "ca.crt"))
    port = await server.start("127.0.0.1:0", tls=context)

    async def ask(*pair: bytes) -> bytes:
        key, certificate = pair or (None, None)
        credentials = grpc.ssl_channel_credentials(authority().pem, key, certificate)
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            answer: bytes = await channel.unary_unary("/test.Service/Echo")(b"x", timeout=10)
            return answer

    certificate, key = (file.read_bytes() for file in files["client"])
    assert await ask(key, certificate) == b"echo x"
    with pytest.raises(grpc.aio.AioRpcError):
        await ask()


async def _by_h2(port: int, fields: list[tuple[str, str]], body: bytes) -> dict[str, str]:
    """One request by the h2 library; the fields of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    client.send_headers(1, fields)
    client.send_data(1, body, end_stream=True)
    writer.write(client.data_to_send())
    seen: dict[str, str] = {}
    ended = False
    while not ended and (data := await asyncio.wait_for(reader.read(65536), 30)):
        for event in client.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                seen |= dict(event.headers or [])
            ended = ended or isinstance(event, h2.events.StreamEnded)
        writer.write(client.data_to_send())
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return seen


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {":status": "200", "grpc-status": "0", "content-type": "application/grpc"}),
        ({":method": "GET"}, {":status": "405"}),
        ({"content-type": "text/plain"}, {":status": "415"}),
        ({"grpc-timeout": "soon"}, {":status": "200", "grpc-status": "13"}),
        (
            {"grpc-encoding": "gzip"},
            {":status": "200", "grpc-status": "12", "grpc-accept-encoding": "identity"},
        ),
    ],
)
async def test_the_h2_library_understands_every_answer(
    server: UnaryServer, change: dict[str, str], expected: dict[str, str]
) -> None:
    port = await server.start("127.0.0.1:0")
    fields = {**dict(FIELDS), ":path": "/test.Service/Echo", **change}
    seen = await _by_h2(port, list(fields.items()), b"\0\0\0\0\1x")
    assert expected.items() <= seen.items()


@pytest.mark.parametrize(
    "body", [b"", b"\0\0\0", b"\0\0\0\0\5x", b"\0\0\0\0\1x\0\0\0\0\1x", b"\1\0\0\0\1x", b"\7\0\0\0\1x"]
)
async def test_what_is_not_one_whole_message_is_refused(server: UnaryServer, body: bytes) -> None:
    port = await server.start("127.0.0.1:0")
    fields = {**dict(FIELDS), ":path": "/test.Service/Echo"}
    assert (await _by_h2(port, list(fields.items()), body))["grpc-status"] in ("12", "13")


@pytest.mark.parametrize(
    "command",
    [
        ("curl", "-sS", "--http2-prior-knowledge", "-o", "-", "--data-binary", "@"),
        ("nghttp", "-d", ""),
    ],
    ids=["curl", "nghttp"],
)
async def test_command_line_clients_are_answered(
    server: UnaryServer, tmp_path: Path, command: tuple[str, ...]
) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    body = tmp_path / "body"
    body.write_bytes(b"\0\0\0\0\1x")
    port = await server.start("127.0.0.1:0")
    asking = await asyncio.create_subprocess_exec(
        *command[:-1],
        command[-1] + str(body),
        *("-H", "content-type: application/grpc", "-H", "te: trailers"),
        f"http://127.0.0.1:{port}/test.Service/Echo",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await asyncio.wait_for(asking.communicate(), 30)
    assert (asking.returncode, out) == (0, b"\0\0\0\0\6echo x"), error


class _Transport(asyncio.Transport):
    """Takes what is written."""

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def is_closing(self) -> bool:
        return False


async def test_a_request_that_is_given_up_before_its_work_began_holds_no_stream(
    server: UnaryServer, slow: Slow
) -> None:
    """Two reads in one turn of the loop, as a full buffer makes them."""
    protocol, fields = server._protocol(), {**dict(FIELDS), ":path": "/test.Service/Slow"}
    protocol.connection_made(_Transport())
    head = frames.frame(Frame.HEADERS, frames.END_HEADERS, 1, hpack.Encoder().encode(list(fields.items())))
    data = frames.frame(Frame.DATA, frames.END_STREAM, 1, bytes(5))
    protocol.data_received(frames.PREFACE + frames.settings({}) + head + data)
    protocol.data_received(frames.rst_stream(1, frames.Code.CANCEL))
    await asyncio.wait_for(slow.given_up.wait(), 30)
    await asyncio.sleep(0)
    assert protocol.active == 0
    protocol.connection_lost(None)


@pytest.mark.parametrize("lost", [False, True])
async def test_an_answer_that_comes_in_the_turn_in_which_it_is_given_up_is_undone(lost: bool) -> None:
    undone = asyncio.Event()
    decided: asyncio.Future[Undoable] = asyncio.get_running_loop().create_future()
    server = UnaryServer([_method("Take", lambda _body: decided)])
    protocol, fields = server._protocol(), {**dict(FIELDS), ":path": "/test.Service/Take"}
    protocol.connection_made(_Transport())
    head = frames.frame(Frame.HEADERS, frames.END_HEADERS, 1, hpack.Encoder().encode(list(fields.items())))
    data = frames.frame(Frame.DATA, frames.END_STREAM, 1, bytes(5))
    protocol.data_received(frames.PREFACE + frames.settings({}) + head + data)
    await asyncio.sleep(0)
    decided.set_result(Undoable(b"", undone.set))
    if lost:
        protocol.connection_lost(None)
    else:
        protocol.data_received(frames.rst_stream(1, frames.Code.CANCEL))
    await asyncio.wait_for(undone.wait(), 5)
    assert protocol.active == 0
    if not lost:
        protocol.connection_lost(None)
