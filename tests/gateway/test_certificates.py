"""Certificates are judged as the real Envoy judges them, before any Envoy has them."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from filters.language import Mistake
from tests.support.validate import complaint
from xds_server.gateway.certificates import check_authorities, is_for
from xds_server.gateway.reader import Reader, Reading

NOW = datetime.datetime(2030, 6, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PLAIN = serialization.NoEncryption()
YAML = """
secrets: {own: {certificate: {file: own.crt}, private_key: {file: own.key}}}
listeners: {https: {port: 8443, tls: {certificates: [own], client_certificate: {ca: {file: ca.crt}}}}}
"""


@dataclass(frozen=True)
class Made:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    def key_pem(self, form: str = "PKCS8", encryption: Any = PLAIN) -> bytes:
        form = getattr(serialization.PrivateFormat, form)
        content: bytes = self.key.private_bytes(PEM, form, encryption)
        return content


def make(name: str, key: Any, issuer: Made | None = None, days: tuple[int, int] = (-30, 30)) -> Made:
    """A certificate that is signed by an issuer, or by itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer is not None else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + days[0] * DAY)
        .not_valid_after(NOW + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    edwards = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return Made(builder.sign(signer, None if edwards else hashes.SHA256()), key)


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def root() -> Made:
    return make("root", p256())


@cache
def intermediate() -> Made:
    return make("intermediate", p256(), root())


@cache
def leaf() -> Made:
    return make("leaf", p256(), intermediate())


@cache
def other() -> Made:
    return make("other", p256())


def chain(*parts: Made) -> bytes:
    return b"".join(part.pem for part in parts)


def read(certificate: bytes, key: bytes, ca: bytes) -> Reading:
    files = {"own.crt": certificate, "own.key": key, "ca.crt": ca}
    return Reader().read({"gateway.yaml": YAML.encode()}, files.__getitem__, {}, NOW)


def envoy_takes(certificate: bytes, key: bytes, ca: bytes) -> bool:
    """Whether the real Envoy makes a TLS context of them."""
    context = tls_pb2.DownstreamTlsContext()
    common = context.common_tls_context
    pair = common.tls_certificates.add()
    pair.certificate_chain.inline_bytes, pair.private_key.inline_bytes = certificate, key
    common.validation_context.trusted_ca.inline_bytes = ca
    bootstrap = bootstrap_pb2.Bootstrap()
    listener = bootstrap.static_resources.listeners.add(name="tls")
    listener.address.socket_address.address = "127.0.0.1"
    listener.address.socket_address.port_value = 1
    socket = listener.filter_chains.add().transport_socket
    socket.name = "tls"
    socket.typed_config.Pack(context)
    return complaint(bootstrap) is None


BROKEN = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
BOM = b"\xef\xbb\xbf"


def _indented(pem: bytes) -> bytes:
    return b"".join(b"  " + line for line in pem.splitlines(keepends=True))


_Files = tuple[bytes, bytes, bytes]
BAD: dict[str, tuple[Callable[[], _Files], str, str]] = {
    "another key": (
        lambda: (leaf().pem, other().key_pem(), root().pem),
        "secrets.own.certificate",
        "the private key does not belong to the certificate",
    ),
    "issuer first": (
        lambda: (chain(intermediate(), leaf()), leaf().key_pem(), root().pem),
        "secrets.own.certificate",
        "the certificate of the private key is number 2, and Envoy uses the first",
    ),
    "empty certificate": (
        lambda: (b"\n", leaf().key_pem(), root().pem),
        "secrets.own.certificate",
        "there is no certificate: the content is empty",
    ),
    "empty key": (
        lambda: (leaf().pem, b"", root().pem),
        "secrets.own.private_key",
        "there is no private key: the content is empty",
    ),
    "empty authority": (
        lambda: (leaf().pem, leaf().key_pem(), b" "),
        "listeners.https.tls.client_certificate.ca",
        "there is no authority: the content is empty",
    ),
    "certificate in DER": (
        lambda: (leaf().certificate.public_bytes(DER), leaf().key_pem(), root().pem),
        "secrets.own.certificate",
        "the certificate is DER or PKCS #12, and Envoy reads PEM",
    ),
    "key in DER": (
        lambda: (
            leaf().pem,
            leaf().key.private_bytes(DER, serialization.PrivateFormat.PKCS8, PLAIN),
            root().pem,
        ),
        "secrets.own.private_key",
        "the private key is DER or PKCS #12, and Envoy reads PEM",
    ),
    "authority in DER": (
        lambda: (leaf().pem, leaf().key_pem(), root().certificate.public_bytes(DER)),
        "listeners.https.tls.client_certificate.ca",
        "the authority is DER or PKCS #12, and Envoy reads PEM",
    ),
    "certificate behind spaces": (
        lambda: (_indented(leaf().pem), leaf().key_pem(), root().pem),
        "secrets.own.certificate",
        "spaces precede the lines of the PEM, and Envoy cannot read that",
    ),
    "key behind spaces": (
        lambda: (leaf().pem, _indented(leaf().key_pem()), root().pem),
        "secrets.own.private_key",
        "spaces precede the lines of the PEM, and Envoy cannot read that",
    ),
    "encrypted key": (
        lambda: (
            leaf().pem,
            leaf().key_pem(encryption=serialization.BestAvailableEncryption(b"x")),
            root().pem,
        ),
        "secrets.own.private_key",
        "the private key is encrypted, and Envoy cannot get the password",
    ),
    "key for a certificate": (
        lambda: (leaf().key_pem(), leaf().key_pem(), root().pem),
        "secrets.own.certificate",
        "there is no certificate: the content is a private key",
    ),
    "certificate for a key": (
        lambda: (leaf().pem, leaf().pem, root().pem),
        "secrets.own.private_key",
        "there is no private key: the content is certificates",
    ),
    "byte order mark": (
        lambda: (BOM + leaf().pem, leaf().key_pem(), root().pem),
        "secrets.own.certificate",
        "a byte order mark precedes the PEM, and Envoy cannot read that",
    ),
    "byte order mark before the authority": (
        lambda: (leaf().pem, leaf().key_pem(), BOM + root().pem),
        "listeners.https.tls.client_certificate.ca",
        "a byte order mark precedes the PEM, and Envoy cannot read that",
    ),
    "broken second certificate": (
        lambda: (leaf().pem + BROKEN, leaf().key_pem(), root().pem),
        "secrets.own.certificate",
        "certificate number 2 cannot be read",
    ),
    "truncated second certificate": (
        lambda: (leaf().pem + root().pem[:200], leaf().key_pem(), root().pem),
        "secrets.own.certificate",
        "certificate number 2 cannot be read",
    ),
    "broken second authority": (
        lambda: (leaf().pem, leaf().key_pem(), root().pem + BROKEN),
        "listeners.https.tls.client_certificate.ca",
        "authority number 2 cannot be read",
    ),
    "broken key": (
        lambda: (
            leaf().pem,
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            root().pem,
        ),
        "secrets.own.private_key",
        "the private key cannot be read",
    ),
    "two keys, another one first": (
        lambda: (leaf().pem, other().key_pem() + leaf().key_pem(), root().pem),
        "secrets.own.certificate",
        "the private key does not belong to the certificate",
    ),
}
WEAK = {
    "RSA 1024": (lambda: rsa.generate_private_key(65537, 1024), "an RSA key of 1024 bits is too small"),
    "P-224": (lambda: ec.generate_private_key(ec.SECP224R1()), "does not support the curve secp224r1"),
    "secp256k1": (lambda: ec.generate_private_key(ec.SECP256K1()), "does not support the curve secp256k1"),
    "Ed448": (ed448.Ed448PrivateKey.generate, "Envoy does not support keys of this kind"),
}
GOOD: dict[str, Callable[[], _Files]] = {
    "whole chain": lambda: (chain(leaf(), intermediate(), root()), leaf().key_pem(), root().pem),
    "self-signed": lambda: (other().pem, other().key_pem(), root().pem),
    "traditional key": lambda: (other().pem, other().key_pem("TraditionalOpenSSL"), root().pem),
    "text around": lambda: (
        b"subject=x\n" + other().pem + b"end\n",
        b"key\n" + other().key_pem(),
        root().pem,
    ),
    "carriage returns": lambda: (
        other().pem.replace(b"\n", b"\r\n"),
        other().key_pem().replace(b"\n", b"\r\n"),
        root().pem,
    ),
    "key in the certificate's file": lambda: (
        other().key_pem() + other().pem,
        other().pem + other().key_pem(),
        root().pem,
    ),
    "parameters before the key": lambda: (
        other().pem,
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        + other().key_pem("TraditionalOpenSSL"),
        root().pem,
    ),
    "two authorities, one twice": lambda: (
        other().pem,
        other().key_pem(),
        chain(root(), intermediate(), root()),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_envoy_would_reject_is_an_error_with_its_place(case: str) -> None:
    files, path, message = BAD[case][0](), BAD[case][1], BAD[case][2]
    errors = read(*files).errors
    assert [(one.where, one.message) for one in errors] == [(path, message)]
    assert all(one.place is not None and one.remedy for one in errors)
    assert not envoy_takes(*files)


@pytest.mark.parametrize("case", WEAK)
def test_keys_that_envoy_does_not_take_are_errors(case: str) -> None:
    make_key, message = WEAK[case]
    one = make("weak", make_key())
    files = (one.pem, one.key_pem(), root().pem)
    (error,) = read(*files).errors
    assert error.where == "secrets.own.certificate"
    assert message in error.message
    assert not envoy_takes(*files)


@pytest.mark.parametrize("case", GOOD)
def test_what_envoy_takes_is_fine(case: str) -> None:
    files = GOOD[case]()
    assert read(*files).problems == ()
    assert envoy_takes(*files)


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_larger_curves_are_fine(curve: ec.EllipticCurve) -> None:
    one = make("large", ec.generate_private_key(curve))
    assert read(one.pem, one.key_pem(), root().pem).problems == ()
    assert envoy_takes(one.pem, one.key_pem(), root().pem)


def test_other_kinds_of_keys_are_fine() -> None:
    for key in (ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)):
        one = make("other kind", key)
        assert read(one.pem, one.key_pem(), root().pem).problems == ()
        assert envoy_takes(one.pem, one.key_pem(), root().pem)


@pytest.mark.parametrize(
    ("certificates", "message"),
    [
        (lambda: (leaf(),), "an intermediate certificate may be missing: there is none of the issuer"),
        (lambda: (leaf(), other()), "certificate number 2 did not issue the one before it"),
        (
            lambda: (make("old", leaf().key, days=(-9, -1)),),
            "the certificate expired on 2030-05-31 00:00 UTC",
        ),
        (
            lambda: (make("new", leaf().key, days=(1, 9)),),
            "the certificate is not valid before 2030-06-02 00:00 UTC",
        ),
        (
            lambda: (make("leaf", leaf().key, make("other", other().key, days=(-9, -1))), _old()),
            "certificate number 2 expired on",
        ),
    ],
    ids=["no issuer", "foreign issuer", "expired", "not yet valid", "expired issuer"],
)
def test_what_envoy_takes_and_clients_may_not_is_a_warning(
    certificates: Callable[[], tuple[Made, ...]], message: str
) -> None:
    reading = read(chain(*certificates()), leaf().key_pem(), root().pem)
    assert reading.errors == ()
    (warning,) = reading.problems
    assert warning.where == "secrets.own.certificate"
    assert message in warning.message


def _old() -> Made:
    return make("other", other().key, days=(-9, -1))


def test_an_authority_that_expired_is_a_warning() -> None:
    (warning,) = read(other().pem, other().key_pem(), make("old", p256(), days=(-9, -1)).pem).problems
    assert (warning.severity, warning.where) == ("warning", "listeners.https.tls.client_certificate.ca")


def test_a_chain_that_is_not_in_order_is_an_error() -> None:
    (error,) = read(chain(leaf(), root(), intermediate()), leaf().key_pem(), root().pem).errors
    assert error.message == "the certificates are not in order"


def test_no_problem_shows_a_private_key() -> None:
    key = leaf().key_pem(encryption=serialization.BestAvailableEncryption(b"x"))
    text = "".join(map(str, read(key, key, key).problems))
    assert key.split(b"\n")[1].decode() not in text
    assert base64.b64encode(key).decode()[:60] not in text


def test_a_certificate_with_a_part_that_cannot_be_read_is_a_mistake() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    odd = x509.UnrecognizedExtension(x509.ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"junk")
    pem = (
        builder.add_extension(odd, critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    for check in (lambda: is_for(pem, "a.test"), lambda: check_authorities(pem)):
        with pytest.raises(Mistake, match="number 1 cannot be read"):
            check()
