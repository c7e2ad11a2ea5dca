"""Unary gRPC methods as plain values: what a service offers, whichever server carries it.

A service of a policy is a tuple of methods. Our own HTTP/2 server and grpcio both mount them, so that neither
shows in the policy's code.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class UnaryMethod:
    """One method: `path` is ``/package.Service/Method``.

    `call` takes what `parse` made of the request's bytes and returns the response, or an awaitable of it.
    A response that is already bytes is sent as it is, anything else goes through `serialize`. A response that took
    something which only its reader gives back is wrapped as `Undoable`.
    """

    path: str
    parse: Callable[[bytes], Any]
    call: Callable[[Any], Any | Awaitable[Any]]
    serialize: Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class Undoable:
    """A response, and what is called where the client gave up before it can have read it."""

    response: Any
    undo: Callable[[], None]


def mapped(result: Any, change: Callable[[Any], Any]) -> Any:
    """A response that was changed, undoable where it was."""
    return Undoable(change(result.response), result.undo) if isinstance(result, Undoable) else change(result)


class RpcError(Exception):
    """Ends a call with a gRPC status other than OK (grpc/doc/statuscodes.md); `code` is its number."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Busy(Exception):  # noqa: N818 - a state of the server, told to Envoy
    """So many requests are under way that this one would not be decided in time."""
