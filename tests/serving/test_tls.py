"""The channel: certificates that reload, nodes bound to theirs, secrets only where nobody can listen."""

from __future__ import annotations

import asyncio
import datetime
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from tests.support.conversation import snapshot
from xds_server.discovery.node import Node
from xds_server.discovery.stream import Protocol, Stream
from xds_server.discovery.types import CLUSTER, SECRET
from xds_server.serving.first_config_slots import Slots
from xds_server.serving.groups import Groups, Rule
from xds_server.serving.server import XdsServer
from xds_server.serving.session import Context, NodeRejected, Session
from xds_server.serving.store import Store
from xds_server.serving.tls import Files, credentials, rotating


class Authority:
    """A certificate authority for a test."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = self._sign(self._name, self._key.public_key(), x509.BasicConstraints(True, None))

    def _sign(self, subject: x509.Name, public: Any, *extensions: Any, days: int = 1) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, *names: x509.GeneralName, days: int = 1) -> tuple[bytes, bytes]:
        """A certificate and its key; expired where `days` is negative."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
        certificate = self._sign(subject, key.public_key(), x509.SubjectAlternativeName(names), days=days)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate, pem


def write(folder: Path, authority: Authority, pair: tuple[bytes, bytes]) -> Files:
    files = Files(certificate=folder / "tls.crt", private_key=folder / "tls.key", client_ca=folder / "ca.crt")
    assert files.client_ca is not None
    files.certificate.write_bytes(pair[0])
    files.private_key.write_bytes(pair[1])
    files.client_ca.write_bytes(authority.certificate)
    return files


def server_pair(authority: Authority) -> tuple[bytes, bytes]:
    return authority.issue(x509.DNSName("localhost"))


@asynccontextmanager
async def serving(files: Files, group_of: Any) -> AsyncIterator[int]:
    store = Store()
    store.publish(snapshot(cluster={"a": "1"}))
    server = XdsServer(store, group_of=group_of, credentials=credentials(files))
    yield await server.start("127.0.0.1:0")
    await server.stop()


async def ask(port: int, authority: Authority, pair: tuple[bytes, bytes] | None, node: str) -> list[str]:
    certificate, key = pair or (None, None)
    made = grpc.ssl_channel_credentials(authority.certificate, key, certificate)
    options = [("grpc.ssl_target_name_override", "localhost")]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", made, options) as channel:
        stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER.url)
        request.node.id = node
        await stream.write(request)
        names = [one.name for one in (await stream.read()).resources]
        stream.cancel()
        return names


