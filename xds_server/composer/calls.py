"""A call of the composer to an upstream of the gateway, its answer, and who makes it."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request to one upstream of the gateway.

    `path` includes the query. `timeout` is in seconds; None leaves what is left of the route's timeout.
    """

    upstream: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    timeout: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an upstream answered. The names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class CallFailed(Exception):  # noqa: N818 - carries a reason, as data
    """A call without an answer: `reason` says of which kind, the text says what happened."""

    def __init__(self, reason: Literal["timeout", "unreachable", "too_large"], text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Caller(Protocol):
    """Makes calls to upstreams. Cancelling `call` cancels the request to the upstream."""

    async def call(self, call: Call) -> Answer:
        """Make a call and return the whole answer of the upstream, whatever its status. Raises CallFailed."""
        ...

    def stream(self, call: Call) -> AsyncGenerator[Answer | bytes]:
        """Make a call, and yield the answer without its body, then the parts of the body. Raises CallFailed."""
        ...
