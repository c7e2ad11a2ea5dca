"""The ways to authenticate among the settings of a route, and the reasons that the identity script gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from filters.model.identity import NAMESPACE, Consumer
from filters.reasons import Reason

METHODS = ("oidc", "mtls", "jwt", "api_key", "basic_auth")
"""In the order in which they are asked. The first that succeeds names the consumer."""


class Method(Protocol):
    """The settings of one way to authenticate."""

    @property
    def optional(self) -> bool:
        """Whether a request without such a credential passes."""

    def rule(self) -> Mapping[str, object]:
        """What the script needs to know, as JSON."""

    def challenge(self) -> str:
        """What WWW-Authenticate says (RFC 9110 section 11.6.1)."""


def methods(effective: Mapping[str, Any]) -> dict[str, Method]:
    """The ways to authenticate among a route's settings."""
    return {key: effective[key] for key in METHODS if key in effective}


def failure(name: str, title: str, status: int = 401) -> Reason:
    """A reason that the script gives."""
    return Reason(name=name, title=title, status=status, when=failed(name))


def failed(name: str) -> str:
    """The script refused a request for this reason."""
    return f"metadata.filter_metadata['{NAMESPACE}']['failure'] == '{name}'"


MOST_KEYS = 10_000
"""With more API keys than this, a policy server looks them up: a script of a table for each would grow without end."""


def keys_elsewhere(consumers: Mapping[str, Consumer]) -> bool:
    """Whether a policy server has the API keys. The last answer is kept: every route asks, and counting takes time."""
    if not _counted or _counted[0][0] is not consumers:
        _counted[:] = [(consumers, sum(len(one.api_keys) for one in consumers.values()) > MOST_KEYS)]
    return _counted[0][1]


_counted: list[tuple[Mapping[str, Consumer], bool]] = []
