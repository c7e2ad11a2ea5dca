"""Streaming gRPC methods as plain values, for services to which Envoy opens one stream and keeps it.

External processing and gRPC access logs are such services. Unary methods are in `unary`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMethod:
    """One method with a stream of requests and a stream of responses: `path` is ``/package.Service/Method``.

    `parse` converts each request's bytes. `call` gets the results and yields responses, which `serialize` converts. The
    stream ends when `call` ends, and `call` is cancelled if the client disconnects. An `RpcError` ends the stream with
    its status. A method that returns one response yields once.
    """

    path: str
    parse: Callable[[bytes], Any]
    call: Callable[[AsyncIterator[Any]], AsyncIterator[Any]]
    serialize: Callable[[Any], bytes]
