"""HTTP/2 of tests: client and stub with each other, with grpcio, and with ends that break off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import grpc
import h2.config
import h2.connection
import h2.errors
import pytest
from hyperframe.frame import GoAwayFrame

from xds_server.testing.http2 import EitherVersion, Message, Server, exchange

HOST = "127.0.0.1"
HEADERS = ((":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/a"))
PATIENCE = 30


@asynccontextmanager
async def _listening(protocol: Callable[[], asyncio.Protocol]) -> AsyncIterator[tuple[str, int]]:
    made: list[asyncio.Protocol] = []

    def connected() -> asyncio.Protocol:
        made.append(protocol())
        return made[-1]

    server = await asyncio.get_running_loop().create_server(connected, HOST, 0)
    try:
        yield HOST, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for one in made:
            one._transport.abort()  # type: ignore[attr-defined]
        for _ in range(3):  # the loop closes aborted sockets in its next turn
            await asyncio.sleep(0)


def _answering(answer: Callable[[Message], Awaitable[Message]]) -> Callable[[], asyncio.Protocol]:
    return partial(Server, answer)


async def _echo(request: Message) -> Message:
    path = dict(request.headers)[":path"]
    return Message(
        headers=((":status", "200"), ("x-path", path)), body=request.body, trailers=(("x-end", "1"),)
    )


async def _exchange(address: tuple[str, int], request: Message, source: str = HOST) -> Message:
    async with asyncio.timeout(PATIENCE):
        return await exchange(address, source, request, None, "")


async def test_bodies_longer_than_all_windows_go_both_ways() -> None:
    body = bytes(range(256)) * 4096
    async with _listening(_answering(_echo)) as address:
        found = await _exchange(address, Message(headers=HEADERS, body=body))
    assert found.body == body
    assert found.headers == ((":status", "200"), ("x-path", "/a"))
    assert found.trailers == (("x-end", "1"),)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_without_a_body(streamed: bool) -> None:
    async def answer(request: Message) -> Message:
        return Message(headers=((":status", "204"), ("x-length", str(len(request.body)))))

    async with _listening(_answering(answer)) as address:
        found = await _exchange(address, Message(headers=HEADERS, streamed=streamed))
    assert (found.headers, found.body, found.trailers) == (((":status", "204"), ("x-length", "0")), b"", None)


async def test_grpcio_understands_the_stub() -> None:
    async def answer(request: Message) -> Message:
        headers = ((":status", "200"), ("content-type", "application/grpc"))
        if dict(request.headers)[":path"] == "/s/no":
            return Message(headers=(*headers, ("grpc-status", "5"), ("grpc-message", "no")))
        return Message(headers=headers, body=request.body * 2, trailers=(("grpc-status", "0"),))

    async with (
        _listening(_answering(answer)) as (host, port),
        grpc.aio.insecure_channel(f"{host}:{port}") as channel,
    ):
        # several calls at once on one connection
        calls = [channel.unary_stream("/s/yes")(b"%d" % number, timeout=PATIENCE) for number in range(20)]
        assert [[one async for one in call] for call in calls] == [
            [b"%d" % number] * 2 for number in range(20)
        ]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/s/no")(b"", timeout=PATIENCE)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "no")


class _Http1(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 got " + data)
        self._transport.close()


async def test_the_first_bytes_tell_the_version() -> None:
    async with _listening(lambda: EitherVersion(_Http1, _answering(_echo))) as address:
        assert (await _exchange(address, Message(headers=HEADERS, body=b"two"))).body == b"two"
        for start in (b"GET / HTTP/1.1\r\n\r\n", b"PRIVATE / HTTP/1.1\r\n\r\n"):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(start)
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b"HTTP/1.1 got " + start
            writer.close()
        with pytest.raises(ConnectionError, match=r"broke HTTP/2|closed the connection"):
            async with _listening(_Http1) as other:
                await _exchange(other, Message(headers=HEADERS))


class _Breaking(asyncio.Protocol):
    """A server that ends each request with `end`."""

    def __init__(self, end: Callable[[h2.connection.H2Connection, asyncio.Transport], None]) -> None:
        self._end = end
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2.initiate_connection()

    def data_received(self, data: bytes) -> None:
        if any(type(event).__name__ == "RequestReceived" for event in self._h2.receive_data(data)):
            self._end(self._h2, self._transport)
        self._transport.write(self._h2.data_to_send())


async def test_a_response_may_follow_the_announcement_of_the_end_of_the_connection() -> None:
    """As from an Envoy that drains connections, or that ends them after a number of requests (RFC 9113 section 6.8)."""

    def end(connection: h2.connection.H2Connection, transport: asyncio.Transport) -> None:
        transport.write(GoAwayFrame(0, last_stream_id=1, error_code=0).serialize())
        connection.send_headers(1, ((":status", "200"),))
        connection.send_data(1, b"whole", end_stream=True)

    async with _listening(lambda: _Breaking(end)) as address:
        assert (await _exchange(address, Message(headers=HEADERS, body=b"a"))).body == b"whole"


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (
            lambda connection, _: connection.reset_stream(1, h2.errors.ErrorCodes.REFUSED_STREAM),
            "the gateway reset the request (REFUSED_STREAM)",
        ),
        (
            lambda connection, _: connection.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM),
            "the gateway closed the connection (ENHANCE_YOUR_CALM)",
        ),
        (lambda _, transport: transport.abort(), "closed the connection|reset by peer"),
    ],
)
async def test_a_request_that_gets_no_response_says_why(
    end: Callable[[h2.connection.H2Connection, asyncio.Transport], None], message: str
) -> None:
    async with _listening(lambda: _Breaking(end)) as address:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the message is compared below
            await _exchange(address, Message(headers=HEADERS, body=b"a"))
    assert str(caught.value) == message or any(one in str(caught.value) for one in message.split("|"))
