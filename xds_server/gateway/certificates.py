"""Certificates, their private keys and authorities, read as Envoy (BoringSSL) reads them: PEM, in order, a pair.

A certificate that Envoy would reject is an error. If Envoy accepts it and clients may not, that is a warning: dates,
and a chain with a gap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from filters.language import DataSource, Mistake, Path, Problem
from filters.language.problems import short_repr
from xds_server.gateway.model.gateway import Sections

_BOM = b"\xef\xbb\xbf"
_CERTIFICATE, _KEY = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----"
_SMALLEST_RSA = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_AS_PEM = "write it as PEM: openssl x509 -inform der -in FILE"
_KEY_AS_PEM = "write it as PEM: openssl pkey -inform der -in FILE"
_UNREADABLE = "export it again as PEM"


def check(
    sections: Sections, contents: Mapping[DataSource, bytes], now: datetime | None
) -> Iterator[Problem]:
    """Yield the problems of every certificate, private key and authority of a gateway.

    Without `now` (UTC), dates are not checked.
    """
    for name, secret in sections.secrets.items():
        yield from _of_secret(("secrets", name), secret.certificate, secret.private_key, contents, now)
    for name, upstream in sections.upstreams.items():
        if upstream.tls is not None and upstream.tls.ca is not None:
            yield from _of_authorities(("upstreams", name, "tls", "ca"), upstream.tls.ca, contents, now)
    for name, listener in sections.listeners.items():
        if listener.tls is not None and listener.tls.client_certificate is not None:
            path: Path = ("listeners", name, "tls", "client_certificate", "ca")
            client = listener.tls.client_certificate
            for number, source in enumerate(client.authorities):
                at = (*path, number) if isinstance(client.ca, tuple) else path
                yield from _of_authorities(at, source, contents, now)


def check_pair(chain: bytes, private_key: bytes) -> None:
    """Raise Mistake if Envoy cannot use a certificate chain with a private key, both PEM."""
    _pair(_chain(chain), _private_key(private_key))


def is_for(chain: bytes, host: str) -> bool:
    """True if a certificate chain (PEM) is for a host, exact or `*.example.com` (RFC 9525). Raises Mistake."""
    names = _dns_names(_chain(chain)[0])
    wildcard = f"*.{host.partition('.')[2]}"
    return host in names or wildcard in names


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]


def check_authorities(content: bytes) -> None:
    """Raise Mistake if some authority cannot be read, or if there is none."""
    _certificates(content, "authority")


def _of_secret(
    path: Path,
    certificate: DataSource,
    private_key: DataSource,
    contents: Mapping[DataSource, bytes],
    now: datetime | None,
) -> Iterator[Problem]:
    at, at_key = (*path, "certificate"), (*path, "private_key")
    chain, key = contents.get(certificate), contents.get(private_key)
    certificates = made = None
    if chain is not None:
        try:
            certificates = _chain(chain)
        except Mistake as mistake:
            yield _problem(at, certificate, mistake)
    if key is not None:
        try:
            made = _private_key(key)
        except Mistake as mistake:
            yield _problem(at_key, private_key, mistake)
    if certificates is not None and made is not None:
        try:
            _pair(certificates, made)
        except Mistake as mistake:
            yield _problem(at, certificate, mistake)
            return
    if certificates is not None:
        yield from _warnings(at, certificate, [*_gaps(certificates), *_dates(certificates, now)])


def _of_authorities(
    path: Path, source: DataSource, contents: Mapping[DataSource, bytes], now: datetime | None
) -> Iterator[Problem]:
    content = contents.get(source)
    if content is None:
        return
    try:
        certificates = _certificates(content, "authority")
    except Mistake as mistake:
        yield _problem(path, source, mistake)
    else:
        yield from _warnings(path, source, _dates(certificates, now))


def _problem(path: Path, source: DataSource, mistake: Mistake) -> Problem:
    named = source.file or source.env
    return Problem(
        path=path, message=mistake.message, remedy=mistake.remedy, value=short_repr(named) if named else None
    )


def _warnings(path: Path, source: DataSource, mistakes: Iterable[Mistake]) -> Iterator[Problem]:
    for mistake in mistakes:
        named = source.file or source.env
        value = short_repr(named) if named else None
        yield Problem(
            path=path, message=mistake.message, remedy=mistake.remedy, value=value, severity="warning"
        )


def _pem(content: bytes, what: str, begin: bytes) -> None:
    """Raise Mistake if the content is not PEM, or does not contain `what`."""
    if not content.strip():
        raise Mistake(f"there is no {what}: the content is empty", f"write the {what} as PEM")
    if content.startswith(_BOM):
        raise Mistake(
            "a byte order mark precedes the PEM, and Envoy cannot read that",
            "save the file without one",
        )
    if content[:1] == b"\x30":
        raise Mistake(
            f"the {what} is DER or PKCS #12, and Envoy reads PEM", _KEY_AS_PEM if begin is _KEY else _AS_PEM
        )
    if re.search(rb"^[ \t]+-----(BEGIN|END) ", content, re.MULTILINE):
        raise Mistake("spaces precede the lines of the PEM, and Envoy cannot read that", "remove them")
    if begin not in content:
        other = (
            "a private key" if _KEY in content else "certificates" if _CERTIFICATE in content else "no PEM"
        )
        raise Mistake(f"there is no {what}: the content is {other}", f"write the {what} as PEM")


@lru_cache(maxsize=4096)
def _certificates(content: bytes, what: str = "certificate") -> tuple[x509.Certificate, ...]:
    _pem(content, what, _CERTIFICATE)
    certificates = []
    for number, part in enumerate(content.split(_CERTIFICATE)[1:], 1):
        try:
            certificates.append(_read(_CERTIFICATE + part))
        except Exception:  # noqa: BLE001 - the library has an exception for each part of a certificate
            raise Mistake(f"{what} number {number} cannot be read", _UNREADABLE) from None
    return tuple(certificates)


def _read(content: bytes) -> x509.Certificate:
    """Return a certificate whose parts can be read too: the library reads each of them when it is asked for."""
    certificate = x509.load_pem_x509_certificate(content)
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            extension.value.get_values_for_type(x509.DNSName)
    _encoded(certificate.public_key())
    return certificate


@lru_cache(maxsize=4096)
def _chain(content: bytes) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a chain. Raises Mistake if Envoy cannot use the first one."""
    certificates = _certificates(content)
    fault = _unusable(certificates[0])
    if fault is not None:
        raise Mistake(fault, "use a key of RSA 2048 or more, P-256, P-384, P-521 or Ed25519")
    return certificates


