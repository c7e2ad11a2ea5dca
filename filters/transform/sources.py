"""Values that a transformation sets: constants, and what is known of the request, its caller and its body."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from filters.language import Mistake, Path
from filters.language.problems import did_you_mean
from filters.language.tokens import TOKEN
from filters.model import claims
from filters.policy import Context
from filters.transform.paths import names

PLAIN = ("consumer", "host", "ip", "method", "plan", "request_id", "route")
"""Kinds of sources without a name."""
NAMED = ("body", "claim", "header", "path", "query")
_ALL = (*PLAIN, *(f"{kind}:NAME" for kind in NAMED))
_GROUP = re.compile(r"\(\?P<(\w+)>\[\^/\]\+\)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Source:
    """A source: its kind, and the name that it has after the colon."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


@dataclass(frozen=True, slots=True)
class Setting:
    """A value to set: JSON, or a source whose missing value is replaced by the JSON `default`."""

    json: str | None = None
    source: Source | None = None
    default: str | None = None


def setting(value: Any, place: Path) -> Setting:
    """The value that a user wrote at `place`: a constant, ``{from: SOURCE, default: …}`` or ``{value: …}``.

    Raises Mistake.
    """
    if not isinstance(value, Mapping):
        return Setting(json=_json(value, place))
    if set(value) == {"value"}:
        return Setting(json=_json(value["value"], (*place, "value")))
    if "from" not in value or not set(value) <= {"from", "default"}:
        raise Mistake(
            "expected a constant, or a mapping with 'from'",
            "write {from: claim:tenant}, or {value: {…}} for an object",
            path=place,
            value=value,
        )
    default = value.get("default", _MISSING)
    return Setting(
        source=source(value["from"], (*place, "from")),
        default=None if default is _MISSING else _json(default, (*place, "default")),
    )


def source(written: Any, place: Path, *, more: tuple[str, ...] = ()) -> Source:
    """The source that a user wrote, such as ``claim:tenant``. Raises Mistake, which names `more` kinds with names too."""
    kind, colon, name = str(written).partition(":")
    if (kind in PLAIN and not colon) or (kind in NAMED and name):
        if kind == "header" and not re.fullmatch(TOKEN, name):
            raise Mistake("not a header's name", "use letters, digits and -", path=place, value=written)
        if kind == "body":
            try:
                names(name)
            except Mistake as mistake:
                raise Mistake(mistake.message, mistake.remedy, path=place, value=written) from None
        return Source(kind, name.lower() if kind == "header" else name)
    raise Mistake(
        "no source of a value has this name",
        f"write one of {', '.join((*_ALL, *(f'{kind}:NAME' for kind in more)))}"
        if kind not in NAMED
        else did_you_mean(kind, _ALL),
        path=place,
        value=written,
    )


def text(value: Any, place: Path) -> str:
    """A constant as the value of a header. Raises Mistake."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise Mistake("expected a text", "write the header's value in quotes", path=place, value=value)
    if _CONTROL.search(str(value)):
        raise Mistake(
            "not a header's value", "leave out line ends and control characters", path=place, value=value
        )
    return str(value)


def segments(path_regex: str) -> Mapping[str, int]:
    """The numbers of the path's segments, from 1 on, that are names of a template."""
    found, slashes = {}, 0
    parts = _GROUP.split(path_regex)
    for at in range(1, len(parts), 2):
        slashes += parts[at - 1].count("/")
        if parts[at - 1].endswith("/") and parts[at + 1][:1] in ("", "/"):
            found[parts[at]] = slashes
    return found


def rule(one: Source, context: Context) -> dict[str, Any]:
    """A source as the script reads it."""
    if one.kind == "claim":
        return {"kind": "claim", "paths": [list(path) for path in _claim_paths(one.name)]}
    if one.kind == "path":
        return {"kind": "path", "segment": segments(context.path_regex)[one.name]}
    if one.kind == "route":
        return {"kind": "route", "name": context.route}
    return {"kind": one.kind, "name": one.name} if one.name else {"kind": one.kind}


def check(one: Source, context: Context, place: Path) -> Mistake | None:
    """The mistake of a source that this route does not have, or None."""
    if one.kind == "path" and one.name not in segments(context.path_regex):
        return Mistake(
            f"the path of this route has no segment {{{one.name}}}",
            f"write the path as a template, such as /users/{{{one.name}}}",
            path=place,
            value=str(one),
        )
    return None


def _claim_paths(name: str) -> list[tuple[str, ...]]:
    return [tuple(path) for path in claims.paths(name)]


def _json(value: Any, place: Path) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError):
        remedy = "write text, numbers, true, false, null, lists and mappings"
        raise Mistake("JSON has no such value", remedy, path=place, value=value) from None
