"""Where a caller's credential goes in a request, by the policies of the API's routes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

KEY = "YOUR_API_KEY"
TOKEN = "YOUR_TOKEN"  # noqa: S105 - a placeholder


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A header or a cookie with a credential. `prefix` stands before it; `placeholder` stands for it in samples."""

    kind: Literal["api_key", "token", "password"]
    header: str = ""
    cookie: str = ""
    prefix: str = ""
    placeholder: str = KEY

    @property
    def value(self) -> str:
        """The value of the header with the placeholder."""
        return f"{self.prefix}{self.placeholder}"


def credential_of(routes: Iterable[Mapping[str, Any]]) -> Credential | None:
    """Return the credential of the first of some routes that needs one, an API key rather than others.

    None if no route needs one, or if a key is accepted in the query alone: keys are never shown in a URL.
    """
    some = list(routes)
    for settings in some:
        if "api_key" in settings:
            rule = settings["api_key"].rule()
            if rule["headers"]:
                return Credential(kind="api_key", header=rule["headers"][0])
            if rule["cookies"]:
                return Credential(kind="api_key", cookie=rule["cookies"][0])
    if any("jwt" in settings for settings in some):
        return Credential(kind="token", header="authorization", prefix="Bearer ", placeholder=TOKEN)
    if any("basic_auth" in settings for settings in some):
        placeholder = "BASE64_OF_NAME_AND_PASSWORD"
        return Credential(kind="password", header="authorization", prefix="Basic ", placeholder=placeholder)
    return None
