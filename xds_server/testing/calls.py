"""What a person writes about gRPC in a file of tests: calls, what stubs answer to them, and what is expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

from filters import framing
from filters.language import Mistake, Path, Shorthand, option
from filters.language.problems import did_you_mean
from xds_server.gateway.model.routes import ValueMatch
from xds_server.testing.text_match import TextMatch

_NONE: Mapping[str, Any] = MappingProxyType({})
_METHOD, _METHOD_SHAPE = r"[A-Za-z_][\w.]*/[A-Za-z_]\w*", "a method such as shop.v1.Orders/Get"
GrpcStatus = Literal[
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
]  # fmt: skip
GRPC_STATUSES: tuple[str, ...] = get_args(GrpcStatus)
"""Names of statuses by their number (https://github.com/grpc/grpc/blob/master/doc/statuscodes.md)."""


def framing_mistakes(headers: Mapping[str, str], path: Path = ("headers",)) -> Iterator[Mistake]:
    """Yield a mistake for each header that frames the message. `path` is that of the headers."""
    for name in headers:
        if name.lower() in framing.HEADERS - {"host"} or name.startswith(":"):
            message = f"'{name}' frames the message or belongs to the connection, and xds test sets it"
            yield Mistake(message, "remove it", path=(*path, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a gRPC method. Metadata are headers of the request."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), _METHOD_SHAPE)
    method: str = option("The method, `package.Service/Method`.", pattern=_METHOD, shape=_METHOD_SHAPE)
    message: Any = option(
        "The message in protobuf's JSON form; a list for a stream of the client. Default: an empty message.",
        default=None,
    )
    web: bool = option("Call it by gRPC-Web, as browsers do.", default=False)

    @classmethod
    def short(cls, value: Any) -> Call:
        """Return a call with an empty message."""
        return cls(method=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a stub answers to a call of a gRPC method."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a gRPC status such as NOT_FOUND")
    method: str | None = option(
        "Only for this method, `package.Service/Method`.", default=None, pattern=_METHOD, shape=_METHOD_SHAPE
    )
    message: Any = option(
        "The message in protobuf's JSON form, which needs `method`; a list for a stream of the server. Default: an "
        "empty message if the status is OK.",
        default=None,
    )
    status: GrpcStatus = option("The status.", default="OK")
    status_message: str = option("The text of the status.", default="")
    trailers: Mapping[str, str] = option("Trailing metadata.", default=_NONE)

    @classmethod
    def short(cls, value: Any) -> Reply:
        """Return a status. Raises Mistake."""
        return cls(status=_status(value))

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for a message of no type."""
        if self.message is not None and self.method is None:
            remedy = "write method: package.Service/Method"
            yield Mistake("a message needs its method, because that has its type", remedy, path=("message",))
        yield from framing_mistakes(self.trailers, ("trailers",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """What is expected of the response to a gRPC call."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a gRPC status such as NOT_FOUND")
    status: GrpcStatus | None = option("The status.", default=None)
    status_message: TextMatch | None = option("The text of the status.", default=None)
    message: Any = option(
        "Fields of the message, in protobuf's JSON form; a list of all messages for a stream of the server.",
        default=None,
    )
    trailers: Mapping[str, ValueMatch] = option(
        "Conditions on trailing metadata. It is in the headers of a response that has nothing else.",
        default=_NONE,
    )

    @classmethod
    def short(cls, value: Any) -> Replied:
        """Return the expectation of a status. Raises Mistake."""
        return cls(status=_status(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What is expected of a gRPC call that an upstream got."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), _METHOD_SHAPE)
    method: str = option("The method, `package.Service/Method`.", pattern=_METHOD, shape=_METHOD_SHAPE)
    message: Any = option("Fields of the message; a list of all messages for a stream.", default=None)

    @classmethod
    def short(cls, value: Any) -> Called:
        """Return any call of a method."""
        return cls(method=value)


def _status(value: str) -> Any:
    if value not in GRPC_STATUSES:
        remedy = did_you_mean(value, GRPC_STATUSES) or "write a name such as OK or NOT_FOUND"
        raise Mistake("not a gRPC status", remedy, value=value)
    return value
