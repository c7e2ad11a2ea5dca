"""Whether a response may be stored, by what the answers say of which it is made (RFC 9111)."""

from __future__ import annotations

from collections.abc import Mapping

NOT_STORED: Mapping[str, str] = {"cache-control": "no-store", "vary": "accept"}
"""The headers of a response that nobody may store, because it has errors or comes in parts."""
_FORBIDDING = frozenset(("no-store", "no-cache", "private"))


class Caching:
    """Collects what answers say. A response depends on Accept itself, because that chooses its media type."""

    def __init__(self) -> None:
        self._forbidden = False
        self._vary = {"accept": None}

    def add(self, headers: Mapping[str, str]) -> None:
        """Add what the headers of one answer say. Their names are in lower case."""
        if _FORBIDDING.intersection(one.partition("=")[0] for one in _listed(headers, "cache-control")):
            self._forbidden = True
        self._vary.update(dict.fromkeys(_listed(headers, "vary")))

    def headers(self, *, failed: bool) -> dict[str, str]:
        """The headers of the response. `failed` is true if it has errors."""
        found = {"vary": ", ".join(self._vary)}
        if self._forbidden:
            found["cache-control"] = "private, no-store"
        elif failed:
            found["cache-control"] = NOT_STORED["cache-control"]
        return found


def _listed(headers: Mapping[str, str], name: str) -> list[str]:
    return [word for one in headers.get(name, "").lower().split(",") if (word := one.strip())]
