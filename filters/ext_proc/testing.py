"""Helpers for unit tests of processors: a whole exchange in one line.

from filters.ext_proc.testing import exchange, request, response

def test_names_are_changed() -> None:
    seen = exchange(Rename, request("POST", "/users"), b'{"user_name": "john"}')
    assert seen.request_body == b'{"userName": "john"}'
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from filters.ext_authz.testing import read_sources
from filters.ext_proc.rule import PythonRule, load_class
from filters.model.headers import Headers
from filters.processing.exchange import Changes, Exchange, Failure
from filters.processing.phases import Body, Side
from filters.processing.plan import CHUNK, Plan, Step
from filters.processing.processor import Processor
from filters.processing.values import Answer, Request, Response

Sent = bytes | Sequence[bytes]
"""A body, or its pieces."""


def request(
    method: str = "GET", url: str = "/", headers: Mapping[str, str] | None = None, **more: Any
) -> Request:
    """A request. `url` is a path with or without a query, `more` are further fields of Request."""
    path, _, query = url.partition("?")
    return Request(
        method=method,
        path=path,
        query=dict(reversed(parse_qsl(query, keep_blank_values=True))),
        query_string=query,
        headers=Headers(headers or {}),
        **more,
    )


def response(status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response."""
    return Response(status=status, headers=Headers(headers or {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the upstream and the client see. `answer` is what a processor has answered, instead of all that follows."""

    request: Request
    request_body: bytes = b""
    response: Response | None = None
    response_body: bytes = b""
    answer: Answer | None = None


def exchange(
    processor: type[Processor],
    asked: Request,
    body: Sent = b"",
    answered: Response | None = None,
    response_body: Sent = b"",
    *,
    max_body: int = 1 << 20,
) -> Seen:
    """Send a request and its response through a processor, as the policy server does. Raises the processor's errors."""
    try:
        return asyncio.run(_exchange(processor, asked, body, answered, response_body, max_body))
    except Failure as failure:
        error = failure.error or failure
        raise error.__cause__ or error from None


async def _exchange(
    processor: type[Processor],
    asked: Request,
    body: Sent,
    answered: Response | None,
    response_body: Sent,
    max_body: int,
) -> Seen:
    plan = Plan((Step(PythonRule(processor.__name__, processor), 60.0, max_body),))
    running = Exchange(plan, _unbounded, lambda *_: None)
    sent, sent_body, answer = await _message(running, plan, "request", asked, body)
    if answer is not None or answered is None:
        return Seen(request=sent, request_body=sent_body, answer=answer)
    seen, seen_body, answer = await _message(running, plan, "response", answered, response_body)
    return Seen(request=sent, request_body=sent_body, response=seen, response_body=seen_body, answer=answer)


async def _message(
    running: Exchange, plan: Plan, side: Side, message: Any, body: Sent
) -> tuple[Any, bytes, Answer | None]:
    """Process a message. Returns it as the processor leaves it, its body, and the processor's answer."""
    pieces = (body,) if isinstance(body, bytes) else tuple(body)
    whole = b"".join(pieces)
    result = await running.headers(side, message, ends=not whole)
    if isinstance(result, Answer):
        return message, whole, result
    message = _changed(message, result)
    if not whole:
        return message, whole, None
    if result.next in (Body.SIZED, Body.UNSIZED):
        result = await running.body(side, whole)
        if isinstance(result, Answer):
            return message, whole, result
        return _changed(message, result), whole if result.body is None else result.body, None
    in_pieces = plan.of[CHUNK[side]] and result.next is None
    out: list[bytes] = []
    for number, piece in enumerate(pieces if in_pieces else ()):
        result = await running.chunk(side, piece, last=number == len(pieces) - 1)
        if isinstance(result, Answer):
            return message, b"".join(out), result
        out.append(piece if result.body is None else result.body)
    return message, b"".join(out) if in_pieces else whole, None


def _changed(message: Any, changes: Changes) -> Any:
    """A message with the changes of its headers and status."""
    more = {} if changes.status is None else {"status": changes.status}
    return replace(message, headers=changes.applied(message.headers), **more)


async def _unbounded(work: Awaitable[Any], _seconds: float) -> Any:
    return await work


def processor(reference: str, folder: Path | str = ".") -> type[Processor]:
    """The class of ``FILE.py:CLASS``, loaded as the policy server loads it. Raises Refused."""
    file, _, name = reference.rpartition(":")
    sources = read_sources(file, folder)
    return load_class(file, name, sources[file], sources).begin
