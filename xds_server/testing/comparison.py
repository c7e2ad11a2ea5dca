"""What happened, compared with what is expected. Does no IO."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from filters.grpc_bridges import PROTOBUF
from filters.language import Path
from filters.language.options import OFF
from filters.language.problems import short_repr
from filters.reasons import REASON_HEADER
from xds_server.gateway.model import regex
from xds_server.gateway.model.routes import ValueMatch
from xds_server.testing.calls import GRPC_STATUSES, Called, Replied
from xds_server.testing.language import Asked, Expected
from xds_server.testing.messages import Types, decoded, framed, text_of_status, unframed
from xds_server.testing.messages import expected as canonical
from xds_server.testing.text_match import TextMatch
from xds_server.translate.explain import value_matches

Headers = Sequence[tuple[str, str]]
"""Names in lower case, with their values."""
_LONGEST = 2000
"""Characters of a body that a difference shows."""
_NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request that a stub upstream got. `path` has the query."""

    upstream: str
    method: str
    path: str
    headers: Headers
    body: bytes

    @property
    def frames(self) -> bytes:
        """The body with the frame of gRPC, which grpc_reverse_bridge has removed."""
        bare = value_of(self.headers, "content-type") == PROTOBUF
        return framed([self.body]) if bare else self.body


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened to a request. `error` is the reason if there was no response; `status` is 0 then.

    `call` is the gRPC method that was called. Other requests have no `trailers`.

    `route` is the one that Envoy chose, or None, and `details` are Envoy's own words on the response.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    route: str | None = None
    details: str = ""
    received: tuple[Received, ...] = ()
    error: str = ""
    trailers: Headers = ()
    call: str | None = None

    @property
    def ending(self) -> Headers:
        """The trailers of a gRPC response, which are its headers if it has nothing else (PROTOCOL-HTTP2.md)."""
        return self.headers if value_of(self.trailers, "grpc-status") is None else self.trailers

    @property
    def grpc_status(self) -> str | None:
        """The gRPC status by its name, or by its number if it has none; None if there is none."""
        found = value_of(self.ending, "grpc-status")
        known = found is not None and found.isdecimal() and int(found) < len(GRPC_STATUSES)
        return GRPC_STATUSES[int(found)] if found is not None and known else found

    @property
    def grpc_message(self) -> str:
        """The text of the gRPC status."""
        return text_of_status(value_of(self.ending, "grpc-message") or "")

    @property
    def reason(self) -> str | None:
        """The reason of the gateway's own response, or None."""
        return value_of(self.headers, REASON_HEADER)


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not as expected. `path` is that of the expectation, below the step."""

    path: Path
    expected: str
    found: str


_NO_TYPES = Types()


def compare(expected: Expected, outcome: Outcome, types: Types = _NO_TYPES) -> Iterator[Difference]:
    """Yield every difference between an outcome and what is expected. `types` has the methods of gRPC."""
    if outcome.error:
        yield Difference((), "a response", outcome.error)
        return
    if expected.status not in (None, outcome.status):
        yield Difference(("status",), str(expected.status), str(outcome.status))
    yield from _name(("reason",), expected.reason, outcome.reason)
    yield from _name(("route",), expected.route, outcome.route)
    yield from _message((), expected, outcome.headers, outcome.body)
    if expected.grpc is not None:
        yield from _replied(("grpc",), expected.grpc, outcome, types)
    if expected.upstream is OFF and outcome.received:
        yield Difference(("upstream",), "no request to an upstream", _requests(outcome.received))
    elif isinstance(expected.upstream, Asked):
        yield from _asked(("upstream",), expected.upstream, outcome.received, types)


def _name(path: Path, expected: object, found: str | None) -> Iterator[Difference]:
    if expected is not None and (None if expected is OFF else expected) != found:
        yield Difference(path, _NOTHING if expected is OFF else str(expected), found or _NOTHING)


def _replied(path: Path, expected: Replied, outcome: Outcome, types: Types) -> Iterator[Difference]:
    if expected.status not in (None, outcome.grpc_status):
        found = outcome.grpc_status or f"{_NOTHING} (HTTP status {outcome.status})"
        text = f": {outcome.grpc_message}" if outcome.grpc_message else ""
        yield Difference((*path, "status"), str(expected.status), f"{found}{text}")
    match = expected.status_message
    if match is not None and not _text_matches(match, outcome.grpc_message):
        yield Difference((*path, "status_message"), _condition(match), outcome.grpc_message or _NOTHING)
    yield from _headers((*path, "trailers"), expected.trailers, outcome.ending)
    if expected.message is not None and outcome.call is not None:
        yield from _grpc(
            (*path, "message"), expected.message, outcome.call, outcome.body, types, request=False
        )


def _called(path: Path, expected: Called, found: Received, types: Types) -> Iterator[Difference]:
    if found.path.partition("?")[0] != f"/{expected.method}":
        yield Difference((*path, "method"), expected.method, found.path.removeprefix("/"))
    elif expected.message is not None:
        where = (*path, "message")
        yield from _grpc(where, expected.message, expected.method, found.frames, types, request=True)


def _grpc(
    path: Path, expected: Any, method: str, body: bytes, types: Types, *, request: bool
) -> Iterator[Difference]:
    """Yield what differs in the messages of a method. Names and numbers have the form that protobuf writes."""
    known = types.required(method)
    type_ = known.input_type if request else known.output_type
    streams = bool(known.client_streaming if request else known.server_streaming)
    wanted = canonical(type_, expected, streams=streams)
    try:
        found = decoded(type_, unframed(body), streams=streams)
    except ValueError as error:
        yield Difference(path, json.dumps(wanted, ensure_ascii=False), f"{error}: {shown(body)}")
        return
    if found is None:
        yield Difference(path, json.dumps(wanted, ensure_ascii=False), _NOTHING)
    else:
        yield from _json(path, wanted, found)


def _asked(path: Path, expected: Asked, received: Sequence[Received], types: Types) -> Iterator[Difference]:
    mine = [one for one in received if expected.name in (None, one.upstream)]
    if not mine:
        if expected.times == 0:
            return
        name = f"a request to {expected.name or 'an upstream'}"
        yield Difference(path, name, _requests(received) if received else "no request to an upstream")
        return
    last = mine[-1]
    if expected.times not in (None, len(mine)):
        yield Difference((*path, "times"), str(expected.times), str(len(mine)))
    if expected.method not in (None, last.method):
        yield Difference((*path, "method"), str(expected.method), last.method)
    if expected.path is not None:
        found = last.path if "?" in expected.path else last.path.partition("?")[0]
        if found != expected.path:
            yield Difference((*path, "path"), expected.path, last.path)
    yield from _message(path, expected, last.headers, last.body)
    if expected.grpc is not None:
        yield from _called((*path, "grpc"), expected.grpc, last, types)


def _message(path: Path, expected: Expected | Asked, headers: Headers, body: bytes) -> Iterator[Difference]:
    yield from _headers((*path, "headers"), expected.headers, headers)
    if expected.body is not None and not _text_matches(expected.body, text_of(body)):
        yield Difference((*path, "body"), _condition(expected.body), shown(body))
    if expected.json is not None:
        try:
            found = json.loads(body)
        except ValueError:
            yield Difference((*path, "json"), json.dumps(expected.json, ensure_ascii=False), shown(body))
        else:
            yield from _json((*path, "json"), expected.json, found)


def _headers(path: Path, expected: Mapping[str, ValueMatch], headers: Headers) -> Iterator[Difference]:
    for name, match in expected.items():
        value = value_of(headers, name)
        if not value_matches(match, value):
            yield Difference((*path, name), _condition(match), _NOTHING if value is None else value)


def _json(path: Path, expected: Any, found: Any) -> Iterator[Difference]:
    """Yield what differs, with the path of the smallest value that does. Objects may have more keys."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key, value in expected.items():
            if key not in found:
                yield Difference((*path, key), json.dumps(value, ensure_ascii=False), _NOTHING)
            else:
                yield from _json((*path, key), value, found[key])
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _json((*path, number), one, other)
    elif expected != found or isinstance(expected, bool) != isinstance(found, bool):
        yield Difference(
            path, json.dumps(expected, ensure_ascii=False), json.dumps(found, ensure_ascii=False)
        )