async def test_a_node_gets_its_group_with_its_certificate_and_with_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority()
    files = write(tmp_path, authority, server_pair(authority))
    edge = authority.issue(x509.UniformResourceIdentifier("spiffe://example.com/edge-1"))
    groups = Groups(Rule(group="", identities=("spiffe://example.com/{id}",)))
    async with serving(files, groups) as port:
        assert await ask(port, authority, edge, "edge-1") == ["a"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(port, authority, edge, "edge-2")
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert "rejected a node node=edge-2" in caplog.text
        assert "belongs to no group" in caplog.text


async def test_a_client_without_a_certificate_is_not_served(tmp_path: Path) -> None:
    authority = Authority()
    files = write(tmp_path, authority, server_pair(authority))
    async with serving(files, lambda _node, _context: "") as port:
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(port, authority, None, "edge-1")


async def test_new_certificate_files_are_used_for_new_connections(tmp_path: Path) -> None:
    old, new = Authority(), Authority()
    files = write(tmp_path, old, server_pair(old))
    async with serving(files, lambda _node, _context: "") as port:
        assert await ask(port, old, old.issue(), "n") == ["a"]
        write(tmp_path, new, server_pair(new))
        assert await ask(port, new, new.issue(), "n") == ["a"]
        files.certificate.unlink()
        assert await ask(port, new, new.issue(), "n") == ["a"]


HALF = {
    "half an authority": ("client_ca", lambda pem: pem[:200]),
    "no authority": ("client_ca", lambda _pem: b""),
    "half a certificate": ("certificate", lambda pem: pem[:300]),
    "no certificate": ("certificate", lambda _pem: b""),
    "half a key": ("private_key", lambda pem: pem[:100]),
    "the key of another certificate": ("private_key", lambda _pem: Authority().issue()[1]),
}


def spoil(files: Files, what: str) -> tuple[Path, bytes]:
    """Write one of the files by half; returns which, and what it was."""
    name, half = HALF[what]
    path: Path = getattr(files, name)
    whole = path.read_bytes()
    path.write_bytes(half(whole))
    return path, whole


def mend(path: Path, whole: bytes) -> None:
    path.write_bytes(whole)


@pytest.mark.parametrize("what", HALF)
async def test_files_that_are_half_written_change_nothing(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority()
    files = write(tmp_path, authority, server_pair(authority))
    client, foreign = authority.issue(), Authority().issue()
    async with serving(files, lambda _node, _context: "") as port:
        path, whole = spoil(files, what)
        for _ in range(2):
            assert await ask(port, authority, client, "n") == ["a"]
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(port, authority, foreign, "n")
        assert (
            len([one for one in caplog.records if "new certificates of the xDS port rejected" in one.message])
            == 1
        )
        mend(path, whole)
        assert await ask(port, authority, client, "n") == ["a"]


@pytest.mark.parametrize("what", HALF)
def test_files_that_cannot_be_used_are_told_at_the_start(tmp_path: Path, what: str) -> None:
    authority = Authority()
    files = write(tmp_path, authority, server_pair(authority))
    path, _ = spoil(files, what)
    with pytest.raises(ValueError, match=path.name):
        credentials(files)


async def test_a_client_whose_certificate_has_expired_is_not_served(tmp_path: Path) -> None:
    authority = Authority()
    files = write(tmp_path, authority, server_pair(authority))
    expired = authority.issue(x509.DNSName("edge"), days=-1)
    async with serving(files, lambda _node, _context: "") as port:
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(port, authority, expired, "edge")
        assert await ask(port, authority, authority.issue(x509.DNSName("edge")), "edge") == ["a"]


class Peer:
    """Stands where gRPC's context does: who is at the other end, and how."""

    def __init__(self, peer: str, security: bytes = b"") -> None:
        self._peer = peer
        self._security = security

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"transport_security_type": [self._security]}


@pytest.mark.parametrize(
    ("peer", "security", "anywhere", "served"),
    [
        ("ipv4:10.0.0.7:4000", b"", False, False),
        ("ipv4:10.0.0.7:4000", b"", True, True),
        ("ipv4:10.0.0.7:4000", b"ssl", False, True),
        ("ipv4:127.0.0.1:4000", b"", False, True),
        ("ipv6:%5B::1%5D:4000", b"", False, True),
        ("unix:", b"", False, True),
    ],
)
def test_secrets_are_served_only_where_nobody_can_listen(
    peer: str, security: bytes, anywhere: bool, served: bool
) -> None:
    store = Store()
    store.publish(snapshot(secret={"key": "1"}))
    turns = Slots(1, 0.0)
    session = Session(
        1,
        Stream(Protocol.DELTA),
        store,
        lambda _node, _context: "",
        lambda: 0.0,
        turns,
        anywhere,
    )
    session.meet(Peer(peer, security))  # type: ignore[arg-type]
    view = session.view()
    assert view is not None
    assert bool(view[SECRET]) is served


def _address() -> str:
    """This machine's own address that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # connecting it sends nothing
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has only the loopback address")
        return str(probe.getsockname()[0])


@pytest.mark.parametrize("anywhere", [False, True])
async def test_the_server_serves_secrets_in_the_open_only_where_it_is_told_to(anywhere: bool) -> None:
    store = Store()
    store.publish(snapshot(secret={"key": "1"}))
    server = XdsServer(store, secrets_anywhere=anywhere)
    address = _address()
    port = await server.start(f"{address}:0")
    async with grpc.aio.insecure_channel(f"{address}:{port}") as channel:
        stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
        await stream.write(
            discovery_pb2.DeltaDiscoveryRequest(type_url=SECRET.url, resource_names_subscribe=["key"])
        )
        response = await stream.read()
        assert [one.name for one in response.resources] == (["key"] if anywhere else [])
        assert list(response.removed_resources) == ([] if anywhere else ["key"])
    await server.stop()


async def test_the_group_may_come_later_or_not_at_all(tmp_path: Path) -> None:
    authority = Authority()
    pair = server_pair(authority)

    async def group_of(node: Node, _context: Context) -> str:
        await asyncio.sleep(0)
        if node.id == "early":
            raise NodeRejected(grpc.StatusCode.UNAVAILABLE, "not known yet")
        return ""

    store = Store()
    store.publish(snapshot(cluster={"a": "1"}))
    server = XdsServer(store, group_of=group_of, credentials=rotating(lambda: pair))
    port = await server.start("127.0.0.1:0")
    assert await ask(port, authority, None, "late") == ["a"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(port, authority, None, "early")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "not known yet")
    pair = server_pair(other := Authority())
    assert await ask(port, other, None, "late") == ["a"]
    await server.stop()
