"""What is wrong with a message, as its sender gets it (RFC 9457, with the member `errors` of its section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MOST_FAULTS = 20
"""Faults that are reported of one message."""
LONGEST_DETAIL = 300
"""Characters of one detail. Names of the message's own members are part of it."""
Place = Literal["body", "path", "query", "querystring", "header", "cookie"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: in the body at a JSON Pointer (RFC 6901), or in a parameter with this name."""

    detail: str
    place: Place = "body"
    name: str = ""
    pointer: str = ""

    def shown(self) -> dict[str, Any]:
        """The fault as a member of `errors`."""
        detail = self.detail if len(self.detail) <= LONGEST_DETAIL else self.detail[:LONGEST_DETAIL] + "…"
        if self.place == "body":
            return {"pointer": f"#{self.pointer}", "detail": detail}
        found = {"parameter": self.name, "in": self.place, "detail": detail}
        return found | ({"pointer": f"#{self.pointer}"} if self.pointer else {})


def pointer(path: Iterable[str | int]) -> str:
    """A JSON Pointer."""
    return "".join("/" + str(one).replace("~", "~0").replace("/", "~1") for one in path)


def shown(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    """The faults that a sender gets."""
    return [one.shown() for one in faults[:MOST_FAULTS]]
