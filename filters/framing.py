"""Headers that frame a message or belong to one connection: only Envoy may set, add or remove them.

If a policy sets a length or another transfer coding, the two ends of a connection disagree on the end of a message.
Then the rest of a body is read as the next message (RFC 9112 section 11.2).
"""

from __future__ import annotations

from filters.language import Mistake, Path

HEADERS = frozenset(
    [
        "connection",
        "content-length",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
"""RFC 9110 sections 6.6.2, 7.2, 7.6.1, 7.8, 8.6 and 10.1.4, RFC 9112 section 6.1, RFC 7540 section 3.2.1."""

OF_ENVOY = ("x-envoy-", "x-gateway-")
"""How headers begin that say to Envoy, or to our own services, how to handle a request."""

BODYLESS = frozenset([204, 205, 304])
"""Statuses of responses without a body (RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5)."""


def check(name: str, path: Path) -> Mistake | None:
    """A mistake for a header that a policy must not change, or None."""
    lower = name.lower()
    if lower not in HEADERS:
        return None
    if lower == "host":
        return Mistake("'host' is no header to change", "use rewrite: {host: …}", path=path, value=name)
    message = f"'{lower}' frames the message or belongs to the connection, and Envoy sets it"
    return Mistake(message, "remove it", path=path, value=name)
