"""What happened, compared with what is expected. Does no IO."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from filters.language import Path
from filters.language.options import OFF
from filters.language.problems import short_repr
from filters.reasons import REASON_HEADER
from xds_server.gateway.model import regex
from xds_server.gateway.model.routes import ValueMatch
from xds_server.testing.language import Asked, Expected, TextMatch
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened to a request. `error` is the reason if there was no response; `status` is 0 then.

    `route` is the one that Envoy chose, or None, and `details` are Envoy's own words on the response.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    route: str | None = None
    details: str = ""
    received: tuple[Received, ...] = ()
    error: str = ""

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


def compare(expected: Expected, outcome: Outcome) -> Iterator[Difference]:
    """Yield every difference between an outcome and what is expected."""
    if outcome.error:
        yield Difference((), "a response", outcome.error)
        return
    if expected.status not in (None, outcome.status):
        yield Difference(("status",), str(expected.status), str(outcome.status))
    yield from _name(("reason",), expected.reason, outcome.reason)
    yield from _name(("route",), expected.route, outcome.route)
    yield from _message((), expected, outcome.headers, outcome.body)
    if expected.upstream is OFF and outcome.received:
        yield Difference(("upstream",), "no request to an upstream", _requests(outcome.received))
    elif isinstance(expected.upstream, Asked):
        yield from _asked(("upstream",), expected.upstream, outcome.received)


def _name(path: Path, expected: object, found: str | None) -> Iterator[Difference]:
    if expected is not None and (None if expected is OFF else expected) != found:
        yield Difference(path, _NOTHING if expected is OFF else str(expected), found or _NOTHING)


def _asked(path: Path, expected: Asked, received: Sequence[Received]) -> Iterator[Difference]:
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


def _message(path: Path, expected: Expected | Asked, headers: Headers, body: bytes) -> Iterator[Difference]:
    for name, match in expected.headers.items():
        value = value_of(headers, name)
        if not value_matches(match, value):
            yield Difference(
                (*path, "headers", name), _condition(match), _NOTHING if value is None else value
            )
    if expected.body is not None and not _text_matches(expected.body, text_of(body)):
        yield Difference((*path, "body"), _condition(expected.body), shown(body))
    if expected.json is not None:
        try:
            found = json.loads(body)
        except ValueError:
            yield Difference((*path, "json"), json.dumps(expected.json, ensure_ascii=False), shown(body))
        else:
            yield from _json((*path, "json"), expected.json, found)


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


def shown(body: bytes) -> str:
    """Return a body for people, cut if it is long."""
    text = text_of(body)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(body)} bytes)"


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
