"""Regular expressions for paths: if one spelling of a reserved character matches, all its spellings match.

`escapes` defines which spellings of a path are equal. This module rewrites an RE2 of a user accordingly. Every part
that matches one character, such as ``@``, ``\\x40``, ``.`` or ``[^/]``, then also matches the escape of each reserved
character that it matches, and no escape of a reserved character that it does not match.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache

from filters.model import escapes
from xds_server.gateway.model import regex

TOKEN = re.compile(
    r"""
    (?P<quoted>\\Q.*?(?:\\E|\Z))
    | (?P<escape>\\?%[0-9A-Fa-f]{2})
    | (?P<quantifier>[*+?]\??|\{[0-9]+(?:,[0-9]*)?\}\??)
    | (?P<structure>\(\?P?<\w+>|\(\?[A-Za-z-]*[:)]|[()|^$])
    | (?P<one>
        \[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\]\\])*\]
        | \\[pP](?:\{[^}]*\}|.) | \\x(?:\{[0-9A-Fa-f]+\}|[0-9A-Fa-f]{2}) | \\[0-7]{1,3}
        | \\. | .
      )
    """,
    re.DOTALL | re.VERBOSE,
)
"""The parts of an expression that RE2 accepts, one after the other."""
_HEX = "0123456789ABCDEFabcdef"


@lru_cache(maxsize=65536)
def spellings(pattern: str) -> str:
    """Return an expression that RE2 accepts, rewritten to match every spelling of its paths.

    The result has the same groups. A class that lists ``%`` still matches only the client's spelling, because only
    its author knows which escapes are meant.
    """
    tokens = list(TOKEN.finditer(pattern))
    following = [_unbounded(token[0]) for token in tokens[1:]] + [False]
    return "".join(_rewritten(token, repeated) for token, repeated in zip(tokens, following, strict=True))


def written(pattern: str) -> Iterator[str]:
    """Yield the escapes that are written out in an expression."""
    for token in TOKEN.finditer(pattern):
        if token["escape"]:
            yield token[0].removeprefix("\\")
        elif token["quoted"]:
            yield from (escape for escape in escapes.found(_text(token[0])) if len(escape) == 3)


def _rewritten(token: re.Match[str], repeated: bool) -> str:
    text = token[0]
    if token["escape"]:
        return escapes.spelling(text.removeprefix("\\").upper())
    if token["quoted"]:
        return "".join(map(escapes.spelling, re.findall(r"%[0-9A-F]{2}|.", _text(text), re.DOTALL)))
    return _class(text, repeated) if token["one"] else text


def _text(quoted: str) -> str:
    """Return the text between ``\\Q`` and ``\\E``, with its escapes in upper case."""
    inner = quoted.removeprefix("\\Q").removesuffix("\\E")
    return re.sub(r"%[0-9A-Fa-f]{2}", lambda match: match[0].upper(), inner)


def _unbounded(quantifier: str) -> bool:
    return quantifier.startswith(("*", "+")) or (",}" in quantifier and quantifier.startswith("{"))


def _class(part: str, repeated: bool) -> str:
    """Rewrite a part that matches one character. `repeated` is true if any number of these may follow."""
    matched = [char for char in escapes.RESERVED if _has(part, char)]
    if not _has(part, "%") or not all(_has(part, digit) for digit in _HEX):
        return f"(?:{part}|{_any_of(matched)})" if matched else part
    if len(matched) == len(escapes.RESERVED):
        return part if repeated else f"(?:{part}|{_any_of(matched)})"
    if part.startswith("[^"):
        return f"(?:[^%{part[2:]}|{_none_of(set(escapes.RESERVED) - set(matched))})"
    return f"(?:{part}|{_any_of(matched)})" if matched else part


@lru_cache(maxsize=65536)
def _has(part: str, char: str) -> bool:
    return regex.matches(part, char)


def _second_digits(chars: Iterable[str]) -> dict[str, str]:
    """Return the second digits of the escapes of some characters, by the first digit."""
    digits: dict[str, str] = defaultdict(str)
    for char in sorted(chars):
        escape = f"{ord(char):02X}"
        digits[escape[0]] += "".join(dict.fromkeys((escape[1], escape[1].lower())))
    return digits


def _any_of(chars: Iterable[str]) -> str:
    parts = [f"{first}[{seconds}]" for first, seconds in _second_digits(chars).items()]
    return f"%(?:{'|'.join(parts)})"


def _none_of(chars: Iterable[str]) -> str:
    """Return an expression for a ``%`` that does not begin the escape of one of some characters."""
    digits = _second_digits(chars)
    others = "".join(digit for digit in _HEX if digit not in digits)
    parts = [f"[{others}][0-9A-Fa-f]"]
    for first, seconds in digits.items():
        parts.append(f"{first}[{''.join(digit for digit in _HEX if digit not in seconds)}]")
    # Envoy accepts a % that begins no escape: another character or the end follows the % or its one digit.
    parts += [r"\B", "[G-Zg-z_]", r"[0-9A-Fa-f](?:\b|[G-Zg-z_])"]
    return f"%(?:{'|'.join(parts)})"
