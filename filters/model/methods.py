"""The ways to authenticate of a route, and the reasons of the identity script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from filters.model.identity import NAMESPACE, Consumer
from filters.reasons import Reason

METHODS = ("oidc", "mtls", "jwt", "api_key", "basic_auth")
"""In the order in which the script tries them. The first that succeeds identifies the consumer."""


class Method(Protocol):
    """The settings of one way to authenticate."""

    @property
    def optional(self) -> bool:
        """True if a request without such a credential passes."""

    def rule(self) -> Mapping[str, object]:
        """The part of the route's rule for the identity script."""

    def challenge(self) -> str:
        """The challenge for WWW-Authenticate (RFC 9110 section 11.6.1)."""


def methods(effective: Mapping[str, Any]) -> dict[str, Method]:
    """The ways to authenticate among a route's settings."""
    return {key: effective[key] for key in METHODS if key in effective}


def identified(effective: Mapping[str, Any]) -> bool | None:
    """True if every request that passes authentication has a consumer, false if none has one, None if some have.

    An API key always belongs to a consumer. Other credentials may not.
    """
    found = methods(effective)
    if not found:
        return False
    key = found.get("api_key")
    required = len(found) == 1 or effective.get("authentication") == "all"
    return True if key is not None and required and not key.optional else None


def failure(name: str, title: str, status: int = 401) -> Reason:
    """A reason of the identity script."""
    return Reason(name=name, title=title, status=status, when=failed(name))


def failed(name: str) -> str:
    """A CEL expression that is true if the script rejected the request for this reason."""
    return f"metadata.filter_metadata['{NAMESPACE}']['failure'] == '{name}'"


MOST_KEYS = 10_000
"""With more API keys than this, a policy server looks them up, so that the script and its tables stay small."""


def keys_in_policy_server(consumers: Mapping[str, Consumer], subscribers: bool) -> bool:
    """True if a policy server has the API keys: with `subscribers` of a marketplace, or if there are very many keys.

    The last count is cached, because every route needs it.
    """
    if subscribers:
        return True
    if not _counted or _counted[0][0] is not consumers:
        _counted[:] = [
            (consumers, sum(len(consumer.api_keys) for consumer in consumers.values()) > MOST_KEYS)
        ]
    return _counted[0][1]


_counted: list[tuple[Mapping[str, Consumer], bool]] = []
