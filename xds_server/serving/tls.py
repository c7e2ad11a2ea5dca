"""TLS for the xDS port. Certificates are read again if their files change."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from xds_server.discovery.snapshot import content_hash

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """PEM files: the server's certificate with its chain, its private key, and the authorities of client
    certificates.

    With `client_ca`, a client must present a certificate that one of these authorities signed (mTLS).
    """

    certificate: Path
    private_key: Path
    client_ca: Path | None = None

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """Return the content of the three files. Raises OSError."""
        authorities = self.client_ca.read_bytes() if self.client_ca is not None else None
        return self.certificate.read_bytes(), self.private_key.read_bytes(), authorities

    def check(self, content: tuple[bytes, bytes, bytes | None]) -> None:
        """Raise ValueError if they are no pair, or have no certificates: gRPC would not report the cause."""
        certificate, key, authorities = content
        if authorities is not None:
            _certificates(authorities, self.client_ca)
        public = _certificates(certificate, self.certificate)[0].public_key()
        if public != _private_key(key, self.private_key).public_key():
            raise ValueError(f"{self.private_key} is not the key of {self.certificate}")


def _certificates(content: bytes, path: Path | None) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ValueError(f"{path} has no certificates in PEM, or a broken one") from None


def _private_key(content: bytes, path: Path) -> Any:
    try:
        return serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError):  # the latter if it has a password
        raise ValueError(f"{path} has no private key in PEM without a password") from None


class _Reloading:
    """gRPC calls it at every handshake. Open connections keep their certificates."""

    def __init__(self, files: Files, first: tuple[bytes, bytes, bytes | None]) -> None:
        self._files = files
        self._hash = _hash(first)
        self._lock = threading.Lock()
        self._reported = ""

    def _report(self, error: str) -> None:
        """Log an error once, and not at every handshake."""
        if error != self._reported:
            self._reported = error
            log.warning("new certificates of the xDS port rejected; the old ones stay in use error=%s", error)

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new configuration, or None if it did not change.

        Unusable files change nothing: half a file, a certificate whose private key has not arrived yet, an empty list
        of authorities.
        """
        with self._lock:
            try:
                return self._renewed()
            except (OSError, ValueError) as error:
                self._report(str(error))
                return None

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        content = self._files.read()
        if _hash(content) == self._hash:
            return None
        self._files.check(content)
        self._hash, self._reported = _hash(content), ""
        log.info("new certificates of the xDS port loaded")
        return _configuration(content)


def credentials(files: Files) -> grpc.ServerCredentials:
    """Return credentials for an XdsServer. Raises OSError or ValueError if the files cannot be used."""
    content = files.read()
    files.check(content)
    made: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
        _configuration(content),
        _Reloading(files, content),  # type: ignore[arg-type] # None is "no change", which the stubs lack
        require_client_authentication=files.client_ca is not None,
    )
    return made


def rotating(current: Callable[[], tuple[bytes, bytes]]) -> grpc.ServerCredentials:
    """Return credentials with a certificate and key in PEM that `current` returns, which gRPC's threads call.

    Clients need no certificate, because they prove who they are in another way.
    """
    last = current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal last
        found = current()
        if found == last:
            return None
        last = found
        return _configuration((*found, None))

    made: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
        _configuration((*last, None)),
        changed,  # type: ignore[arg-type] # None is "no change", which the stubs lack
        require_client_authentication=False,
    )
    return made


def _configuration(content: tuple[bytes, bytes, bytes | None]) -> grpc.ServerCertificateConfiguration:
    certificate, key, authorities = content
    made: grpc.ServerCertificateConfiguration = grpc.ssl_server_certificate_configuration(
        [(key, certificate)], authorities
    )
    return made


def _hash(content: tuple[bytes, bytes, bytes | None]) -> str:
    return content_hash(*(part or b"" for part in content))
