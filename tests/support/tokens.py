"""Keys of an issuer made for the tests, and tokens signed with them."""

from __future__ import annotations

import base64
import json
import time
import warnings
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

ISSUER = "https://idp.test"
RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}, private=True)
EC = ECKey.generate_key("P-256", {"kid": "ec", "use": "sig"}, private=True)
ED = OKPKey.generate_key("Ed25519", {"kid": "ed", "use": "sig"}, private=True)
STRANGER = RSAKey.generate_key(2048, {"kid": "rsa"}, private=True)
KEYS = {"RS256": RSA, "PS256": RSA, "ES256": EC, "EdDSA": ED}


def jwks(*keys: Any) -> str:
    """The public half as an issuer publishes it; all keys unless some are given."""
    return json.dumps(KeySet(list(keys or (RSA, EC, ED))).as_dict(private=False))


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def claims(**more: Any) -> dict[str, Any]:
    """Claims of a token that is good for a day, as modules make some long before their tests; None takes one away."""
    since, until = now() - 10, now() + 86_400
    standard = {"iss": ISSUER, "aud": "shop", "sub": "ann", "iat": since, "nbf": since, "exp": until}
    return {name: value for name, value in {**standard, **more}.items() if value is not None}


def token(algorithm: str = "RS256", *, key: Any = None, kid: str | None = None, **more: Any) -> str:
    """A signed token. `more` overrides claims."""
    key = key if key is not None else KEYS[algorithm]
    header = {"alg": algorithm, "kid": kid or key.kid}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RFC 9864 renames EdDSA, issuers and Envoy still say EdDSA
        return jwt.encode(header, claims(**more), key, algorithms=[algorithm])


def with_header(**more: Any) -> str:
    """A good token whose header has more members, as libraries would not write it."""
    header = {"alg": "RS256", "kid": RSA.kid, **more}
    signed = f"{_part(header)}.{_part(claims())}"
    signature = RSA.private_key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{_encoded(signature)}"


def unsigned(**more: Any) -> str:
    """A token with the algorithm `none`."""
    return f"{_part({'alg': 'none', 'typ': 'JWT'})}.{_part(claims(**more))}."


def tampered(**more: Any) -> str:
    """A good token whose claims were changed afterwards."""
    header, _, signature = token().split(".")
    return f"{header}.{_part(claims(**more))}.{signature}"


def forged_with_public_key(**more: Any) -> str:
    """A token that takes the issuer's public key for a shared secret (algorithm confusion)."""
    signed = f"{_part({'alg': 'HS256', 'kid': 'rsa'})}.{_part(claims(**more))}"
    mac = hmac.HMAC(RSA.as_pem(private=False), hashes.SHA256())
    mac.update(signed.encode())
    return f"{signed}.{_encoded(mac.finalize())}"


def _part(value: dict[str, Any]) -> str:
    return _encoded(json.dumps(value).encode())


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
