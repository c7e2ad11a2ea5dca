"""How an API server is reached: its address, its authorities and our credentials.

Files are read again when they change, because tokens and certificates are renewed while we run.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xds_server.errors import InvalidKubeconfig

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod has the token of its service account.

https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
"""
_Version = tuple[int, int, int] | None
"""Inode, size and time of a file, which change when the file does."""


@dataclass(frozen=True, slots=True)
class Material:
    """A token or PEM text: a file, or its content. It is never printed."""

    file: Path | None = None
    content: bytes = field(default=b"", repr=False)

    def read(self) -> bytes:
        """Return the current content. Raises InvalidKubeconfig if the file cannot be read."""
        if self.file is None:
            return self.content
        try:
            return self.file.read_bytes()
        except OSError as error:
            raise InvalidKubeconfig(f"{self.file}: {error.strerror}; make the file readable") from None

    def version(self) -> _Version:
        """Return a value that changes when the file changes. It is None for a content, and for a missing file."""
        if self.file is None:
            return None
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What a request needs. `server` is the URL of the API server, and `namespace` the one to use if none is named.

    `verify` is false only if the user wrote so. `server_name` is the name in the server's certificate, if it is not the
    host of the URL.
    """

    server: str
    namespace: str = "default"
    authorities: Material | None = None
    verify: bool = True
    server_name: str | None = None
    token: Material | None = None
    certificate: Material | None = None
    private_key: Material | None = None
    proxy: str | None = None


def in_cluster(environment: Mapping[str, str], account: Path = ACCOUNT) -> Connection:
    """Return the connection of a pod. Raises InvalidKubeconfig if this process is not in a pod with an account."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    token = account / "token"
    if not host or not port or not token.exists():
        raise InvalidKubeconfig(
            f"there is no API server: KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT or {token} is missing; outside "
            "of a pod name a kubeconfig, and in a pod set automountServiceAccountToken: true"
        )
    named = account / "namespace"
    return Connection(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=named.read_text().strip() if named.exists() else "default",
        authorities=Material(account / "ca.crt"),
        token=Material(token),
    )


class Tls:
    """The TLS context of a connection. It is made again when one of its files changes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._context: ssl.SSLContext | None = None
        self._versions: tuple[_Version, ...] = ()

    def context(self) -> ssl.SSLContext:
        """Return the current context. Raises InvalidKubeconfig if a file is missing or is not PEM."""
        materials = (
            self._connection.authorities,
            self._connection.certificate,
            self._connection.private_key,
        )
        versions = tuple(one.version() for one in materials if one is not None)
        if self._context is None or versions != self._versions:
            self._context, self._versions = self._new(), versions
        return self._context

    def _new(self) -> ssl.SSLContext:
        authorities = self._connection.authorities
        try:
            context = ssl.create_default_context(
                cadata=authorities.read().decode("ascii") if authorities is not None else None
            )
        except (ssl.SSLError, ValueError) as error:
            raise InvalidKubeconfig(
                f"the certificate authorities of {self._connection.server} are not PEM: {error}"
            ) from None
        if not self._connection.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._load_certificate(context)
        return context

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        certificate, key = self._connection.certificate, self._connection.private_key
        if certificate is None or key is None:
            return
        descriptor, name = (
            tempfile.mkstemp()
        )  # OpenSSL reads only files; this one is readable for its owner alone
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(certificate.read() + b"\n" + key.read())
            context.load_cert_chain(name)
        except (ssl.SSLError, ValueError):
            raise InvalidKubeconfig(
                f"the client certificate for {self._connection.server} and its private key are not PEM, or no pair"
            ) from None
        finally:
            os.unlink(name)  # noqa: PTH108 - a name, as mkstemp returns it


class TokenReader:
    """The token of a connection. A file is read again when it changes, and the last token stays if that fails."""

    def __init__(self, material: Material | None) -> None:
        self._material = material
        self._version: _Version = None
        self._token = ""

    def current(self) -> str:
        """Return the token, or an empty text without one. Raises InvalidKubeconfig if it was never readable."""
        if self._material is None:
            return ""
        version = self._material.version()
        if not self._token or (version is not None and version != self._version):
            self._token = self._material.read().decode("latin-1").strip() or self._token
            self._version = version
        return self._token
