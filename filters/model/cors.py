"""Web pages of other origins that may call a route, and which origins these are (the Fetch standard)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from filters.language import Mistake, option
from filters.language.tokens import TOKEN
from filters.model import origins

_LABELS = r"[a-z0-9_-]+(\.[a-z0-9_-]+)*"
"""The text for which the ``*`` of an origin stands."""
_FORBIDDEN = ("CONNECT", "TRACE", "TRACK")
"""Methods that browsers do not let a page use (Fetch standard, section 2.2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsSettings:
    """Web pages of other origins that may call the route."""

    allow_origins: tuple[str, ...] = option(
        "Origins as browsers send them, such as `https://shop.example.com` or `capacitor://localhost`; `*` for all, "
        "`https://*.example.com` for subdomains.",
        minimum_items=1,
    )
    allow_methods: tuple[str, ...] = option(
        "Methods that pages may use.",
        default=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
        narrows=True,
    )
    allow_headers: tuple[str, ...] = option(
        "Request headers that pages may set. With `grpc_web`, the headers of its clients are added.",
        default=("authorization", "content-type", "x-api-key"),
    )
    expose_headers: tuple[str, ...] = option(
        "Response headers that pages may read. With `grpc_web`, the headers of its responses are added.",
        default=(),
    )
    allow_credentials: bool = option("True if pages may send cookies and HTTP authentication.", default=False)
    any_page_acts_for_the_user: bool = option(
        "Dangerous: with `allow_credentials`, allow `*` and `null` too, so that every web page can act for a user who is "
        "signed in here.",
        default=False,
    )
    max_age: timedelta = option(
        "The time for which a browser may cache a preflight response.", default=timedelta(minutes=10)
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each invalid origin, method or header."""
        open_to_all = not {"*", "null"}.isdisjoint(self.allow_origins)
        if self.allow_credentials and open_to_all and not self.any_page_acts_for_the_user:
            # Every page in a sandboxed frame has the origin `null`.
            yield Mistake(
                "credentials for every origin would let any web page act for the user", "list the origins"
            )
        for key in ("allow_methods", "allow_headers", "expose_headers"):
            for number, name in enumerate(getattr(self, key)):
                if not re.fullmatch(TOKEN, name):
                    yield Mistake("not a name", "use letters, digits and -", path=(key, number), value=name)
        for number, method in enumerate(self.allow_methods):
            if method != method.upper():
                message = "browsers send methods in upper case"
                yield Mistake(
                    message, f"write {method.upper()}", path=("allow_methods", number), value=method
                )
            elif method in _FORBIDDEN:
                yield Mistake(
                    "browsers do not let a page use this method",
                    "remove it",
                    path=("allow_methods", number),
                    value=method,
                )
        for number, origin in enumerate(self.allow_origins):
            if origin not in ("*", "null") and (fault := origins.fault(origin)) is not None:
                yield Mistake(fault[0], fault[1], path=("allow_origins", number), value=origin)


def allows(settings: CorsSettings, origin: str) -> bool:
    """True if pages of an origin, in lower case, may read responses of a route with these settings."""
    if not {"*", origin}.isdisjoint(settings.allow_origins):
        return True
    parts = (one.partition("*") for one in settings.allow_origins if "*." in one)
    return any(
        origin.startswith(before)
        and origin.endswith(after)
        and re.fullmatch(_LABELS, origin[len(before) : -len(after)])
        for before, _, after in parts
    )
