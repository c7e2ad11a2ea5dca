"""Key sets as issuers publish them by mistake, and what is found in each."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.support import tokens

RSA: Mapping[str, Any] = tokens.RSA.as_dict(private=False)
EC: Mapping[str, Any] = tokens.EC.as_dict(private=False)
ED: Mapping[str, Any] = tokens.ED.as_dict(private=False)


def key_set(*keys: Any) -> bytes:
    """A set of these keys."""
    return json.dumps({"keys": keys}).encode()


def without(key: Mapping[str, Any], *members: str) -> dict[str, Any]:
    """A key without some of its members."""
    return {name: value for name, value in key.items() if name not in members}


def number(value: int) -> str:
    """A number as JWK writes it (RFC 7518 section 2)."""
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8)).rstrip(b"=").decode()


def modulus(bits: int) -> str:
    """An odd number of so many bits."""
    return number(1 << (bits - 1) | 1)


def certificate() -> str:
    """A certificate of `tokens.RSA`, as some issuers publish it."""
    key, name, now = tokens.RSA.private_key, x509.Name([]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("idp.test")]), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


SINGLE: Mapping[str, tuple[Any, str]] = {
    "no n": (without(RSA, "n"), "no 'n'"),
    "no e": (without(RSA, "e"), "no 'e'"),
    "neither n nor e": (without(RSA, "n", "e"), "no 'n'"),
    "only a certificate chain": (without(RSA, "n", "e") | {"x5c": ["MIIB"]}, "no 'n'"),
    "n is a number": ({**RSA, "n": 5}, "'n' is no text"),
    "n is empty": ({**RSA, "n": ""}, "0 bits"),
    "the alphabet of base64": ({**RSA, "n": "+/" + RSA["n"][2:]}, "not base64url"),
    "padding that does not fit": ({**RSA, "n": RSA["n"] + "="}, "not base64url"),
    "a space that is none of ASCII": ({**RSA, "n": RSA["n"][:4] + "\xa0" + RSA["n"][4:]}, "not base64url"),
    "one letter too many": ({**RSA, "n": RSA["n"] + "AAA"}, "not base64url"),
    "an exponent of 5": ({**RSA, "e": "BQ"}, "neither 65537"),
    "511 bits": ({**RSA, "n": modulus(511)}, "511 bits"),
    "16385 bits": ({**RSA, "n": modulus(16385)}, "16385 bits"),
    "an even modulus": ({**RSA, "n": number(1 << 2047 | 2)}, "even"),
    "RSA with the algorithm of EC": ({**RSA, "alg": "ES256"}, "'alg'"),
    "RSA for encryption": ({**RSA, "alg": "RSA-OAEP"}, "'alg'"),
    "for encryption by its use": ({**RSA, "use": "enc"}, "'use'"),
    "for encryption by its operations": ({**RSA, "key_ops": ["encrypt"]}, "'key_ops'"),
    "a kid that is no Unicode": ({**RSA, "kid": "\ud800"}, "no Unicode"),
    "no kty": (without(RSA, "kty"), "no 'kty'"),
    "kty in lower case": ({**RSA, "kty": "rsa"}, "'kty'"),
    "kty is a list": ({**RSA, "kty": ["RSA"]}, "'kty'"),
    "a shared secret": ({"kty": "oct", "k": "c2VjcmV0"}, "oct"),
    "no y": (without(EC, "y"), "no 'y'"),
    "a point off the curve": ({**EC, "y": EC["x"]}, "no point"),
    "the point 0, 0": ({**EC, "x": "", "y": ""}, "no point"),
    "a coordinate beyond the field": (
        {**EC, "x": number(int.from_bytes(base64.urlsafe_b64decode(EC["x"] + "=")) + 2**256 - 2**224 + 2**192 + 2**96 - 1)},
        "no point",
    ),
    "secp256k1": ({**EC, "crv": "secp256k1"}, "'crv'"),
    "no such curve": ({**EC, "crv": None}, "'crv'"),
    "a curve and the algorithm of another": ({**EC, "alg": "ES384"}, "P-256"),
    "X25519": ({**ED, "crv": "X25519"}, "not Ed25519"),
    "31 bytes": ({**ED, "x": ED["x"][:-1]}, "31 bytes"),
    "another name of EdDSA": ({**ED, "alg": "Ed25519"}, "'alg'"),
    "no mapping": ("x", "no JSON object"),
}  # fmt: skip
"""Keys that are left out, and a word of the reason."""

WHOLE: Mapping[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty"),
    "not JSON": (b"<html>", "not JSON"),
    "not UTF-8": (b'{"keys": ["\xff"]}', "not JSON"),
    "very deep": (b"[" * 100_000, "not JSON"),
    "PEM": (tokens.RSA.as_pem(private=False), "PEM"),
    "a list": (b"[]", "no list 'keys'"),
    "a single key": (json.dumps(RSA).encode(), "no list 'keys'"),
    "keys is nothing": (b'{"keys": null}', "no list 'keys'"),
    "no key": (b'{"keys": []}', "no keys"),
}
"""Documents that are no key set, and a word of the reason."""

GOOD: Mapping[str, bytes] = {
    "plain": key_set(RSA),
    "with padding": key_set({**RSA, "n": RSA["n"] + "=="}),
    "with white space": key_set({**RSA, "n": RSA["n"][:8] + " \n" + RSA["n"][8:]}),
    "zeros before the exponent": key_set({**RSA, "e": "AAABAAE"}),
    "a byte order mark": b"\xef\xbb\xbf" + key_set(RSA),
    "UTF-16": key_set(RSA).decode().encode("utf-16"),
    "the same kid twice": key_set({**EC, "kid": "rsa"}, RSA),
    "no kid": key_set(without(RSA, "kid")),
    "a kid that is a number": key_set({**RSA, "kid": 5}),
    "an algorithm that is nothing": key_set({**RSA, "alg": None}),
    "what Envoy's JSON refuses elsewhere": key_set({**RSA, "x": "\ud800", "y": float("nan"), "z": 10**400}),
    "bad keys beside": key_set(*(key for key, _ in SINGLE.values()), RSA),
    "certificates": json.dumps({"rsa": certificate()}).encode(),
    "a private key": key_set(tokens.RSA.as_dict(private=True) | {"key_ops": ["sign"]}),
}
"""Sets with which a token of `tokens.RSA` passes."""
