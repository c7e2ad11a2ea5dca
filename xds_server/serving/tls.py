"""TLS for the xDS port, with certificates that are read again when their files change."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from xds_server.discovery.snapshot import content_hash

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """PEM files: the server's certificate with its chain, its key, and whose client certificates are accepted.

    With `client_ca` a client must present a certificate of it (mTLS).
    """

    certificate: Path
    private_key: Path
    client_ca: Path | None = None

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """The content of the three. Raises OSError."""
        authorities = self.client_ca.read_bytes() if self.client_ca is not None else None
        return self.certificate.read_bytes(), self.private_key.read_bytes(), authorities


class _Reloading:
    """Called by gRPC at every handshake; connections that are open keep what they have."""

    def __init__(self, files: Files, first: tuple[bytes, bytes, bytes | None]) -> None:
        self._files = files
        self._hash = _hash(first)
        self._lock = threading.Lock()

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration, None where nothing changed. A file that cannot be read changes nothing."""
        try:
            content = self._files.read()
        except OSError as error:
            log.warning("could not read the certificates again, keeping the old ones; error=%s", error)
            return None
        with self._lock:
            if _hash(content) == self._hash:
                return None
            self._hash = _hash(content)
        log.info("read new certificates for the xDS port")
        return _configuration(content)


def credentials(files: Files) -> grpc.ServerCredentials:
    """Credentials for an XdsServer. Raises OSError when a file cannot be read."""
    content = files.read()
    made: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
        _configuration(content),
        _Reloading(files, content),  # type: ignore[arg-type] # None is "no change", which the stubs lack
        require_client_authentication=files.client_ca is not None,
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