def value_of(headers: Headers, name: str) -> str | None:
    """Return the value of a header, several joined by a comma (RFC 9110 section 5.3), or None."""
    values = [value for other, value in headers if other == name.lower()]
    return ", ".join(values) if values else None


def text_of(body: bytes) -> str:
    """Return a body as text; what is not UTF-8 is replaced."""
    return body.decode(errors="replace")


def messages_of(types: Types, method: str, body: bytes, *, request: bool) -> str | None:
    """Return the messages of a gRPC body as JSON, one in each line, or None if they cannot be read."""
    known = types.method(method)
    if known is None:
        return None
    try:
        found = decoded(known.input_type if request else known.output_type, unframed(body), streams=True)
    except ValueError:
        return None
    return _cut("\n".join(json.dumps(one, ensure_ascii=False) for one in found))


def shown(body: bytes) -> str:
    """Return a body for people, cut if it is long."""
    return _cut(text_of(body))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text.encode())} bytes)"


def _text_matches(match: TextMatch, text: str) -> bool:
    if match.contains is not None:
        return match.contains in text
    if match.regex is not None:
        return regex.matches(match.regex, text)
    return (match.exact or "").removesuffix("\n") == text.removesuffix("\n")


def _condition(match: ValueMatch | TextMatch) -> str:
    """Return a condition in words."""
    if match.exact is not None:
        words = match.exact
    elif isinstance(match, ValueMatch) and match.present is not None:
        words = "any value" if match.present else _NOTHING
    else:
        kinds = ("prefix", "suffix", "contains", "regex")
        kind = next(one for one in kinds if getattr(match, one, None) is not None)
        words = f"{kind} {short_repr(getattr(match, kind), 200)}"
    return f"not: {words}" if isinstance(match, ValueMatch) and match.invert else words


def _requests(received: Sequence[Received]) -> str:
    return ", ".join(f"{one.method} {one.path} to {one.upstream}" for one in received)
