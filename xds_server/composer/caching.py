"""Whether a response may be stored, by what the answers say of which it is made (RFC 9111)."""

from __future__ import annotations

from collections.abc import Mapping

_FORBIDDING = frozenset(("no-store", "no-cache", "private"))


class Caching:
    """Collects what answers say. `vary` are the request headers on which a response depends by itself."""

    def __init__(self, *vary: str) -> None:
        self._forbidden = False
        self._vary = dict.fromkeys(vary)

    def add(self, headers: Mapping[str, str]) -> None:
        """Add what the headers of one answer say. Their names are in lower case."""
        if _FORBIDDING.intersection(one.partition("=")[0] for one in _listed(headers, "cache-control")):
            self._forbidden = True
        self._vary.update(dict.fromkeys(_listed(headers, "vary")))

    def vary(self, *names: str) -> None:
        """Note that the response depends on these request headers too. Their names are in lower case."""
        self._vary.update(dict.fromkeys(names))

    def forbid(self) -> None:
        """Note that the response is for this request alone."""
        self._forbidden = True

    def headers(self, *, failed: bool) -> dict[str, str]:
        """The headers of the response. `failed` is true if a part of it is missing."""
        found = {"vary": ", ".join(self._vary)} if self._vary else {}
        if self._forbidden:
            found["cache-control"] = "private, no-store"
        elif failed:
            found["cache-control"] = "no-store"
        return found


def _listed(headers: Mapping[str, str], name: str) -> list[str]:
    return [word for one in headers.get(name, "").lower().split(",") if (word := one.strip())]
