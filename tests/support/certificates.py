"""An authority made for the tests, and certificates that it signs."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """Signs certificates and writes them as PEM into `folder`: ``NAME.crt`` with ``NAME.key``, ``ca.crt``."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name(name)
        built = _builder(self._subject, self._subject, self._key.public_key(), days=30)
        usage = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate = built.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        self.file = folder / f"{name}.crt"
        self.file.write_bytes(_pem(self.certificate))

    def sign(self, name: str, *alt_names: str, days: int = 30) -> tuple[str, str]:
        """Files of a certificate with these names (DNS, URI or IP) and of its key; expired where `days` is negative."""
        key = ec.generate_private_key(ec.SECP256R1())
        built = _builder(_name(name), self._subject, key.public_key(), days=days)
        names = x509.SubjectAlternativeName([_alt_name(one) for one in alt_names])
        certificate = built.add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        files = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        files[0].write_bytes(_pem(certificate))
        no_password = serialization.NoEncryption()
        pkcs8 = serialization.PrivateFormat.PKCS8
        files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, no_password))
        return str(files[0]), str(files[1])

    def client(self, *pair: str) -> ssl.SSLContext:
        """A client that trusts this authority, and shows the certificate of `pair` where one is given."""
        context = ssl.create_default_context(cafile=str(self.file))
        if pair:
            context.load_cert_chain(*pair)
        return context


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(days=60),
        not_valid_after=now + datetime.timedelta(days=days),
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alt_name(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