def _unusable(certificate: x509.Certificate) -> str | None:
    """Return the reason why Envoy rejects the key of a server's or client's own certificate, or None."""
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return "Envoy does not support keys of this kind"
    match key:
        case rsa.RSAPublicKey() if key.key_size < _SMALLEST_RSA:
            return f"an RSA key of {key.key_size} bits is too small for Envoy"
        case ec.EllipticCurvePublicKey() if not isinstance(key.curve, _CURVES):
            return f"Envoy does not support the curve {key.curve.name}"
        case rsa.RSAPublicKey() | ec.EllipticCurvePublicKey() | ed25519.Ed25519PublicKey():
            return None
    return "Envoy does not support keys of this kind"


@lru_cache(maxsize=4096)
def _private_key(content: bytes) -> Any:
    _pem(content, "private key", _KEY)
    if b"ENCRYPTED" in content:
        raise Mistake(
            "the private key is encrypted, and Envoy cannot get the password",
            "write it decrypted: openssl pkey -in FILE",
        )
    begin = content.index(b"-----BEGIN ", max(0, content.index(_KEY) - 24))
    end = content.find(_KEY, content.index(_KEY) + 1)
    try:
        return serialization.load_pem_private_key(
            content[begin : end + len(_KEY)], None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Mistake("the private key cannot be read", _UNREADABLE) from None


def _pair(chain: Sequence[x509.Certificate], key: Any) -> None:
    """Raise Mistake if the key is not that of the first certificate, or if the others do not follow in order."""
    public = _encoded(key.public_key())
    numbers = [
        number for number, certificate in enumerate(chain, 1) if _encoded(certificate.public_key()) == public
    ]
    if not numbers:
        raise Mistake(
            "the private key does not belong to the certificate", "write the two that were issued together"
        )
    if numbers[0] != 1:
        raise Mistake(
            f"the certificate of the private key is number {numbers[0]}, and Envoy uses the first",
            "write it first, then its issuer, and so on",
        )
    if _in_order(chain) != list(chain):
        raise Mistake(
            "the certificates are not in order", "write each before its issuer, the server's own first"
        )


def _encoded(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def _in_order(chain: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Return the certificates with each issuer after the certificate that it issued, or as given if one is missing."""
    ordered, left = [chain[0]], list(chain[1:])
    while left:
        issuer = next(
            (certificate for certificate in left if certificate.subject == ordered[-1].issuer), None
        )
        if issuer is None:
            return list(chain)
        ordered.append(issuer)
        left.remove(issuer)
    return ordered


def _gaps(chain: Sequence[x509.Certificate]) -> Iterator[Mistake]:
    for number, (certificate, issuer) in enumerate(pairwise(chain), 2):
        if certificate.issuer != issuer.subject:
            yield Mistake(
                f"certificate number {number} did not issue the one before it",
                "write the issuer of each certificate behind it, and nothing else",
            )
            return
    if len(chain) == 1 and chain[0].issuer != chain[0].subject:
        yield Mistake(
            f"an intermediate certificate may be missing: there is none of the issuer "
            f"{short_repr(chain[0].issuer.rfc4514_string())}",
            "append it, and the root if clients need no intermediate",
        )


def _dates(chain: Sequence[x509.Certificate], now: datetime | None) -> Iterator[Mistake]:
    if now is None:
        return
    for number, certificate in enumerate(chain, 1):
        which = f"certificate number {number}" if len(chain) > 1 else "the certificate"
        if certificate.not_valid_after_utc < now:
            yield Mistake(
                f"{which} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC", "renew it"
            )
        elif certificate.not_valid_before_utc > now:
            yield Mistake(
                f"{which} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
                "wait, or check the clocks",
            )
