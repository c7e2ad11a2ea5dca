"""Which resources a rejection is about, by the client's own message."""

from __future__ import annotations

import re
from collections.abc import Collection


def blamed(message: str, names: Collection[str]) -> frozenset[str]:
    """The names that the message holds as a whole word; the only name there is, when it holds none."""
    found = frozenset(name for name in names if name in message and _stands_alone(name, message))
    if not found and len(names) == 1:
        return frozenset(names)
    longest = sorted(found, key=len, reverse=True)
    return frozenset(name for name in found if _outside_of(name, longest, message))


def of_its_machine(message: str) -> bool:
    """Whether a rejection is about the client's machine, a port that is taken, and not about what it was sent.

    Others may well take the same, and so may this one later.
    """
    return "cannot bind" in message


def _stands_alone(name: str, message: str) -> bool:
    return re.search(rf"(?<![\w/.-]){re.escape(name)}(?![\w/-]|\.\w)", message) is not None


def _outside_of(name: str, longest: list[str], message: str) -> bool:
    """Whether the name stands also where no longer blamed name does."""
    for other in longest:
        if other != name and name in other:
            message = message.replace(other, "")
    return _stands_alone(name, message)
