"""The HTTP client and server of the composer, with peers that do what Envoy may do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.wait import eventually
from xds_server.composer.answer_memory import AnswerMemory
from xds_server.composer.calls import Call, CallFailed
from xds_server.composer.http_client import Connections
from xds_server.composer.http_server import MOST_BODY, HttpServer
from xds_server.composer.messages import Request, Response

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def call(method: str = "GET", timeout: float | None = 30.0, **headers: str) -> Call:
    return Call(upstream="users", method=method, path="/x", headers=headers, timeout=timeout)


@asynccontextmanager
async def served(
    path: Path, peer: Peer, most: int = 8, memory: AnswerMemory | None = None
) -> AsyncIterator[Connections]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await peer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(connected, path)
    connections = Connections(f"unix:{path}", memory or AnswerMemory(), most=most)
    try:
        yield connections
    finally:
        connections.close()
        server.close()


async def head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def answering(*parts: bytes, close: bool = False) -> Peer:
    """A peer that answers each request with the next part; the last one again and again."""
    waiting = list(parts)

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await head(reader)
            writer.write(waiting.pop(0) if len(waiting) > 1 else waiting[0])
            if close:
                return

    return peer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", "unreachable"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", "unreachable"),
        (b"SMTP\r\n\r\n", "unreachable"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n" + b"x" * 11, "too_large"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n",
            "too_large",
        ),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 300_000 + b"\r\n\r\n", "too_large"),
        (b"HTTP/1.0 200 OK\r\n\r\n{}", "unreachable"),  # who knows whether that is all? Envoy always says it
        (b"", "unreachable"),
    ],
    ids=[
        "cut off",
        "cut off in chunks",
        "no HTTP",
        "too large",
        "too large in chunks",
        "large headers",
        "no end",
        "nothing",
    ],
)
async def test_an_answer_that_is_none(tmp_path: Path, answer: bytes, reason: str) -> None:
    async with served(tmp_path / "s", answering(answer, close=True)) as connections:
        with pytest.raises(CallFailed) as failure:
            await connections.call(call(), 10)
        assert failure.value.reason == reason


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    ],
    ids=["length", "informational", "chunks"],
)
async def test_answers_in_all_forms(tmp_path: Path, answer: bytes) -> None:
    async with served(tmp_path / "s", answering(answer)) as connections:
        found = await connections.call(call(), 10)
        assert (found.status, found.body) == (200, b"{}")


async def test_an_answer_to_head_has_no_body(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n"
    async with served(tmp_path / "s", answering(answer)) as connections:
        found = await connections.call(call("HEAD"), 10)
        assert (found.body, found.headers["content-length"]) == (b"", "99")


async def test_a_late_answer_and_an_envoy_that_is_away(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with served(tmp_path / "s", silent) as connections:
        with pytest.raises(CallFailed) as failure:
            await connections.call(call(timeout=0.01), 10)
    assert failure.value.reason == "timeout"
    with pytest.raises(CallFailed) as failure:
        await Connections(f"unix:{tmp_path}/nobody", AnswerMemory()).call(call(), 10)
    assert failure.value.reason == "unreachable"


async def test_an_answer_that_is_cut_off_after_its_time_was_too_slow(tmp_path: Path) -> None:
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"
    async with served(tmp_path / "s", answering(half, close=True)) as connections:
        for timeout, reason in ((0.0, "timeout"), (30.0, "unreachable"), (None, "unreachable")):
            with pytest.raises(CallFailed) as failure:
                await connections.call(call(timeout=timeout), 10)
            assert failure.value.reason == reason


async def test_answers_have_a_bound_together_and_those_that_failed_do_not_count(tmp_path: Path) -> None:
    memory = AnswerMemory(3)
    async with served(tmp_path / "s", answering(OK), memory=memory) as connections:
        for used in (2, 4, 6):
            assert (await connections.call(call(), 10)).body == b"{}"
            assert memory.used == used
        assert memory.is_full
        with pytest.raises(CallFailed, match="no memory") as failure:
            await connections.call(call(), 10)
        assert (failure.value.reason, memory.used) == ("too_large", 6)
        memory.give_back(4)
        assert not memory.is_full
        assert (await connections.call(call(), 10)).body == b"{}"


async def test_a_connection_that_envoy_has_closed_is_replaced_for_reads_only(tmp_path: Path) -> None:
    """Envoy may close a kept connection in the moment in which a request is sent over it."""
    seen: list[bytes] = []

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await head(reader))
        writer.write(OK)
        seen.append(await head(reader))  # and close without an answer

    async with served(tmp_path / "s", once) as connections:
        for _ in range(2):
            assert (await connections.call(call(), 10)).status == 200
        assert len(seen) == 3
        with pytest.raises(CallFailed):
            await connections.call(call("POST"), 10)
        assert len(seen) == 4


async def test_a_cancelled_call_ends_its_connection_and_gives_its_turn_away(tmp_path: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def first_is_held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        if not begun.is_set():
            begun.set()
            await reader.read()
            ended.set()
        else:
            writer.write(OK)

    async with served(tmp_path / "s", first_is_held, most=1) as connections:
        held = asyncio.create_task(connections.call(call(), 10))
        await begun.wait()
        waiting = [asyncio.create_task(connections.call(call(), 10)) for _ in range(3)]
        with pytest.raises(CallFailed, match="all the time"):
            await connections.call(call(timeout=0.0), 10)
        waiting[0].cancel()
        held.cancel()
        await ended.wait()
        assert [(await one).status for one in waiting[1:]] == [200, 200]


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0"])
async def test_no_part_of_a_call_begins_another_line(tmp_path: Path, value: str) -> None:
    async with served(tmp_path / "s", answering(OK)) as connections:
        with pytest.raises(ValueError, match="line end"):
            await connections.call(call(x=value), 10)


@asynccontextmanager
async def server(path: Path, respond: Callable[[Request], Awaitable[Response]]) -> AsyncIterator[HttpServer]:
    running = HttpServer(respond, lambda _request: Response(status=413))
    await running.start(f"unix:{path}")
    try:
        yield running
    finally:
        await running.stop(0)


async def test_a_request_is_answered_and_its_connection_kept(tmp_path: Path) -> None:
    async def echo(request: Request) -> Response:
        text = f"{request.method} {request.path} {request.headers['cookie']} {request.headers['x']} {len(request.body)}"
        return Response(status=200, headers=(("x-a", "b"),), body=text.encode())

    async with server(tmp_path / "s", echo):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        for _ in range(2):
            writer.write(
                b"POST /a?b HTTP/1.1\r\ncookie: a\r\nCookie: b\r\nx: 1\r\nX: 2\r\ncontent-length: 3\r\n\r\nabc"
            )
            expected = b"POST /a?b a; b 1, 2 3"
            assert await head(reader) == b"HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: %d\r\n\r\n" % len(
                expected
            )
            assert await reader.readexactly(len(expected)) == expected
        writer.close()


async def test_a_body_that_is_too_large_is_refused(tmp_path: Path) -> None:
    async def never(_request: Request) -> Response:
        raise AssertionError

    async with server(tmp_path / "s", never):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(
            f"POST / HTTP/1.1\r\ncontent-length: {MOST_BODY + 1}\r\n\r\n".encode() + b"x" * (MOST_BODY + 1)
        )
        assert (await head(reader)).startswith(b"HTTP/1.1 413 ")
        writer.close()


async def test_a_client_that_leaves_cancels_its_request(tmp_path: Path) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def held(_request: Request) -> Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with server(tmp_path / "s", held) as running:
        _, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await begun.wait()
        writer.close()
        await cancelled.wait()
        await eventually(lambda: running.busy == 0, "the end of the request")


async def test_requests_under_way_are_finished_at_the_end(tmp_path: Path) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def held(_request: Request) -> Response:
        begun.set()
        await go.wait()
        return Response(status=200, body=b"done")

    async with server(tmp_path / "s", held) as running:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await begun.wait()
        stopping = asyncio.create_task(running.stop(60))
        await asyncio.sleep(0)
        go.set()
        assert b"connection: close" in await head(reader)
        assert await reader.read() == b"done"
        writer.close()
        await stopping


async def test_a_body_in_parts_is_made_no_faster_than_it_is_read(tmp_path: Path) -> None:
    made, part, parts = 0, b"x" * (64 << 10), 1000

    async def body() -> AsyncGenerator[bytes]:
        nonlocal made
        for _ in range(parts):
            made += 1
            yield part

    async def respond(request: Request) -> Response:
        return Response(status=200, body=body() if request.path == "/large" else b"{}")

    async with server(tmp_path / "s", respond) as running:
        slow, to_slow = await asyncio.open_unix_connection(tmp_path / "s", limit=1)
        to_slow.write(b"GET /large HTTP/1.1\r\n\r\n")
        await eventually(lambda: made > 0, "the first part")
        other, to_other = await asyncio.open_unix_connection(tmp_path / "s")
        to_other.write(b"GET /small HTTP/1.1\r\n\r\n")
        await head(other)
        assert (made < parts // 10, running.busy) == (True, 1)
        size = 0
        while not (data := await slow.read(1 << 20)).endswith(b"0\r\n\r\n"):
            size += len(data)
        assert (made, running.busy) == (parts, 0)
        assert size + len(data) > parts * len(part)
        # a client that leaves ends a body that waits for it
        to_slow.write(b"GET /large HTTP/1.1\r\n\r\n")
        await eventually(lambda: running.busy == 1, "the request")
        to_slow.close()
        await eventually(lambda: running.busy == 0, "its end")
        to_other.close()
