"""Tokens for tests, signed with a key that is made for the run (RFC 7515, RFC 7519)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from filters.model.identity import Provider

LIFETIME = 3600
"""Seconds for which a token is valid."""
_KEY_ID = "xds-test"
_SIZE = 32
"""Bytes of a coordinate of P-256, and of each half of a signature."""


class Signer:
    """Signs tokens of every provider with one key, by ES256 (RFC 7518 section 3.4)."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwks(self) -> bytes:
        """The key set with the public key (RFC 7517)."""
        numbers = self._key.public_key().public_numbers()
        x, y = (_encoded(one.to_bytes(_SIZE, "big")) for one in (numbers.x, numbers.y))
        key = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": _KEY_ID, "x": x, "y": y}
        return json.dumps({"keys": [key]}).encode()

    def token(self, provider: Provider, claims: Mapping[str, Any], now: int) -> str:
        """Return a token of a provider. `claims` replace those that it has; null removes one. `now` is Unix time."""
        usual: dict[str, Any] = {"sub": "test", "iat": now, "exp": now + LIFETIME}
        if provider.issuer is not None:
            usual["iss"] = provider.issuer
        if provider.audiences:
            usual["aud"] = provider.audiences[0]
        content = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        parts = ({"alg": "ES256", "typ": "JWT", "kid": _KEY_ID}, content)
        signed = ".".join(_encoded(json.dumps(one).encode()) for one in parts)
        halves = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encoded(b''.join(one.to_bytes(_SIZE, 'big') for one in halves))}"


def carried(
    provider: Provider, token: str, url: str, headers: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """Return the URL and the headers of a request with a token, in the first place where its provider looks for it."""
    if provider.token_headers:
        name = provider.token_headers[0].lower()
        return url, {**headers, name: f"Bearer {token}" if name == "authorization" else token}
    if provider.from_query:
        return f"{url}{'&' if '?' in url else '?'}{provider.from_query[0]}={token}", dict(headers)
    cookies = [*([headers["cookie"]] if "cookie" in headers else []), f"{provider.from_cookies[0]}={token}"]
    return url, {**headers, "cookie": "; ".join(cookies)}


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
