"""Print a token of the example's issuer: ``python token.py scope=users.read azp=acme-app``."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY = Ed25519PrivateKey.from_private_bytes(
    hashlib.sha256(b"the issuer of the example, which nobody should trust").digest()
)


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def token(**claims: object) -> str:
    """Return a token that is valid for an hour."""
    standard = {"iss": "https://issuer.example", "aud": "shop", "sub": "ann", "exp": int(time.time()) + 3600}
    parts = ({"alg": "EdDSA", "kid": "example"}, {**standard, **claims})
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{_encoded(KEY.sign(signed.encode()))}"


if __name__ == "__main__":
    sys.stdout.write(token(**dict(one.split("=", 1) for one in sys.argv[1:])))
