"""Streaming methods on both carriers, with grpcio's client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from filters.streaming import StreamMethod
from filters.unary import Later, RpcError
from tests.support.wait import eventually
from xds_server.policy_server.grpc_servers import Carrier, Kind, carrier

PATH = "/test.Service/Stream"
KINDS: tuple[Kind, ...] = ("native", "grpcio")


class Session:
    """Answers each message as its first word says."""

    def __init__(self, metadata: Mapping[bytes, bytes]) -> None:
        if metadata.get(b"x-refuse"):
            raise RpcError(7, "not for you")
        self.metadata = metadata
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.work_cancelled = asyncio.Event()
        self.received = 0

    def receive(self, message: bytes) -> bytes | Awaitable[bytes | None] | None:
        self.received += 1
        kind, _, rest = message.partition(b" ")
        if kind == b"nothing":
            return None
        if kind == b"refuse":
            raise RpcError(16, "who are you")
        if kind == b"break":
            raise ZeroDivisionError
        if kind == b"size":
            return bytes(int(rest))
        if kind == b"soon":
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.set_result, rest)
            return Later(future, lambda found: b"soon " + found)
        if kind in (b"later", b"refuse-later", b"wait"):
            return self._later(kind, rest)
        return b"now " + rest

    async def _later(self, kind: bytes, rest: bytes) -> bytes:
        await asyncio.sleep(0)
        if kind == b"refuse-later":
            raise RpcError(16, "who are you")
        if kind == b"wait":
            self.begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.work_cancelled.set()
                raise
        return b"later " + rest

    def end(self) -> bytes | None:
        return b"the end" if self.metadata.get(b"x-last") else None

    def cancel(self) -> None:
        self.cancelled.set()


class Serving:
    """A carrier with one stream method, and a channel to it."""

    def __init__(self, server: Carrier, channel: grpc.aio.Channel, sessions: list[Session]) -> None:
        self.server = server
        self.sessions = sessions
        self._channel = channel

    def call(self, *metadata: tuple[str, str], **options: Any) -> Any:
        return self._channel.stream_stream(PATH)(metadata=metadata, **options)


@asynccontextmanager
async def _serving(kind: Kind) -> AsyncIterator[Serving]:
    sessions: list[Session] = []

    def opened(metadata: Mapping[bytes, bytes]) -> Session:
        sessions.append(Session(metadata))
        return sessions[-1]

    server = carrier(kind, [], [StreamMethod(path=PATH, open=opened)])
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Serving(server, channel, sessions)
    await server.stop(0)


@pytest.fixture(params=KINDS)
async def serving(request: pytest.FixtureRequest) -> AsyncIterator[Serving]:
    async with _serving(request.param) as one:
        yield one


async def _failed(call: Any) -> tuple[grpc.StatusCode, str]:
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as failed:
        return failed.code(), str(failed.details())
    return grpc.StatusCode.OK, ""


async def test_each_message_is_answered_in_its_order(serving: Serving) -> None:
    call = serving.call(("x-tenant", "blue"))
    for message, answer in ((b"a 1", b"now 1"), (b"later 2", b"later 2"), (b"soon 3", b"soon 3")):
        await call.write(message)
        assert await call.read() == answer
    for number in range(50):
        await call.write(b"%s %d" % (b"later" if number % 3 else b"a", number))
    assert [(await call.read()).split()[1] for _ in range(50)] == [b"%d" % one for one in range(50)]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    (session,) = serving.sessions
    assert session.metadata[b"x-tenant"] == b"blue"
    assert not session.cancelled.is_set()


async def test_a_message_may_have_no_answer_and_the_end_may_have_one(serving: Serving) -> None:
    call = serving.call(("x-last", "1"))
    await call.write(b"nothing")
    await call.write(b"nothing")
    await call.done_writing()
    assert await call.read() == b"the end"
    assert await call.read() is grpc.aio.EOF


async def test_the_last_message_and_the_end_are_answered_together(serving: Serving) -> None:
    for metadata in ((), (("x-last", "1"),)):
        call = serving.call(*metadata)
        await call.write(b"a 1")
        await call.done_writing()
        answers = [b"now 1", *([b"the end"] if metadata else [])]
        assert [await call.read() for _ in answers] == answers
        assert await call.read() is grpc.aio.EOF


async def test_a_stream_without_messages(serving: Serving) -> None:
    call = serving.call()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("before", [(), (b"a 1",)])
@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"refuse", (grpc.StatusCode.UNAUTHENTICATED, "who are you")),
        (b"refuse-later", (grpc.StatusCode.UNAUTHENTICATED, "who are you")),
        (b"break", (grpc.StatusCode.UNKNOWN, "the method failed")),
    ],
)
async def test_an_error_ends_the_stream(
    serving: Serving, before: tuple[bytes, ...], message: bytes, status: tuple[grpc.StatusCode, str]
) -> None:
    call = serving.call()
    for one in before:
        await call.write(one)
        await call.read()
    await call.write(message)
    assert await _failed(call) == status
    await asyncio.wait_for(serving.sessions[0].cancelled.wait(), 30)


async def test_a_session_that_is_refused(serving: Serving) -> None:
    call = serving.call(("x-refuse", "1"))
    assert await _failed(call) == (grpc.StatusCode.PERMISSION_DENIED, "not for you")


async def test_a_client_that_cancels_cancels_the_work(serving: Serving) -> None:
    call = serving.call()
    await call.write(b"wait")
    await eventually(lambda: bool(serving.sessions), "the session")
    (session,) = serving.sessions
    await session.begun.wait()
    call.cancel()
    await asyncio.wait_for(session.cancelled.wait(), 30)
    await asyncio.wait_for(session.work_cancelled.wait(), 30)


async def test_the_deadline_of_a_stream(serving: Serving) -> None:
    call = serving.call(timeout=0.2)
    await call.write(b"wait")
    assert (await _failed(call))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(serving.sessions[0].work_cancelled.wait(), 30)


async def test_large_messages_in_both_directions(serving: Serving) -> None:
    call = serving.call()
    for size in (3_000_000, 100_000, 2_000_000):
        await call.write(b"a " + bytes(size))
        assert len(await call.read()) == size + 4
        await call.write(b"size %d" % size)
        assert len(await call.read()) == size


async def test_many_streams_at_once(serving: Serving) -> None:
    async def talk(number: int) -> None:
        call = serving.call()
        for one in range(5):
            await call.write(b"later %d" % (number + one))
            assert await call.read() == b"later %d" % (number + one)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    await asyncio.gather(*(talk(number) for number in range(200)))


async def test_a_client_that_disconnects_cancels_its_streams() -> None:
    async with _serving("native") as serving:
        call = serving.call()
        await call.write(b"wait")
        await eventually(lambda: bool(serving.sessions), "the session")
        await serving.sessions[0].begun.wait()
        await serving._channel.close()
        await asyncio.wait_for(serving.sessions[0].work_cancelled.wait(), 30)


async def test_a_client_that_does_not_read_is_not_answered_without_end() -> None:
    async with _serving("native") as serving:
        call = serving.call()

        async def ask() -> None:
            while True:
                await call.write(b"size 1000000")

        asking = asyncio.create_task(ask())
        await eventually(lambda: bool(serving.sessions) and serving.sessions[0].received > 0, "a message")
        (session,) = serving.sessions
        seen = -1
        while seen != session.received:  # until it stands still
            seen = session.received
            await asyncio.sleep(0.3)
        assert seen < 100
        asking.cancel()
        call.cancel()


async def test_a_stop_waits_for_a_stream_and_then_ends_it() -> None:
    async with _serving("native") as serving:
        call = serving.call()
        await call.write(b"a 1")
        assert await call.read() == b"now 1"
        stopping = asyncio.create_task(serving.server.stop(30))
        await asyncio.sleep(0)
        await call.write(b"a 2")
        assert await call.read() == b"now 2"
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        await asyncio.wait_for(stopping, 25)
