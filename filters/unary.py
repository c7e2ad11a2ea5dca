"""Unary gRPC methods as plain values, independent of the server that serves them.

A service of a policy is a tuple of methods. Our own HTTP/2 server and grpcio both mount them, so the policy's code
depends on neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class UnaryMethod:
    """One method: `path` is ``/package.Service/Method``.

    `parse` converts the request's bytes. `call` takes the result and returns the response, or an awaitable of it. A
    `Later` is the cheapest awaitable. A response that is already bytes is sent as it is; `serialize` converts any
    other. If a response took something (a slot) that only its reader gives back, `call` wraps it as `Undoable`.
    """

    path: str
    parse: Callable[[bytes], Any]
    call: Callable[[Any], Any | Awaitable[Any]]
    serialize: Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class Undoable:
    """A response. The server calls `undo` if the client gave up before it can have read the response."""

    response: Any
    undo: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Later:
    """A response that `finish` makes of the result of a future. `finish` may raise RpcError.

    It is an awaitable like any other, but our own server needs no task for it.
    """

    future: asyncio.Future[Any]
    finish: Callable[[Any], Any]

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the future."""
        return self.finish((yield from self.future.__await__()))


def mapped(result: Any, change: Callable[[Any], Any]) -> Any:
    """`change` applied to a response. The result is Undoable if the given response was."""
    return Undoable(change(result.response), result.undo) if isinstance(result, Undoable) else change(result)


class RpcError(Exception):
    """Ends a call with a gRPC status other than OK (grpc/doc/statuscodes.md); `code` is its number."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Busy(Exception):  # noqa: N818 - a state of the server, reported to Envoy
    """Too many requests are in progress, so this request would not be decided in time."""
