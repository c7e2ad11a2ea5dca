"""Key sets of issuers (RFC 7517). Each key is verified as Envoy verifies it, so Envoy gets only keys that it accepts.

Envoy rejects the configuration of all issuers together if one of their sets has no key that it accepts. It skips single
keys without a message. This module detects both: a set without a key closes only its own issuer, and the operator
learns which key is left out, and why.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
"""The signatures that Envoy verifies, by the type of the key (RFC 7518 section 3.1, RFC 8037 section 3.1)."""
EXPONENTS = (3, 65537)
"""The public exponents that Envoy accepts."""
SMALLEST_RSA, LARGEST_RSA = 512, 16384
"""Bits of a modulus that Envoy accepts."""
_CURVES: Mapping[str, tuple[str, ec.EllipticCurve]] = {
    "P-256": ("ES256", ec.SECP256R1()),
    "P-384": ("ES384", ec.SECP384R1()),
    "P-521": ("ES512", ec.SECP521R1()),
}
_BASE64URL = re.compile(r"([A-Za-z0-9_-]*)([=.]{0,2})")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n.*\n-----END CERTIFICATE-----\n", re.DOTALL)
Jwk = Mapping[str, str]
NOBODYS_KEY: Jwk = {
    "kty": "EC",
    "crv": "P-521",
    "alg": "ES512",
    "kid": "xds/none",
    "x": "AACqZYu7nMR5uG-fa0nF0XAbip1W02NHEae9OgT9oYlovoi6QvmcL6fM53T6HRx-PCAjNz81PqatMrJjjY3b42xb",
    "y": "APa78miS1l3ec_00up7aTjiuYDRMVk33A0rzCGpW0EawuR1-d-VqdR0glj5kN7SR6BC9PlDxDImmtLOFaJTCZ6dv",
}
"""The key for an issuer without keys, because Envoy needs a key of every issuer. It verifies no token.

Its `x` is the SHA-512 of ``nobody's key 0``, so the private half is unknown.
"""


@dataclass(frozen=True, slots=True)
class KeyFault:
    """A key that is left out, by its `kid` or its position, and the reason."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of a set that Envoy accepts, and the others. `fault` is the reason if there is no key, else empty."""

    keys: tuple[Jwk, ...]
    faults: tuple[KeyFault, ...] = ()
    fault: str = ""

    def document(self) -> bytes:
        """The set as Envoy gets it. If no key can be used, it is a set with a key that verifies no token."""
        return json.dumps({"keys": [dict(key) for key in self.keys or (NOBODYS_KEY,)]}).encode()


class _LeftOutError(ValueError):
    """A key is left out; the message is the reason."""


@lru_cache(maxsize=256)
def key_set(content: bytes) -> KeySet:
    """Verify a key set: ``{"keys": […]}``, or a mapping from `kid` to PEM certificate, which Envoy accepts too."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        if b"-----BEGIN " in content:
            return KeySet((), fault="it is PEM and no JSON Web Key Set")
        return KeySet((), fault="it is not JSON" if content.strip() else "it is empty")
    if not isinstance(document, dict):
        return KeySet((), fault="it has no list 'keys'")
    if "keys" not in document and _certificates(document):
        found = [(kid, {"kid": kid, "x509": pem}) for kid, pem in document.items()]
    elif isinstance(document.get("keys"), list):
        found = [(_name(key, number), key) for number, key in enumerate(document["keys"])]
    else:
        return KeySet((), fault="it has no list 'keys'")
    return _judged(found)


def _judged(found: list[tuple[str, Any]]) -> KeySet:
    keys, faults = [], []
    for name, key in found:
        try:
            keys.append(_certified(key) if isinstance(key, dict) and "x509" in key else _jwk(key))
        except _LeftOutError as error:
            faults.append(KeyFault(name, str(error)))
    if keys:
        return KeySet(tuple(keys), tuple(faults))
    return KeySet((), tuple(faults), "none of its keys can be used" if faults else "it has no keys")


def _name(key: Any, number: int) -> str:
    kid = key.get("kid") if isinstance(key, dict) else None
    return kid if isinstance(kid, str) and kid else f"number {number + 1}"


def _jwk(key: Any) -> Jwk:
    """The members of a key that Envoy reads. Raises _LeftOutError."""
    if not isinstance(key, dict):
        raise _LeftOutError("it is no JSON object")
    kind = key.get("kty")
    if kind is None:
        raise _LeftOutError("it has no 'kty'")
    if kind == "oct":
        raise _LeftOutError("its 'kty' is 'oct': a secret that both sides share is no public key")
    if not isinstance(kind, str) or kind not in ALGORITHMS:
        raise _LeftOutError(f"its 'kty' is none of {', '.join(ALGORITHMS)}")
    _purpose(key)
    named = {name: key[name] for name in ("kid", "alg") if isinstance(key.get(name), str)}
    if not all(_is_text(one) for one in named.values()):
        raise _LeftOutError("its 'kid' or 'alg' is no Unicode text")
    if named.get("alg", "") and named["alg"] not in ALGORITHMS[kind]:
        raise _LeftOutError(f"its 'alg' is none of {', '.join(ALGORITHMS[kind])}")
    members = {"RSA": _rsa, "EC": _ec, "OKP": _okp}[kind](key)
    return {"kty": kind, **named, **members}


def _purpose(key: Mapping[str, Any]) -> None:
    """RFC 7517 sections 4.2 and 4.3. A private key that was put there by mistake has the operation `sign`."""
    if key.get("use") not in (None, "sig"):
        raise _LeftOutError("its 'use' is not 'sig', so its issuer signs nothing with it")
    operations = key.get("key_ops")
    if isinstance(operations, list) and "verify" not in operations and "sign" not in operations:
        raise _LeftOutError("its 'key_ops' do not have 'verify', so its issuer signs nothing with it")


def _is_text(text: str) -> bool:
    """True if a text of JSON is Unicode. Half of a surrogate pair is not, and Envoy rejects the whole set for it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _rsa(key: Mapping[str, Any]) -> Jwk:
    modulus, exponent = _number(key, "n"), _number(key, "e")
    _check_rsa(modulus, exponent)
    return {"n": _encoded(modulus), "e": _encoded(exponent)}


