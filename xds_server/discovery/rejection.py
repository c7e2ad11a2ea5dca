"""Finding the resources that a rejection is about in the client's message."""

from __future__ import annotations

import re
from collections.abc import Collection

_LISTED = re.compile(r"Error adding/updating (?:cluster|listener)\(s\) ")
"""Envoy's list of ``NAME: reason`` follows, separated by commas or lines."""
_AROUND_A_WORD = (('"', '"'), ("'", "'"), (": ", ":"), ("; ", ": "))
_PRINTED = re.compile(r'goo\.gle/debug\w+\s+(?:cluster_)?name: "((?:[^"\\]|\\.)*)"')
"""Envoy prints the rejected resource, its name first."""

_PRINTED_FIRST = re.compile(r"goo\.gle/debug")


def blamed(message: str, names: Collection[str]) -> frozenset[str]:
    """Return the names that the message is about, or the only name if the message mentions no name."""
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
    """Return the names that a message of unknown form has as a whole word, outside of a longer name.

    A name that may be a word of the message itself ("address", "cluster") must be in quotes, between colons, or at
    the start of the message.
    """
    found = frozenset(name for name in names if name in message and _stands_alone(name, message))
    longest = sorted(found, key=len, reverse=True)
    return frozenset(name for name in found if _outside_of(name, longest, message))


def essence(message: str) -> str:
    """Return a client's message in one line, without the printed resource and without the chain of causes.

    Envoy prints the resource before the reason, and it names every message around the field.
    """
    text = message.strip()
    if _PRINTED_FIRST.match(text):
        text = text.rpartition("\n: ")[2]
    start, nested, cause = text.rpartition(" | caused by ")
    if nested:
        text = cause.removesuffix(")") if "(" in start and cause.count(")") > cause.count("(") else cause
    return " ".join(text.split())


def is_bind_failure(message: str) -> bool:
    """True if the rejection is about the client's machine (a port is in use) and not about the resource.

    Other clients may accept the same resource, and so may this client later.
    """
    return "cannot bind" in message


def _stands_alone(name: str, message: str) -> bool:
    if name.isalpha():
        between = any(f"{left}{name}{right}" in message for left, right in _AROUND_A_WORD)
        return between or message.startswith(f"{name}: ")
    return re.search(rf"(?<![\w/.-]){re.escape(name)}(?![\w/-]|\.\w)", message) is not None


def _outside_of(name: str, longest: list[str], message: str) -> bool:
    """True if the name is also outside of every longer blamed name."""
    for other in longest:
        if other != name and name in other:
            message = message.replace(other, "")
    return _stands_alone(name, message)
