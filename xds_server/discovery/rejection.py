"""Which resources a rejection is about, by the client's own message."""

from __future__ import annotations

import re
from collections.abc import Collection

_LISTED = re.compile(r"Error adding/updating (?:cluster|listener)\(s\) ")
"""What follows is Envoy's list of ``NAME: reason``, separated by commas or lines."""
_AROUND_A_WORD = (('"', '"'), ("'", "'"), (": ", ":"), ("; ", ": "))
_PRINTED = re.compile(r'goo\.gle/debug\w+\s+(?:cluster_)?name: "((?:[^"\\]|\\.)*)"')
"""Envoy prints the resource that it rejects, the name first."""

_PRINTED_FIRST = re.compile(r"goo\.gle/debug")


def blamed(message: str, names: Collection[str]) -> frozenset[str]:
    """The names that the message is about; the only name there is, when it says none."""
    listed, printed = _LISTED.match(message), _PRINTED.match(message)
    if listed is not None:
        found = _of_list(message[listed.end() :], names)
    elif printed is not None:
        found = frozenset({printed[1]} & set(names))
    else:
        found = _mentioned(message, names)
    return frozenset(names) if not found and len(names) == 1 else found


def _of_list(text: str, names: Collection[str]) -> frozenset[str]:
    return frozenset(
        name
        for name in names
        if text.startswith(f"{name}: ") or f", {name}: " in text or f"\n{name}: " in text
    )


def _mentioned(message: str, names: Collection[str]) -> frozenset[str]:
    """The names that a message of unknown form holds as a whole word, and not only inside of a longer name.

    What may be a word of the message itself ("address", "cluster") must stand in quotes or between colons, or begin it.
    """
    found = frozenset(name for name in names if name in message and _stands_alone(name, message))
    longest = sorted(found, key=len, reverse=True)
    return frozenset(name for name in found if _outside_of(name, longest, message))


def essence(message: str) -> str:
    """A client's message in one line, without the printed resource and without what only leads to the cause.

    Envoy prints what it rejects before it says why, and names every message around the field.
    """
    text = message.strip()
    if _PRINTED_FIRST.match(text):
        text = text.rpartition("\n: ")[2]
    start, nested, cause = text.rpartition(" | caused by ")
    if nested:
        text = cause.removesuffix(")") if "(" in start and cause.count(")") > cause.count("(") else cause
    return " ".join(text.split())


def is_bind_failure(message: str) -> bool:
    """Whether a rejection is about the client's machine, a port that is taken, and not about what it was sent.

    Others may well take the same, and so may this one later.
    """
    return "cannot bind" in message


def _stands_alone(name: str, message: str) -> bool:
    if name.isalpha():
        between = any(f"{left}{name}{right}" in message for left, right in _AROUND_A_WORD)
        return between or message.startswith(f"{name}: ")
    return re.search(rf"(?<![\w/.-]){re.escape(name)}(?![\w/-]|\.\w)", message) is not None


def _outside_of(name: str, longest: list[str], message: str) -> bool:
    """Whether the name stands also where no longer blamed name does."""
    for other in longest:
        if other != name and name in other:
            message = message.replace(other, "")
    return _stands_alone(name, message)
