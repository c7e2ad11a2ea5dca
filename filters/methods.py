"""The ways to authenticate among the settings of a route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

METHODS = ("oidc", "mtls", "jwt", "api_key", "basic_auth")
"""In the order in which they are asked. The first that succeeds names the consumer."""


class Method(Protocol):
    """The settings of one way to authenticate."""

    @property
    def optional(self) -> bool:
        """Whether a request without such a credential passes."""

    def rule(self) -> Mapping[str, Any]:
        """What the script needs to know, as JSON."""

    def challenge(self) -> str:
        """What WWW-Authenticate says (RFC 9110 section 11.6.1)."""


def methods(beside: Mapping[str, Any]) -> dict[str, Method]:
    """The ways to authenticate among a route's settings."""
    return {key: beside[key] for key in METHODS if key in beside}
