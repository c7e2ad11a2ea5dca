"""Stub upstreams: servers at Unix sockets that answer as a test says, and remember what they got."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from aiohttp import web

from filters.grpc_bridges import PROTOBUF
from xds_server.testing import http2
from xds_server.testing.calls import GRPC_STATUSES, Reply
from xds_server.testing.comparison import Headers, Received, value_of
from xds_server.testing.language import Answer, Asked
from xds_server.testing.messages import CHECK, checked_headers, framed, status_message
from xds_server.testing.reader import Answers, StubAnswer
from xds_server.testing.stubbed import HEADER

LATE = 2.0
"""The maximum number of seconds between a response and a request to an upstream for it, such as that of a mirror."""
_PATIENCE = 0.1
"""Seconds at the end for answers that nobody waits for any more."""
_DEFAULT = StubAnswer(answer=Answer())
_DEFAULT_REPLY = StubAnswer(answer=Answer(grpc=Reply()), messages=(b"",))
_MISSING = "the stub has no answer for this request"
_NO_ANSWER = StubAnswer(answer=Answer(status=404, body=_MISSING))
_NO_REPLY = StubAnswer(answer=Answer(grpc=Reply(status="UNIMPLEMENTED", status_message=_MISSING)))
Script = Callable[[str], Answers]
"""Returns the answers for the value of `HEADER` of a request, "" if it has none."""


class Stubs:
    """The stub of each upstream, in the folder `folder`."""

    def __init__(self, folder: Path, upstreams: Iterable[str]) -> None:
        self._sockets = {name: folder / f"{number}.sock" for number, name in enumerate(sorted(upstreams))}
        self._answers: dict[str, Answers] = {}
        self._received: dict[str, list[Received]] = {}
        self._used: Counter[tuple[str, int]] = Counter()
        self._others: Answers = {}
        self._bell = asyncio.Event()

    def socket(self, upstream: str) -> Path:
        """Return the path of the socket of an upstream."""
        return self._sockets[upstream]

    async def start(self, stack: AsyncExitStack, others: Answers) -> None:
        """Serve until the stack ends. `others` are the answers for requests that are of no test."""
        self._others = others
        for name, socket in self._sockets.items():
            http1 = web.Server(partial(self._handle, name), access_log=None)
            runner = web.ServerRunner(http1, shutdown_timeout=_PATIENCE)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            answer = partial(self._respond, name)
            connect = partial(http2.EitherVersion, http1, partial(http2.Server, answer))
            server = await asyncio.get_running_loop().create_unix_server(connect, str(socket))
            stack.callback(server.close)

    def expect(self, test: str, answers: Answers) -> None:
        """Answer the requests of a test, whose exchanges are ``TEST-NUMBER``, from now on."""
        self._answers[test] = answers

    async def until_asked(self, exchange: str, expected: object) -> None:
        """Wait for the expected requests of an exchange, at most LATE seconds: Envoy waits for no copy of a request."""
        if not isinstance(expected, Asked):
            return
        try:
            async with asyncio.timeout(LATE):
                while self._count(exchange, expected.name) < (
                    1 if expected.times is None else expected.times
                ):
                    self._bell.clear()
                    await self._bell.wait()
        except TimeoutError:
            return  # the comparison tells what is missing

    def _count(self, exchange: str, upstream: str | None) -> int:
        received = self._received.get(exchange, ())
        return sum(upstream in (None, one.upstream) for one in received)

    def received(self, exchange: str) -> tuple[Received, ...]:
        """Return the requests of an exchange in the order in which they came, and forget them."""
        return tuple(self._received.pop(exchange, ()))

    async def _handle(self, upstream: str, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request of HTTP/1.1."""
        try:
            body = await request.content.read()
        except (ConnectionError, web.RequestPayloadError):
            return web.Response()  # the client has given up, and nobody reads this
        headers = tuple((name.lower(), value) for name, value in request.headers.items())
        return _http1(await self._answered(upstream, request.method, request.raw_path, headers, body))

    async def _respond(self, upstream: str, request: http2.Message) -> http2.Message:
        """Answer a request of HTTP/2. Its host is shown as that of HTTP/1.1."""
        pseudo = {name: value for name, value in request.headers if name.startswith(":")}
        host = (("host", pseudo[":authority"]),) if ":authority" in pseudo else ()
        headers = (*host, *(one for one in request.headers if not one[0].startswith(":")))
        method, path = pseudo.get(":method", ""), pseudo.get(":path", "")
        return _http2(await self._answered(upstream, method, path, headers, request.body))

    async def _answered(
        self, upstream: str, method: str, path: str, headers: Headers, body: bytes
    ) -> StubAnswer:
        """Remember a request, and return its answer when it is time."""
        asked = checked_headers(body) if path == f"/{CHECK}" else {}
        exchange = value_of(headers, HEADER) or asked.get(HEADER, "")
        test = exchange.rpartition("-")[0]
        if test in self._answers:
            shown = tuple((name, value) for name, value in headers if name != HEADER)
            self._received.setdefault(exchange, []).append(
                Received(upstream=upstream, method=method, path=path, headers=shown, body=body)
            )
            self._bell.set()
        grpc = (value_of(headers, "content-type") or "").startswith("application/grpc")
        found = self._answer(test, upstream, method, path, grpc=grpc)
        await asyncio.sleep(found.answer.delay.total_seconds())
        return found

    def _answer(self, test: str, upstream: str, method: str, path: str, *, grpc: bool) -> StubAnswer:
        answers = self._answers.get(test, self._others).get(upstream)
        if answers is None:
            return _DEFAULT_REPLY if grpc else _DEFAULT
        for one in answers:
            key = (f"{test}/{upstream}", id(one))
            times = one.answer.times
            if one.answer.matches(method, path) and (times is None or self._used[key] < times):
                self._used[key] += 1
                return one
        return _NO_REPLY if grpc else _NO_ANSWER


