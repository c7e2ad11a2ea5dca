"""The names of a token's claims. Claim headers, consumers, `authorize` and limits use the same syntax.

A dot enters a nested claim. At the top of the token, a claim whose own name has dots is written as it is. The longest
name that exists counts: for ``kubernetes.io.pod.name`` the token may have ``kubernetes.io.pod.name``,
``kubernetes.io.pod``, ``kubernetes.io`` or ``kubernetes``. In a nested claim a dot within a name is written ``\\.``,
and a backslash ``\\\\``.
"""

from __future__ import annotations

import re
from functools import lru_cache

from filters.language import Mistake

MOST_PARTS = 16
"""Parts of a path. Each part is one more place to look up."""
REMEDY = r"write realm.roles; a dot within a name is written \., a backslash \\"
_PART = re.compile(r"(?:[^.\\]|\\.|\\$)*", re.DOTALL)
_ESCAPE = re.compile(r"\\([.\\])")

ClaimPath = tuple[str, ...]
"""The names from the top of the token down to the claim."""


@lru_cache(maxsize=4096)
def paths(written: str) -> tuple[ClaimPath, ...]:
    """The places at which the claim may be, in the order of the lookup. The first place with a claim counts."""
    parts = [_ESCAPE.sub(r"\1", part) for part in _parts(written)]
    return tuple((".".join(parts[:top]), *parts[top:]) for top in range(len(parts), 0, -1))


def check(written: str) -> Mistake | None:
    """A mistake in the written name of a claim, or None."""
    parts = _parts(written)
    if not all(parts):
        return Mistake("a part of this claim's path is empty", REMEDY, value=written)
    if any(re.search(r"\\(?![.\\])", _ESCAPE.sub("", part)) for part in parts):
        return Mistake("a backslash is allowed only before a dot or a backslash", REMEDY, value=written)
    if len(parts) > MOST_PARTS:
        remedy = r"write a dot within a name as \."
        return Mistake(f"a claim's path has at most {MOST_PARTS} parts", remedy, value=written)
    return None


def _parts(written: str) -> list[str]:
    """The parts between dots, with their escapes."""
    parts, at = [], 0
    while True:
        match = _PART.match(written, at)
        assert match is not None, "it may be empty"
        parts.append(match[0])
        at = match.end() + 1
        if at > len(written):
            return parts
