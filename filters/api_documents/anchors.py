"""Names of places on a page: short, safe in a URL, and unique."""

from __future__ import annotations

import re

LONGEST = 80


class Anchors:
    """Makes anchors that differ from those before."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def new(self, text: str) -> str:
        """Return an anchor like a text: letters of ASCII, digits, ``-``, ``_`` and ``.``."""
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", text)[:LONGEST].strip("-") or "operation"
        found, number = name, 1
        while found.lower() in self._known:
            number += 1
            found = f"{name}-{number}"
        self._known.add(found.lower())
        return found
