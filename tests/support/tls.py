"""TLS clients of a test, and certificates as files."""

from __future__ import annotations

import ssl
from pathlib import Path

from tests.support.certificates import Authority

Pair = tuple[bytes, bytes]


def write_pair(folder: Path, name: str, pair: Pair) -> tuple[str, str]:
    """Write a certificate and its key as ``NAME.crt`` and ``NAME.key``."""
    files = folder / f"{name}.crt", folder / f"{name}.key"
    for file, content in zip(files, pair, strict=True):
        file.write_bytes(content)
    return str(files[0]), str(files[1])


def client_context(authority: Authority, *files: str) -> ssl.SSLContext:
    """A client that trusts the authority, and shows the certificate of `files` where they are given."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if files:
        context.load_cert_chain(*files)
    return context
