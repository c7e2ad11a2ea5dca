"""Stub upstreams: servers at Unix sockets that answer as a test says, and remember what they got."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from aiohttp import web

from xds_server.testing.comparison import Received
from xds_server.testing.language import Answer, Asked
from xds_server.testing.reader import Answers
from xds_server.testing.stubbed import HEADER

LATE = 2.0
"""The maximum number of seconds between a response and a request to an upstream for it, such as that of a mirror."""
_PATIENCE = 0.1
"""Seconds at the end for answers that nobody waits for any more."""
_DEFAULT = Answer()
_NO_ANSWER = Answer(status=404, body="the stub has no answer for this request")
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
            runner = web.ServerRunner(
                web.Server(partial(self._handle, name), access_log=None), shutdown_timeout=_PATIENCE
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.UnixSite(runner, str(socket)).start()

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
        exchange = request.headers.get(HEADER, "")
        try:
            body = await request.content.read()
        except (ConnectionError, web.RequestPayloadError):
            return web.Response()  # the client has given up, and nobody reads this
        test = exchange.rpartition("-")[0]
        if test in self._answers:
            headers = tuple((name.lower(), value) for name, value in request.headers.items())
            self._received.setdefault(exchange, []).append(
                Received(
                    upstream=upstream,
                    method=request.method,
                    path=request.raw_path,
                    headers=tuple((name, value) for name, value in headers if name != HEADER),
                    body=body,
                )
            )
            self._bell.set()
        answer = self._answer(test, upstream, request.method, request.raw_path)
        await asyncio.sleep(answer.delay.total_seconds())
        return _response(answer)

    def _answer(self, test: str, upstream: str, method: str, path: str) -> Answer:
        answers = self._answers.get(test, self._others).get(upstream)
        if answers is None:
            return _DEFAULT
        for answer in answers:
            key = (f"{test}/{upstream}", id(answer))
            if answer.matches(method, path) and (answer.times is None or self._used[key] < answer.times):
                self._used[key] += 1
                return answer
        return _NO_ANSWER


def _response(answer: Answer) -> web.Response:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if answer.content:
        headers.setdefault("content-type", "text/plain" if answer.json is None else "application/json")
    return web.Response(status=answer.status, headers=headers, body=answer.content)


def merged(tests: Iterable[Answers]) -> Mapping[str, tuple[Answer, ...]]:
    """Return all answers together, for requests that no test can be told for, such as those of an `ext_authz` service."""
    found: dict[str, dict[int, Answer]] = {}
    for answers in tests:
        for upstream, some in answers.items():
            found.setdefault(upstream, {}).update({id(one): one for one in some})
    return {upstream: tuple(some.values()) for upstream, some in found.items()}
