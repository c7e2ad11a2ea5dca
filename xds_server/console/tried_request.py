"""Sends the request that a person tries to a listener of the gateway on this machine."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

TIMEOUT = 20.0
"""Seconds for the whole request."""
SHOWN = 64 << 10
"""Bytes of the response's body that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A request. Names of headers are in lower case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response. `more` is true if its body is longer than what is shown."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: str
    more: bool


def send(tried: Tried, port: int, *, tls: bool) -> Answer:
    """Send the request to a port of this machine, with the host of its URL. Raises OSError, ValueError."""
    parts = urlsplit(tried.url)
    connection = _connection(port, tls=tls)
    target = parts.path or "/"
    headers = {"host": parts.netloc.rpartition("@")[2], **tried.headers}
    try:
        connection.request(
            tried.method, f"{target}?{parts.query}" if parts.query else target, tried.body or None, headers
        )
        response = connection.getresponse()
        body = response.read(SHOWN + 1)
    except http.client.HTTPException as error:
        raise ValueError(f"the request cannot be sent: {error or type(error).__name__}") from None
    finally:
        connection.close()
    return Answer(
        status=response.status,
        reason=response.reason,
        headers=tuple(response.getheaders()),
        body=body[:SHOWN].decode("utf-8", "replace"),
        more=len(body) > SHOWN,
    )


def _connection(port: int, *, tls: bool) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    # the certificate is for the gateway's own name, and the connection does not leave this machine
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT, context=context)
