"""The authority of the mesh in a Secret of a real API server that somebody else rotates."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tests.certificate_authority.test_authority import handshake
from tests.support.certificates import Authority
from tests.support.kubernetes.objects import Objects
from xds_server.certificate_authority.authority import KeyPair, issue, new_authority
from xds_server.controller.mesh_authority import OVERLAP, MeshAuthority
from xds_server.errors import EnvironmentFailed
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.resources import Key

NOW = datetime.now(UTC)


def _write(objects: Objects, namespace: str, pair: KeyPair, root: bytes = b"") -> None:
    data = {"tls.crt": pair.certificate, "tls.key": pair.private_key, "ca.crt": root or pair.certificate}
    encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
    metadata = {"name": "mesh", "namespace": namespace}
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata}
    objects.apply([{**secret, "data": encoded}])


def _authority(name: str) -> KeyPair:
    return new_authority(name, NOW, timedelta(days=30))


async def test_a_new_authority_is_trusted_before_it_signs_and_the_old_one_after(
    client: ApiClient, objects: Objects, namespace: str
) -> None:
    now, told = [NOW], list[str]()
    old, new = _authority("old"), _authority("new")
    _write(objects, namespace, old)
    authority = MeshAuthority(
        client, Key(namespace, "mesh"), lambda: told.append("changed"), now=lambda: now[0]
    )
    await authority.open()
    assert authority.authorities.bundle.split() == old.certificate.split()
    await authority.look()
    assert told == []
    _write(objects, namespace, new)
    for _ in range(2):
        await authority.look()
        assert authority.authorities.current == old
        assert new.certificate in authority.authorities.bundle
    now[0] += OVERLAP
    await authority.look()
    assert authority.authorities.current == new
    assert old.certificate in authority.authorities.bundle
    assert told == ["changed", "changed"]


async def test_an_authority_that_another_one_signed_is_sent_with_the_certificates(
    client: ApiClient, objects: Objects, namespace: str, tmp_path: Path
) -> None:
    root = Authority("root")
    _write(objects, namespace, KeyPair(*root.intermediate()), root.pem)
    authority = MeshAuthority(client, Key(namespace, "mesh"))
    await authority.open()
    assert root.pem in authority.authorities.bundle
    leaf = issue(authority.authorities.current, ["a.example.com"], NOW, timedelta(hours=1))
    assert len(x509.load_pem_x509_certificates(leaf.certificate)) == 2
    assert handshake(leaf, root.pem, "a.example.com", tmp_path) == ""


async def test_what_cannot_be_used_is_told_and_changes_nothing(
    client: ApiClient, objects: Objects, namespace: str
) -> None:
    authority = MeshAuthority(client, Key(namespace, "mesh"))
    with pytest.raises(EnvironmentFailed, match=f"no Secret {namespace}/mesh"):
        await authority.open()
    good = _authority("good")
    _write(objects, namespace, good)
    await authority.open()
    leaf = issue(good, ["a.example.com"], NOW, timedelta(hours=1))
    _write(objects, namespace, leaf)
    with pytest.raises(EnvironmentFailed, match="not that of an authority"):
        await authority.look()
    assert authority.authorities.current == good
