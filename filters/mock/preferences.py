"""What a client prefers: the header Prefer (RFC 7240), and Accept (RFC 9110 section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PREFERENCE = re.compile(r"""\s*([A-Za-z]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,;"]*)\s*(?:;[^,]*)?(?:,|$)""")
_CODE = re.compile(r"[2-5][0-9]{2}")
_QUALITY = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


@dataclass(frozen=True, slots=True)
class Preferences:
    """The preferences that mocks know. None is no preference. `faulty` are names whose values make no sense."""

    code: int | None = None
    example: str | None = None
    dynamic: bool | None = None
    faulty: tuple[str, ...] = ()


def preferences(header: str) -> Preferences:
    """Return the preferences of a header's value. The first of each name counts, and unknown ones are ignored."""
    found: dict[str, str] = {}
    for name, value in _PREFERENCE.findall(header):
        text = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        found.setdefault(name.lower(), text)
    code, dynamic = found.get("code"), found.get("dynamic")
    faulty = []
    if code is not None and not _CODE.fullmatch(code):
        faulty.append("code")
    if dynamic is not None and dynamic.lower() not in ("true", "false"):
        faulty.append("dynamic")
    return Preferences(
        code=int(code) if code is not None and "code" not in faulty else None,
        example=found.get("example"),
        dynamic=dynamic.lower() == "true" if dynamic is not None and "dynamic" not in faulty else None,
        faulty=tuple(faulty),
    )


def best_type(accept: str | None, kinds: Sequence[str]) -> str | None:
    """Return the media type that a client prefers among some, or None if it accepts none of them.

    Without a preference, it is one of JSON, or else the first.
    """
    ordered = sorted(kinds, key=lambda one: not _is_json(one))
    if not accept or not accept.strip():
        return ordered[0] if ordered else None
    ranges = [one for one in map(_range, accept.split(",")) if one is not None]
    rated = [(max((_quality(one, kind) for one in ranges), default=(0, 0.0)), kind) for kind in ordered]
    acceptable = [(quality, kind) for (_, quality), kind in rated if quality > 0]
    if not acceptable:
        return None
    highest = max(quality for quality, _ in acceptable)
    return next(kind for quality, kind in acceptable if quality == highest)


def _is_json(kind: str) -> bool:
    name = kind.partition(";")[0].strip().lower()
    return name == "application/json" or name.endswith("+json")


def _range(text: str) -> tuple[str, float] | None:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    if "/" not in name:
        return None
    quality = 1.0
    for one in parameters:
        key, _, value = one.partition("=")
        if key.strip() == "q":
            quality = float(value) if _QUALITY.fullmatch(value.strip()) else 0.0
    return name, quality


def _quality(one: tuple[str, float], kind: str) -> tuple[int, float]:
    """Return how specific a range is for a media type, and its quality. The most specific one counts."""
    name, quality = one
    wanted = kind.partition(";")[0].strip().lower()
    if name == wanted:
        return 3, quality
    if name.endswith("/*") and name != "*/*" and wanted.startswith(name[:-1]):
        return 2, quality
    return (1, quality) if name == "*/*" else (0, 0.0)
