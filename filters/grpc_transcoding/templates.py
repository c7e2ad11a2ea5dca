"""Path templates of google.api.http (google/api/http.proto): ``/v1/{name=shelves/*}:check``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from filters.language import Mistake

_PART = re.compile(r"\{([^{}]*)\}|[^{}/]+|/")
_FIELD = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
_VARIABLE = re.compile(rf"({_FIELD})(?:=(.+))?")
_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()+,;=@%-]+")
_REMEDY = "write a template of google.api.http, such as /v1/{name=shelves/*}:check"


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. `segments` are literals, ``*`` and ``**``; `fields` are the paths of the bound fields.

    `spans` are the first segment of each field's value and the one after its last.
    """

    text: str
    segments: tuple[str, ...]
    verb: str
    fields: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]

    def regex(self, *, verbs: bool) -> str:
        """The RE2 for the whole path without a query.

        `verbs`: text after a colon in the last segment is always a verb, so that a segment without one has no colon.
        """
        parts = [self._segment(one, last=verbs and not self.verb) for one in self.segments[-1:]]
        parts = [self._segment(one, last=False) for one in self.segments[:-1]] + parts
        return "".join(parts) + (f":{re.escape(self.verb)}" if self.verb else "")

    @staticmethod
    def _segment(segment: str, *, last: bool) -> str:
        end = "[^/?:]" if last else "[^/?]"
        if segment == "**":
            return f"(?:(?:/[^/?]*)*/{end}*)?"
        return f"/{end}+" if segment == "*" else f"/{re.escape(segment)}"

    def fits(self, segments: Sequence[str]) -> bool:
        """True if the template has the segments of a path, without its verb."""
        if self.segments[-1:] == ("**",):
            own, segments = self.segments[:-1], segments[: len(self.segments) - 1]
        else:
            own = self.segments
        pairs = zip(own, segments, strict=False)
        return len(own) == len(segments) and all(one in ("*", other) for one, other in pairs)

    def values(self, segments: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield the bound fields of segments that fit, with their escaped values."""
        for field, (start, end) in zip(self.fields, self.spans, strict=True):
            open_end = self.segments[end - 1] == "**"
            yield field, "/".join(segments[start:] if open_end else segments[start:end])

    def in_one_segment(self, field: str) -> bool:
        """True if the value of a field is one segment, in which every escape is decoded, that of a slash too."""
        start, end = self.spans[self.fields.index(field)]
        return end - start == 1 and self.segments[start] == "*"

    @property
    def example(self) -> str:
        """A path that matches."""
        path = "".join(f"/{'x' if one in ('*', '**') else one}" for one in self.segments)
        return path + (f":{self.verb}" if self.verb else "")


@lru_cache(maxsize=4096)
def parse(text: str) -> Template:
    """Return a parsed template. Raises Mistake."""
    if not text.startswith("/"):
        raise Mistake("a path template begins with /", _REMEDY, value=text)
    body, verb = _without_verb(text)
    segments: list[str] = []
    fields: list[str] = []
    spans: list[tuple[int, int]] = []
    for part in _parts(body[1:], text):
        if part.startswith("{"):
            found = _VARIABLE.fullmatch(part[1:-1])
            if found is None:
                raise Mistake(f"{part} is not a variable", "write {field} or {field=pattern}", value=text)
            fields.append(found[1])
            start = len(segments)
            segments += (found[2] or "*").split("/")
            spans.append((start, len(segments)))
        else:
            segments.append(part)
    _check(segments, verb, text)
    if len(set(fields)) != len(fields):
        raise Mistake("a field is bound twice in the template", "bind each field once", value=text)
    return Template(text, tuple(segments), verb, tuple(fields), tuple(spans))


def _without_verb(text: str) -> tuple[str, str]:
    end = text.rfind("}")
    colon = text.find(":", max(end, text.rfind("/")))
    return (text, "") if colon < 0 else (text[:colon], text[colon + 1 :])


def _parts(body: str, text: str) -> Iterator[str]:
    at = 0
    separated = True
    for found in _PART.finditer(body):
        if found.start() != at or (found[0] == "/") == separated:
            break
        at, separated = found.end(), found[0] == "/"
        if not separated:
            yield found[0]
    if at != len(body) or separated:
        raise Mistake("not a path template", _REMEDY, value=text)


def _check(segments: list[str], verb: str, text: str) -> None:
    for number, segment in enumerate(segments):
        if segment == "**" and number != len(segments) - 1:
            raise Mistake("** is only allowed at the end of a template", "move it to the end", value=text)
        if segment not in ("*", "**") and not _LITERAL.fullmatch(segment):
            raise Mistake(f"'{segment}' is not a segment of a template", _REMEDY, value=text)
    if text.endswith(":") or (verb and not _LITERAL.fullmatch(verb)):
        raise Mistake("a verb is plain text after the last segment", "write /v1/books:check", value=text)


def spellings(names: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    """Yield the regular expressions of all spellings of a field path in a query.

    `names` are the names of each field of the path. A client may escape every character (RFC 3986 section 2.1).
    """
    for path in sorted(set(product(*names))):
        yield "".join(f"(?:{re.escape(char)}|(?i:%{ord(char):02x}))" for char in ".".join(path))
