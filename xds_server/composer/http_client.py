"""The calls of the composer: HTTP/1.1 to the Envoy that sent the request, over connections that are kept.

httptools, the parser of uvicorn and Node.js, reads the answers. Connections have no state but one exchange at a time.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from xds_server.composer.answer_memory import AnswerMemory
from xds_server.composer.calls import Answer, Call, CallFailed
from xds_server.translate.composer_entry import CALL_HEADER, CALL_VALUE, UPSTREAM_HEADER

MOST = 2048
"""Calls of one process at once, each with a connection. Others wait for one of them."""
IDLE = 60.0
"""Seconds after which an unused connection is closed: before Envoy would close it."""
GRACE = 0.25
"""Seconds that Envoy has to report a timeout itself."""
EARLY = 0.05
"""Seconds that Envoy's timeouts may come too early, because it reads the clock once for each turn of its loop."""
MOST_HEADERS = 256 << 10
"""Bytes of the headers of an answer."""
_CALL = f"{CALL_HEADER}: {CALL_VALUE}"
_LINE_END = re.compile(r"[\r\n\0]")
_SAFE = frozenset(("GET", "HEAD"))


class Connections:
    """Makes calls through the listener of Envoy at `address`: ``unix:/PATH`` or ``HOST:PORT``.

    The bytes of an answer are counted in `memory` from their arrival on. Whoever has made the call gives them back.
    """

    def __init__(self, address: str, memory: AnswerMemory, *, most: int = MOST) -> None:
        self.address = address
        self._memory = memory
        self._most = most
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._used = 0
        self._loop = asyncio.get_running_loop()

    async def call(self, call: Call, max_answer: int) -> Answer:
        """Make a call whose answer has at most `max_answer` bytes. Raises CallFailed."""
        end = None if call.timeout is None else self._loop.time() + call.timeout + GRACE
        await self._turn(end)
        try:
            return await self._exchange(call, end, max_answer)
        finally:
            self._used -= 1
            self._pass_on()

    async def _turn(self, end: float | None) -> None:
        if self._used >= self._most:
            waiting = self._loop.create_future()
            self._waiting.append(waiting)
            try:
                async with asyncio.timeout_at(end):
                    await waiting
            except TimeoutError:
                raise CallFailed("timeout", "other calls took all the time") from None
            except asyncio.CancelledError:
                if waiting.done() and not waiting.cancelled():
                    self._pass_on()
                raise
        self._used += 1

    def _pass_on(self) -> None:
        """Give the turn of a call to the next one that waits."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    async def _exchange(self, call: Call, end: float | None, max_answer: int) -> Answer:
        request = written(call)
        connection = self._kept()
        if connection is not None:
            try:
                return await connection.exchange(request, call.method, end, max_answer)
            except _Stale:  # Envoy has closed it in the same moment
                if call.method not in _SAFE:
                    raise CallFailed("unreachable", "Envoy closed the connection") from None
        try:
            async with asyncio.timeout_at(end):
                connection = await self._connect()
        except TimeoutError:
            raise CallFailed("timeout", "Envoy does not accept connections") from None
        except OSError as error:
            raise CallFailed("unreachable", f"cannot connect to Envoy: {error}") from None
        try:
            return await connection.exchange(request, call.method, end, max_answer)
        except _Stale:
            raise CallFailed("unreachable", "Envoy closed the connection") from None

    def _kept(self) -> _Connection | None:
        oldest = self._loop.time() - IDLE
        while self._idle:
            connection = self._idle.pop()
            if connection.open and connection.since >= oldest:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        def make() -> _Connection:
            return _Connection(self._idle.append, self._memory)

        if self.address.startswith("unix:"):
            path = self.address.removeprefix("unix:")
            return (await self._loop.create_unix_connection(make, path))[1]
        host, _, port = self.address.rpartition(":")
        return (await self._loop.create_connection(make, host.strip("[]"), int(port)))[1]

    def close(self) -> None:
        """Close all unused connections."""
        while self._idle:
            self._idle.pop().close()


def written(call: Call) -> bytes:
    """The request of a call, as it is sent."""
    lines = [f"{call.method} {call.path} HTTP/1.1", f"{UPSTREAM_HEADER}: {call.upstream}", _CALL]
    lines += [f"{name}: {value}" for name, value in call.headers.items()]
    if call.timeout is not None:
        lines.append(f"x-envoy-upstream-rq-timeout-ms: {max(1, round(call.timeout * 1000))}")
    if call.body or call.method not in _SAFE:
        lines.append(f"content-length: {len(call.body)}")
    text = "\r\n".join(lines)
    if text.count("\r\n") != len(lines) - 1 or _LINE_END.search(text.replace("\r\n", "")):
        raise ValueError("a part of a call has a line end")
    return f"{text}\r\n\r\n".encode("latin-1") + call.body


class _Stale(Exception):  # noqa: N818 - a connection ended before an answer began
    """A kept connection was closed before an answer began."""


class _Connection(asyncio.Protocol):
    """One connection. `release` is called when it can be used again, and `since` is when that was."""

    def __init__(self, release: Callable[[_Connection], None], memory: AnswerMemory) -> None:
        self.open = False
        self.since = 0.0
        self._release = release
        self._memory = memory
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._reset(0)

    def _reset(self, max_answer: int) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = self._header_size = 0
        self._max_answer = max_answer
        self._begun = self._keeps = False
        self._due: float | None = None

    async def exchange(self, request: bytes, method: str, end: float | None, max_answer: int) -> Answer:
        """Send a request and return its answer. Raises CallFailed and _Stale. After a failure the connection is closed."""
        assert self._transport is not None
        self._reset(max_answer)
        self._head = method == "HEAD"
        self._answer = self._loop.create_future()
        if end is not None:
            self._due = end - GRACE - EARLY
        timer = None if end is None else self._loop.call_at(end, self._late)
        try:
            self._transport.write(request)
            answer = await self._answer
        except BaseException:
            self.close()
            self._memory.give_back(self._size)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._answer = None
        if self._keeps and self.open:
            self.since = self._loop.time()
            self._release(self)
        else:
            self.close()
        return answer

    def _late(self) -> None:
        self._fail(CallFailed("timeout", "no answer in time"))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()

    def close(self) -> None:
        """Close it, which ends the request in Envoy too."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of another class
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self._cut_off() if self._begun else _Stale())

    def _cut_off(self) -> CallFailed:
        """Why an answer ended in the middle: Envoy cuts it off when the time of the call is up."""
        if self._due is not None and self._loop.time() >= self._due:
            return CallFailed("timeout", "the answer was not complete in time")
        return CallFailed("unreachable", "the answer was cut off")

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # nobody has asked for this
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(CallFailed("unreachable", f"the answer is no HTTP: {error}"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Several of one name are one list (RFC 9110 section 5.2)."""
        self._header_size += len(name) + len(value)
        if self._header_size > MOST_HEADERS:
            self._fail(CallFailed("too_large", "the headers of the answer are too large"))
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """Note whether the connection can be used again; an answer to HEAD has no body."""
        self._keeps = self._parser.should_keep_alive()
        length = self._headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_answer and not self._head:
            self._fail(CallFailed("too_large", f"an answer of {length} bytes"))
        elif self._head and self._parser.get_status_code() >= 200:
            self._keeps = False  # the parser does not know that no body follows
            self._done()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._size += len(body)
        if self._size > self._max_answer:
            self._fail(CallFailed("too_large", f"an answer of more than {self._max_answer} bytes"))
        self._body.append(body)
        if not self._memory.take(len(body)):
            self._fail(CallFailed("too_large", "there is no memory for more answers"))

    def on_message_complete(self) -> None:
        """Hand over the answer, unless it is an informational one."""
        if self._parser.get_status_code() < 200:
            self._headers.clear()
        else:
            self._done()

    def _done(self) -> None:
        if self._answer is not None and not self._answer.done():
            status = self._parser.get_status_code()
            self._answer.set_result(Answer(status=status, headers=self._headers, body=b"".join(self._body)))
