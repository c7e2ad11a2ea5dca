"""Make the certificates of this example: ``python certificates.py`` writes them to gateway/certs/.

They are for this machine and valid for a month. They are never committed.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

MONTH = datetime.timedelta(days=30)


def certificate(
    name: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None
) -> tuple[bytes, bytes, tuple[x509.Name, ec.EllipticCurvePrivateKey]]:
    """Return a certificate and its private key as PEM, and an issuer. Without `issuer`, the certificate is an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, signing_key = issuer or (subject, key)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + MONTH)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, critical=False)
    signed = builder.sign(signing_key, hashes.SHA256())
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private = key.private_bytes(encoding, form, serialization.NoEncryption())
    return signed.public_bytes(encoding), private, (subject, key)


def write(folder: Path) -> None:
    """Write the authority, two server certificates, and the certificate of a partner."""
    folder.mkdir(parents=True, exist_ok=True)
    authority, _, issuer = certificate("Example CA", None)
    (folder / "ca.crt").write_bytes(authority)
    for file, name in (
        ("shop", "shop.example.com"),
        ("api", "api.example.com"),
        ("partner", "acme.partners.example.com"),
    ):
        chain, key, _ = certificate(name, issuer)
        (folder / f"{file}.crt").write_bytes(chain)
        (folder / f"{file}.key").write_bytes(key)


if __name__ == "__main__":
    write(Path(__file__).resolve().parent / "gateway" / "certs")
