"""Responses as server-sent events: each result is an event `next`, and `complete` is the last one.

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md, the mode with distinct connections.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from filters.model.limits import GRAPHQL_COST_HEADER
from xds_server.composer.graphql.requests import EVENTS, NOT_STORED, HttpResponse
from xds_server.composer.graphql.subscriptions import Results

PING = 12.0
"""Seconds without an event behind which a comment shows that the stream lives."""
_COMPLETE = b"event: complete\ndata:\n\n"
_COMMENT = b":\n\n"


def response(body: bytes | AsyncGenerator[bytes], cost: int) -> HttpResponse:
    """The response with these events."""
    headers = {"content-type": EVENTS, **NOT_STORED, GRAPHQL_COST_HEADER: str(cost)}
    return HttpResponse(status=200, headers=headers, body=body)


def whole(value: Mapping[str, Any]) -> bytes:
    """All events of an operation with one result."""
    return _next(value) + _COMPLETE


async def events(results: Results) -> AsyncGenerator[bytes]:
    """Yield the events of a subscription. Closing it closes the results."""
    yield _COMMENT  # so that the client sees the headers now
    waiting: asyncio.Future[Mapping[str, Any]] | None = None
    async with aclosing(results):
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(results))
                if not (await asyncio.wait((waiting,), timeout=PING))[0]:
                    yield _COMMENT
                    continue
                try:
                    value = waiting.result()
                except StopAsyncIteration:
                    break
                finally:
                    waiting = None
                yield _next(value)
        finally:
            if waiting is not None:  # results cannot be closed while they are made
                waiting.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration):
                    await waiting
    yield _COMPLETE


def _next(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return b"event: next\ndata: " + text.encode("utf-8", "replace") + b"\n\n"
