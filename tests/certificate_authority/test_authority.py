"""Certificates of the authority, verified by OpenSSL as a client and a server use them."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from xds_server.certificate_authority.authority import KeyPair, issue, new_authority

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def handshake(server: KeyPair, trusted: bytes, name: str, folder: Path) -> str:
    """Return the error of a client that connects to `name`, empty if it trusts the server."""
    (folder / "crt").write_bytes(server.certificate)
    (folder / "key").write_bytes(server.private_key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "crt", folder / "key")
    client = ssl.create_default_context(cadata=trusted.decode())
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            serving.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=name).close()
    except ssl.SSLError as error:
        return str(error)
    finally:
        ours.close()
        thread.join()
    return ""


@pytest.mark.parametrize("name", ["control.example.com", "10.0.0.1", "fd00::1"])
def test_a_client_trusts_a_certificate_for_its_names_only(name: str, tmp_path: Path) -> None:
    authority = new_authority("test", NOW, DAY)
    served = issue(authority, [name, "spiffe://example.com/ns/a/sa/b"], NOW, DAY)
    assert handshake(served, authority.certificate, name, tmp_path) == ""
    assert "mismatch" in handshake(served, authority.certificate, "other.example.com", tmp_path)
    assert "verify failed" in handshake(served, new_authority("test", NOW, DAY).certificate, name, tmp_path)


def test_what_it_signed_signs_nothing(tmp_path: Path) -> None:
    authority = new_authority("test", NOW, DAY)
    leaf = issue(authority, ["a.example.com"], NOW, DAY)
    with pytest.raises(ValueError, match="not that of an authority"):
        leaf.check()
    forged = issue(leaf, ["b.example.com"], NOW, DAY)
    forged = KeyPair(forged.certificate + leaf.certificate, forged.private_key)
    assert "verify failed" in handshake(forged, authority.certificate, "b.example.com", tmp_path)


def test_a_certificate_does_not_outlive_its_authority() -> None:
    authority = new_authority("test", NOW, DAY)
    assert issue(authority, ["a.example.com"], NOW, 9 * DAY).ends == authority.ends


def test_a_spiffe_id_is_a_uri() -> None:
    identity = "spiffe://example.com/ns/shop/sa/orders"
    found = x509.load_pem_x509_certificate(
        issue(new_authority("test", NOW, DAY), [identity], NOW, DAY, client=True).certificate
    )
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical  # because the subject is empty
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [identity]


def test_a_key_of_another_certificate_is_rejected() -> None:
    one, other = (new_authority("test", NOW, DAY) for _ in range(2))
    with pytest.raises(ValueError, match="not that of the certificate"):
        KeyPair(one.certificate, other.private_key).check()
    with pytest.raises(ValueError, match="not PEM"):
        KeyPair(b"rubbish", one.private_key).check()
