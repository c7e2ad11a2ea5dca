"""Caching of a response that is made of several answers: it is kept no longer, and by nobody else, than each of them (RFC 9111)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_FORBIDDING = ("no-store", "private", "no-cache")
_LIFETIMES = ("s-maxage", "max-age")


def headers_of(answers: Iterable[Mapping[str, str]]) -> list[tuple[str, str]]:
    """Return `cache-control` and `vary` for a response, from the headers of the answers in it.

    What one answer forbids, the response forbids. Its lifetime is the shortest, if all have one.
    """
    found = list(answers)
    directives = [_directives(one.get("cache-control", "")) for one in found]
    told = [name for name in _FORBIDDING if any(name in one for one in directives)]
    if not told and found and None not in (lifetimes := [_lifetime(one) for one in directives]):
        told = [f"max-age={min(one for one in lifetimes if one is not None)}"]
    headers = [("cache-control", ", ".join(told))] if told else []
    names = {
        name.strip().lower(): None for one in found for name in one.get("vary", "").split(",") if name.strip()
    }
    return [*headers, ("vary", ", ".join(names))] if names else headers


def _directives(text: str) -> dict[str, str]:
    parts = (one.partition("=") for one in text.split(","))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in parts if name.strip()}


def _lifetime(directives: Mapping[str, str]) -> int | None:
    found = next((directives[name] for name in _LIFETIMES if name in directives), "")
    return int(found) if found.isdecimal() and found.isascii() else None
