"""Words of a text for the search: those of Latin and similar scripts as a whole, those of CJK scripts as pairs of signs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_CJK = (
    "\u1100-\u11ff\u3040-\u30ff\u3105-\u312f\u3130-\u318f\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff"
    "\uff66-\uff9d\U00020000-\U0003ffff"
)
"""Hangul, Kana, Bopomofo and Han. Their words have no spaces between them, or have endings that a query has not."""
_RUNS = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_IS_CJK = re.compile(rf"[{_CJK}]")
_PLAIN = re.compile(r"[A-Za-z0-9]+")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
LONGEST = 64
"""Characters of a word that count."""


def normalized(text: str) -> str:
    """Return a text in one form of its characters, without accents of Latin letters, in small letters."""
    text = unicodedata.normalize("NFKC", text)
    if not text.isascii():
        parts = unicodedata.normalize("NFD", text)
        plain = "".join(one for one in parts if not "\u0300" <= one <= "\u036f")
        text = unicodedata.normalize("NFC", plain)
    return text.casefold()


def words(text: str) -> Iterator[str]:
    """Yield the words of a text that is searched: ``getOrder`` as itself and its parts, CJK as signs and pairs of them."""
    for run in _PLAIN.findall(text):
        if not run.islower() and len(humps := _HUMPS.split(run)) > 1:
            yield from (one.lower()[:LONGEST] for one in humps)
    if text.isascii():
        yield from (run[:LONGEST] for run in _PLAIN.findall(text.lower()))
        return
    for run in _RUNS.findall(normalized(text)):
        if _IS_CJK.match(run):
            yield from run
            yield from (run[at : at + 2] for at in range(len(run) - 1))
        else:
            yield run[:LONGEST]


def query_words(text: str) -> list[tuple[str, bool]]:
    """Return the words of a query, each with True if a longer word matches too: words of Latin and similar scripts."""
    found: dict[str, bool] = {}
    for run in _RUNS.findall(normalized(text)):
        if not _IS_CJK.match(run):
            found[run[:LONGEST]] = True
        elif len(run) == 1:
            found[run] = False
        else:
            found.update((run[at : at + 2], False) for at in range(len(run) - 1))
    return list(found.items())