def _check_rsa(modulus: int, exponent: int) -> None:
    if exponent not in EXPONENTS:
        raise _LeftOutError("its 'e' is neither 65537 (AQAB) nor 3")
    if not SMALLEST_RSA <= modulus.bit_length() <= LARGEST_RSA:
        bits = f"{modulus.bit_length()} bits"
        raise _LeftOutError(f"its 'n' has {bits}, and Envoy takes {SMALLEST_RSA} to {LARGEST_RSA}")
    if not modulus % 2:
        raise _LeftOutError("its 'n' is even, so it is the modulus of no key")


def _ec(key: Mapping[str, Any]) -> Jwk:
    algorithm = key.get("alg") if isinstance(key.get("alg"), str) else ""
    name = key.get("crv", "")
    if name == "":  # Envoy infers it from the algorithm
        name = next((one for one, (alg, _) in _CURVES.items() if alg == algorithm), "P-256")
    if not isinstance(name, str) or name not in _CURVES:
        raise _LeftOutError(f"its 'crv' is none of {', '.join(_CURVES)}")
    expected, curve = _CURVES[name]
    if algorithm and algorithm != expected:
        raise _LeftOutError(f"its 'alg' does not go with its 'crv' {name}, which is for {expected}")
    x, y = _number(key, "x"), _number(key, "y")
    if not _on_curve(ec.EllipticCurvePublicNumbers(x, y, curve)):
        raise _LeftOutError(f"its 'x' and 'y' are no point of the curve {name}")
    return {"crv": name, "x": _encoded(x), "y": _encoded(y)}


def _on_curve(point: ec.EllipticCurvePublicNumbers) -> bool:
    """True if the point is on its curve. The library reduces coordinates that are too large, and Envoy does not."""
    try:
        return point.public_key().public_numbers() == point
    except ValueError:
        return False


def _okp(key: Mapping[str, Any]) -> Jwk:
    if key.get("crv") != "Ed25519":
        raise _LeftOutError("its 'crv' is not Ed25519")
    point = _bytes(key, "x")
    if len(point) != 32:
        raise _LeftOutError(f"its 'x' has {len(point)} bytes and not 32")
    return {"crv": "Ed25519", "x": _base64(point)}


def _certificates(document: Mapping[str, Any]) -> bool:
    return bool(document) and all(
        kid and isinstance(pem, str) and _CERTIFICATE.fullmatch(pem) for kid, pem in document.items()
    )


def _certified(key: Mapping[str, str]) -> Jwk:
    """The key of a certificate. Envoy accepts only certificates with an RSA key. Raises _LeftOutError."""
    try:
        public = x509.load_pem_x509_certificate(key["x509"].encode()).public_key()
    except ValueError:
        raise _LeftOutError("the certificate cannot be read") from None
    if not isinstance(public, rsa.RSAPublicKey):
        raise _LeftOutError("the certificate's key is not RSA")
    numbers = public.public_numbers()
    _check_rsa(numbers.n, numbers.e)
    return {"kty": "RSA", "kid": key["kid"], "n": _encoded(numbers.n), "e": _encoded(numbers.e)}


def _bytes(key: Mapping[str, Any], member: str) -> bytes:
    """The bytes of a member (RFC 7515 section 2). Envoy also accepts padding and white space."""
    value = key.get(member)
    if value is None:
        raise _LeftOutError(f"it has no '{member}'")
    if not isinstance(value, str):
        raise _LeftOutError(f"its '{member}' is no text")
    written = _BASE64URL.fullmatch(re.sub(r"[ \t\n\v\f\r]", "", value))
    if written is None or len(written[1]) % 4 == 1 or (written[2] and len(written[0]) % 4):
        raise _LeftOutError(f"its '{member}' is not base64url")
    return base64.urlsafe_b64decode(written[1] + "=" * (-len(written[1]) % 4))


def _number(key: Mapping[str, Any], member: str) -> int:
    return int.from_bytes(_bytes(key, member))


def _encoded(number: int) -> str:
    return _base64(number.to_bytes(max(1, (number.bit_length() + 7) // 8)))


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
