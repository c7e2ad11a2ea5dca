"""Paths to fields of JSON bodies: ``name``, ``address.city``, ``items[].price``, ``[].id``.

A path goes through arrays: ``orders.id`` is the ``id`` of the object ``orders``, or of each object in the array
``orders``. ``[]`` says that there must be an array. As in paths of claims, a dot within a name is written ``\\.`` and a
backslash ``\\\\``; a bracket is written ``\\[`` or ``\\]``.
"""

from __future__ import annotations

import re
from functools import lru_cache

from filters.language import Mistake, Path

ELEMENTS = "[]"
"""The step from an array to its elements."""
Steps = tuple[str, ...]
"""Names of members, and ELEMENTS. A member whose name is `[]` has a zero byte in front of it."""

_STEP = re.compile(r"((?:[^.\[\]\\\x00-\x1f]|\\[.\[\]\\])+)?((?:\[\])*)(\.|$)")
_ESCAPE = re.compile(r"\\(.)")
REMEDY = r"write names with dots between them, such as user.name or items[].price; a dot within a name is written \."


@lru_cache(maxsize=65536)
def steps(path: str) -> Steps:
    """The steps of a path. Raises Mistake."""
    found: list[str] = []
    at = 0
    while at <= len(path):
        match = _STEP.match(path, at)
        # Elements without a name are only at the beginning, for a body that is an array.
        if match is None or (match[1] is None and (not match[2] or at > 0)):
            break
        if match[1] is not None:
            name = _ESCAPE.sub(r"\1", match[1])
            found.append(f"\0{name}" if name == ELEMENTS else name)
        found += [ELEMENTS] * (len(match[2]) // 2)
        if match[3] == "":
            return tuple(found)
        at = match.end()
    raise Mistake("not a path to a field", REMEDY, value=path)


def name_of(step: str) -> str:
    """The name of a member that a step goes to."""
    return step.removeprefix("\0")


def names(path: str) -> Steps:
    """The steps of a path that goes through no array, to one value. Raises Mistake."""
    found = steps(path)
    if ELEMENTS in found:
        raise Mistake("this path must lead to one value", "leave out []", value=path)
    return found


def checked(path: str, place: Path) -> Mistake | None:
    """The mistake of a path that is written at `place`, or None."""
    try:
        steps(path)
    except Mistake as mistake:
        return Mistake(mistake.message, mistake.remedy, path=place, value=path)
    return None