def _headers(answer: Answer) -> dict[str, str]:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if answer.content:
        headers.setdefault("content-type", "text/plain" if answer.json is None else "application/json")
    return headers


def _http1(found: StubAnswer) -> web.Response:
    """Return an answer over HTTP/1.1. A message is a body without frame, as grpc_reverse_bridge wants it."""
    headers, body = _headers(found.answer), found.answer.content
    if found.answer.grpc is not None:
        headers, body = {"content-type": PROTOBUF, **headers}, b"".join(found.messages)
    return web.Response(status=found.answer.status, headers=headers, body=body)


def _http2(found: StubAnswer) -> http2.Message:
    """Return an answer over HTTP/2. A status without a message is in the headers (PROTOCOL-HTTP2.md of gRPC)."""
    headers, reply = _headers(found.answer), found.answer.grpc
    start = (":status", str(found.answer.status))
    if reply is None:
        return http2.Message(headers=(start, *headers.items()), body=found.answer.content)
    headers = {"content-type": "application/grpc", **headers}
    status = {"grpc-status": str(GRPC_STATUSES.index(reply.status))}
    if reply.status_message:
        status["grpc-message"] = status_message(reply.status_message)
    ending = {**status, **{name.lower(): value for name, value in reply.trailers.items()}}
    if not found.messages:
        return http2.Message(headers=(start, *headers.items(), *ending.items()))
    body = framed(found.messages)
    return http2.Message(headers=(start, *headers.items()), body=body, trailers=tuple(ending.items()))


def merged(tests: Iterable[Answers]) -> Answers:
    """Return all answers together, for requests that no test can be told for, such as those of an `ext_authz` service."""
    found: dict[str, dict[int, StubAnswer]] = {}
    for answers in tests:
        for upstream, some in answers.items():
            found.setdefault(upstream, {}).update({id(one): one for one in some})
    return {upstream: tuple(some.values()) for upstream, some in found.items()}
