"""An authority that signs certificates (RFC 5280) with ECDSA on P-256. It does no IO."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SKEW = timedelta(hours=1)
"""How long ago a certificate begins, because the clock of whoever verifies it may be behind."""
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True)
class KeyPair:
    """A certificate (perhaps with its chain) and its private key, both in PEM."""

    certificate: bytes
    private_key: bytes

    @cached_property
    def _leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificates(self.certificate)[0]

    @property
    def begins(self) -> datetime:
        """When the certificate was issued, without the allowance for clocks that are behind."""
        return self._leaf.not_valid_before_utc + SKEW

    @property
    def ends(self) -> datetime:
        """When the certificate expires."""
        return self._leaf.not_valid_after_utc

    def due(self, now: datetime, share: float) -> bool:
        """True if this share of its life (0 to 1) is over."""
        return now >= self.begins + (self.ends - self.begins) * share

    def check(self) -> None:
        """Raise ValueError if it is no authority, or its parts are not a pair."""
        try:
            key = serialization.load_pem_private_key(self.private_key, None)
            leaf = self._leaf
        except (ValueError, TypeError):  # the latter if the key has a password
            raise ValueError("the certificate or the private key is not PEM, or has a password") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the private key is not an ECDSA key")
        if not isinstance(key.curve, _CURVES):
            raise ValueError(f"Envoy does not support the curve {key.curve.name}; use P-256, P-384 or P-521")
        if key.public_key() != leaf.public_key():
            raise ValueError("the private key is not that of the certificate")
        try:
            constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            constraints = x509.BasicConstraints(False, None)
        if not constraints.ca:
            raise ValueError("the certificate is not that of an authority (basicConstraints)")


def certificates_of(pem: bytes) -> list[x509.Certificate]:
    """Return certificates. Raises ValueError if there are none."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError("the certificates to trust are not PEM") from None


def new_authority(name: str, now: datetime, lifetime: timedelta) -> KeyPair:
    """Return a new authority, which signs its own certificate. `name` is its common name."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, key.public_key(), now, lifetime).issuer_name(_name(name))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return _pair(builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: KeyPair, names: Iterable[str], now: datetime, lifetime: timedelta, *, client: bool = False
) -> KeyPair:
    """Return a certificate with a new key, for a server, and with `client` for a client too.

    Each of `names` is a host name, an IP address, or a URI such as a SPIFFE ID. It does not outlive the authority. It has
    the chain of an authority that another one signed.
    """
    signer = serialization.load_pem_private_key(authority.private_key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey), "checked when the authority was read"
    issuer = x509.load_pem_x509_certificates(authority.certificate)[0]
    key = ec.generate_private_key(ec.SECP256R1())
    given = list(names)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else [])]
    builder = _builder("", key.public_key(), now, min(lifetime, authority.ends - now)).issuer_name(
        issuer.subject
    )
    # a certificate without a subject has critical alternative names (RFC 5280 section 4.2.1.6)
    builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_general, given))), critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    found = _pair(builder.sign(signer, hashes.SHA256()), key)
    if issuer.issuer == issuer.subject:
        return found
    return KeyPair(
        found.certificate + authority.certificate, found.private_key
    )  # whoever verifies knows its root only


def _builder(
    name: str, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])


def _general(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), private)
