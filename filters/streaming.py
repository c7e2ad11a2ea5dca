"""Streaming gRPC methods as plain values, independent of the server that serves them.

Envoy opens a stream for each request (external processing), or keeps one for as long as it runs (access logs). A stream
is a session object that gets one message after the other. It is no coroutine, because a task for each stream costs more
than the work on most of them. Unary methods are in `unary`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


class Session(Protocol):
    """The server's side of one stream: what it answers to each message, without IO.

    The server waits for the response to a message before it gives the next message, so a session never runs twice at
    the same time. A `Later` is the cheapest awaitable. An `RpcError` ends the stream with its status, and any other
    error with UNKNOWN.
    """

    def receive(self, message: bytes) -> bytes | Awaitable[bytes | None] | None:
        """Return the response to a message, or None if there is none."""
        ...

    def end(self) -> bytes | Awaitable[bytes | None] | None:
        """Return the last response after the client has sent all messages. The stream ends with it."""
        ...

    def cancel(self) -> None:
        """Note that the stream ended before `end`: the client cancelled it or disconnected, or the session failed.

        An awaitable of this session that is not done is cancelled.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMethod:
    """One method with a stream of requests and a stream of responses: `path` is ``/package.Service/Method``.

    `open` returns the session of a new stream. It gets the metadata of the call, with names in lower case. It may raise
    RpcError.
    """

    path: str
    open: Callable[[Mapping[bytes, bytes]], Session]
