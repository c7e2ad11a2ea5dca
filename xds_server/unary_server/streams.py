"""The streams of a connection at the asyncio edge: their sessions, and the work that each of them waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from filters.streaming import Session, StreamMethod
from filters.unary import Later, RpcError
from xds_server.unary_server import grpc
from xds_server.unary_server.connection import Connection
from xds_server.unary_server.events import Began, Cancelled, Ended, Message
from xds_server.unary_server.grpc import Status

log = logging.getLogger(__name__)


class _Running:
    """One stream. `work` is what its session waits for, `timer` that of its deadline."""

    __slots__ = ("ending", "path", "session", "timer", "work")

    def __init__(self, path: str, session: Session) -> None:
        self.path = path
        self.session = session
        self.work: asyncio.Future[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.ending = False
        """True if the response that is under way is the last one."""


class Streams:
    """Gives messages to sessions, and sends their responses. `flush_soon` sends what the connection has to send."""

    def __init__(
        self, connection: Connection, methods: Mapping[bytes, StreamMethod], flush_soon: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._methods = methods
        self._flush_soon = flush_soon
        self._running: dict[int, _Running] = {}
        self._leaving: set[asyncio.Future[Any]] = set()
        """Work of streams that have ended already."""

    @property
    def waiting(self) -> bool:
        """True if any session waits for its work, also of a stream that has ended."""
        return bool(self._leaving) or any(one.work is not None for one in self._running.values())

    def began(self, event: Began) -> None:
        """Open the session of a new stream."""
        stream, fields = event.stream, event.fields
        method = self._methods[fields.path]
        try:
            if fields.encoding not in (b"", b"identity"):
                raise RpcError(Status.UNIMPLEMENTED, "compressed messages are not supported")
            limit = grpc.timeout(fields) if fields.timeout else None
            running = _Running(method.path, method.open(fields.metadata))
        except Exception as error:  # noqa: BLE001 - the method's own
            self._failed(stream, method.path, error)
        else:
            self._running[stream] = running
            if limit is not None:
                running.timer = asyncio.get_running_loop().call_later(limit, self._expire, stream)

    def go_on(self, event: Message | Ended) -> None:
        """Give a message, or the end of the messages, to its session, and the next ones while it answers at once."""
        stream = event.stream
        running = self._running.get(stream)
        following: Any = event
        while following is not None and running is not None:
            try:
                if type(following) is Message:
                    result = running.session.receive(following.body)
                else:
                    running.ending = True
                    result = running.session.end()
            except Exception as error:  # noqa: BLE001 - the method's own
                self._failed(stream, running.path, error)
                return
            if result is not None and type(result) is not bytes:
                self._wait(stream, running, result)
                return
            following = self._answered(stream, running, result)

    def _answered(self, stream: int, running: _Running, response: bytes | None) -> Message | Ended | None:
        """Send a response, and return what the client has sent after the message."""
        connection = self._connection
        if running.ending:
            if response is not None:
                connection.respond(stream, response)
            connection.finish(stream)
            self._forget(stream)
            return None
        if response is not None and connection.last(stream):
            return self._last(stream, running, response)
        if response is not None:
            connection.respond(stream, response)
        following: Any = connection.proceed(stream)
        if type(following) is Cancelled:
            self.cancelled(stream)
            return None
        return following  # type: ignore[no-any-return]

    def _last(self, stream: int, running: _Running, response: bytes) -> Message | Ended | None:
        """Send the response to the last message. In the common case it is the only one, and goes out in one piece."""
        running.ending = True
        try:
            more = running.session.end()
        except Exception as error:  # noqa: BLE001 - the method's own
            self._connection.respond(stream, response)
            self._failed(stream, running.path, error)
        else:
            if more is None:
                self._connection.answer(stream, response)
                self._forget(stream)
            else:
                self._connection.respond(stream, response)
                if type(more) is bytes:
                    self._answered(stream, running, more)
                else:
                    self._wait(stream, running, more)
        return None

    def _wait(self, stream: int, running: _Running, result: Any) -> None:
        """Answer when a result is there. A task costs more than a callback, so only coroutines get one."""
        finish = None
        if type(result) is Later:
            result, finish = result.future, result.finish
        running.work = asyncio.ensure_future(result)
        running.work.add_done_callback(partial(self._done, stream, running, finish))

    def _done(
        self,
        stream: int,
        running: _Running,
        finish: Callable[[Any], Any] | None,
        work: asyncio.Future[Any],
    ) -> None:
        self._leaving.discard(work)
        running.work = None
        if self._running.get(stream) is not running:  # the stream ended before
            if not work.cancelled():
                work.exception()
            self._connection.release(stream)
        else:
            self._result(stream, running, finish, work)
        self._flush_soon()

    def _result(
        self,
        stream: int,
        running: _Running,
        finish: Callable[[Any], Any] | None,
        work: asyncio.Future[Any],
    ) -> None:
        try:
            result = work.result()
            response = result if finish is None else finish(result)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the method's own
            self._failed(stream, running.path, error)
        else:
            following = self._answered(stream, running, response)
            if following is not None:
                self.go_on(following)

    def _expire(self, stream: int) -> None:
        self._fail(stream, Status.DEADLINE_EXCEEDED, "the deadline passed")
        self._flush_soon()

    def _failed(self, stream: int, path: str, error: BaseException) -> None:
        if isinstance(error, RpcError):
            self._fail(stream, error.code, error.message)
            return
        log.error("method failed; the client gets UNKNOWN path=%s", path, exc_info=error)
        self._fail(stream, Status.UNKNOWN, "the method failed")

    def _fail(self, stream: int, code: int, message: str) -> None:
        self._connection.fail(stream, code, message)
        self.cancelled(stream)

    def cancelled(self, stream: int) -> None:
        """End the session of a stream that has ended."""
        running = self._forget(stream)
        if running is not None:
            self._cancel(running)
        if running is None or running.work is None:
            self._connection.release(stream)

    def lost(self) -> None:
        """End all sessions, because the connection has ended."""
        for stream in list(self._running):
            self.cancelled(stream)

    def _cancel(self, running: _Running) -> None:
        work = running.work
        if work is not None:
            self._leaving.add(work)
            # After its first step: a coroutine that never began could not give back what its call took.
            asyncio.get_running_loop().call_soon(work.cancel)
        try:
            running.session.cancel()
        except Exception:
            log.exception("method failed after its stream had ended path=%s", running.path)

    def _forget(self, stream: int) -> _Running | None:
        running = self._running.pop(stream, None)
        if running is not None and running.timer is not None:
            running.timer.cancel()
        return running
