"""How claims of a token are named, everywhere in the same way: claim headers, consumers, `authorize`, limits.

A dot enters a nested claim. A claim whose own name has dots is named as it is where it stands at the top of the token:
of ``kubernetes.io.pod.name`` the longest name that is there counts, be it ``kubernetes.io.pod.name``,
``kubernetes.io.pod``, ``kubernetes.io`` or ``kubernetes``. Anywhere else a dot within a name is written ``\\.``, and a
backslash ``\\\\``.
"""

from __future__ import annotations

import re
from functools import lru_cache

from filters.language import Mistake

MOST_PARTS = 16
"""Parts of a path; each is one more place to look at."""
REMEDY = r"write realm.roles; a dot within a name is written \., a backslash \\"
_PART = re.compile(r"(?:[^.\\]|\\.|\\$)*", re.DOTALL)
_ESCAPE = re.compile(r"\\([.\\])")

ClaimPath = tuple[str, ...]
"""The names from the top of the token down to the claim."""


@lru_cache(maxsize=4096)
def paths(written: str) -> tuple[ClaimPath, ...]:
    """Where the claim may be, in the order in which it is looked for: the first place where there is one counts."""
    parts = [_ESCAPE.sub(r"\1", part) for part in _parts(written)]
    return tuple((".".join(parts[:top]), *parts[top:]) for top in range(len(parts), 0, -1))


def check(written: str) -> Mistake | None:
    """A mistake in what is written for a claim, or None."""
    parts = _parts(written)
    if not all(parts):
        return Mistake("a part of this claim's path is empty", REMEDY, value=written)
    if any(re.search(r"\\(?![.\\])", _ESCAPE.sub("", part)) for part in parts):
        return Mistake("a backslash stands only before a dot or a backslash", REMEDY, value=written)
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
