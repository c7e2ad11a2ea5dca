"""Percent escapes in paths (RFC 3986): which spellings are the same path.

Envoy decodes escapes of unreserved characters before it matches, and it escapes characters that are not allowed in a
path. It leaves the case of all other escapes as the client wrote it, and it leaves reserved characters plain or
escaped. The gateway compares paths by these rules:

- The hexadecimal digits of an escape compare without case (section 6.2.2.1).
- A reserved character and its escape are equal. Most services treat them alike, so the policy of one spelling must
  hold for the other. Section 2.2 lets them differ.
- An escaped ``/``, ``\\``, ``?``, ``#`` or ``%`` differs from the plain character, which has a meaning of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ESCAPE = re.compile(r"%(?:[0-9A-Fa-f]{2})?")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
RESERVED = "!$&'()*+,;=:@[]"
"""Characters that Envoy leaves as the client wrote them, plain or escaped."""
_PLAIN = frozenset(RESERVED) - frozenset("*[]")
"""The reserved characters that the path of a route can have plain."""
_SPECIAL = re.compile(rf"[%{re.escape(RESERVED)}]")
_TOKEN = re.compile(rf"%[0-9A-F]{{2}}|[{re.escape(RESERVED)}]|[^%{re.escape(RESERVED)}]+")


def found(path: str) -> Iterator[str]:
    """Yield every escape as it is written, and each ``%`` that does not begin an escape."""
    return (match[0] for match in _ESCAPE.finditer(path))


def decoded(escape: str) -> str | None:
    """Return the unreserved character that Envoy decodes an escape to, or None (section 6.2.2.2)."""
    char = chr(int(escape[1:], 16))
    return char if _UNRESERVED.fullmatch(char) else None


def canonical(path: str) -> str:
    """Return the one form of all spellings.

    It has digits in upper case, and reserved characters plain if a route can have them plain.
    """

    def written(match: re.Match[str]) -> str:
        char = chr(int(match[0][1:], 16))
        return char if char in _PLAIN else match[0].upper()

    return re.sub(r"%[0-9A-Fa-f]{2}", written, path)


def normalized(path: str) -> str:
    """Return a client's path as Envoy matches it, without the handling of dots and slashes."""

    def plain(match: re.Match[str]) -> str:
        return (decoded(match[0]) or match[0]) if len(match[0]) == 3 else match[0]

    return re.sub(r'["<>^`{|}]', lambda char: f"%{ord(char[0]):02X}", _ESCAPE.sub(plain, path))


def spelled(path: str) -> bool:
    """True if a path in its canonical form has another spelling that Envoy does not change."""
    if not _SPECIAL.search(path):  # true for most paths, and a gateway may have thousands
        return False
    return any(spelling(token) != re.escape(token) for token in _TOKEN.findall(path))


def spellings(path: str) -> str:
    """Return an RE2 for every spelling of a path in its canonical form."""
    return "".join(map(spelling, _TOKEN.findall(path)))


def spelling(token: str) -> str:
    """Return an RE2 for every spelling of an escape in upper case, a reserved character, or other text."""
    char = chr(int(token[1:], 16)) if token[0] == "%" else token
    if char in RESERVED:
        return f"(?:{re.escape(char)}|{_any_case(f'%{ord(char):02X}')})"
    return _any_case(token) if token[0] == "%" else re.escape(token)


def _any_case(escape: str) -> str:
    return re.sub(r"[A-F]", lambda digit: f"[{digit[0]}{digit[0].lower()}]", escape.upper())
