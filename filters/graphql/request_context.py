"""Who sends a request, as far as a schema can use it: in templates of calls and in `@auth`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from filters.model import claims


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """What the gateway knows of a request and its caller. The names of headers are in lower case.

    Texts of `headers` have one character for each byte (Latin-1).
    `for_calls` are headers that every call hands on, and `for_safe_calls` those of calls that may be repeated.
    """

    consumer: str | None = None
    plan: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    for_calls: Mapping[str, str] = field(default_factory=dict)
    for_safe_calls: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""

    def header(self, name: str) -> str | None:
        """The text of a header, None without it."""
        found = self.headers.get(name)
        return (
            found if found is None or found.isascii() else found.encode("latin-1").decode("utf-8", "replace")
        )

    def claim(self, name: str) -> Any:
        """The value of a claim, whose name is written as in `authorize`; None if the token does not have it."""
        for path in claims.paths(name):
            value: Any = self.claims
            for part in path:
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None:
                return value
        return None

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes of the token: the words of `scope` (RFC 6749 section 3.3), and the elements of `scp`."""
        found: set[str] = set()
        for value in (self.claims.get("scope"), self.claims.get("scp")):
            if isinstance(value, str):
                found.update(value.split(" "))
            elif isinstance(value, list | tuple):
                found.update(one for one in value if isinstance(one, str))
        return frozenset(found)
