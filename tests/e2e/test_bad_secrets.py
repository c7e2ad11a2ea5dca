"""A certificate or an authority that Envoy rejects is left out alone, and comes back as soon as it is mended.

Reading a gateway finds bad certificates before that, so they are put in behind it here: as if it had missed one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from tests.support.certificates import Authority
from tests.support.envoy import Envoy
from tests.support.folder import compiled, filled, write
from tests.support.ports import free_port
from tests.support.wait import wait_for
from xds_server.control_plane.compiler import Compiled
from xds_server.control_plane.prover import PROVING, Prover, proving_envoy
from xds_server.control_plane.publication import Publication
from xds_server.discovery.snapshot import Resource
from xds_server.discovery.stream import StreamLimits
from xds_server.discovery.types import SECRET
from xds_server.proxy.binary import envoy_binary
from xds_server.proxy.bootstrap import bootstrap
from xds_server.serving.groups import Groups, Rule
from xds_server.serving.server import XdsServer
from xds_server.serving.store import Store
from xds_server.translate.readable import plain
from xds_server.translate.stand_ins import stand_in

YAML = """
secrets:
  a: {certificate: {file: a.crt}, private_key: {file: a.key}}
  b: {certificate: {file: b.crt}, private_key: {file: b.key}}
listeners:
  both: {port: $both, address: 127.0.0.1, tls: {certificates: [a, b]}}
  only-a: {port: $only_a, address: 127.0.0.1, tls: {certificates: [a]}}
  only-b: {port: $only_b, address: 127.0.0.1, tls: {certificates: [b]}}
  mutual:
    port: $mutual
    address: 127.0.0.1
    tls: {certificates: [b], client_certificate: {ca: {file: ca.crt}}}
  with-a: {port: $shared, address: 127.0.0.1, hosts: [a.test], tls: {certificates: [a]}}
  with-b: {port: $shared, address: 127.0.0.1, hosts: [b.test], tls: {certificates: [b]}}
  with-both: {port: $shared, address: 127.0.0.1, tls: {certificates: [a, b]}}
routes: {ping: {path: /ping, respond: {body: pong}}}
"""
PORTS = ("both", "only_a", "only_b", "mutual", "shared")


class _Quiet:
    """A fleet whose log nobody reads."""

    async def until_acknowledged(self, *_: object) -> None: ...


class Stack:
    """A control plane with a proving Envoy in a thread of its own, and an Envoy of the fleet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in PORTS}
        self.authority = Authority()
        for name in ("a", "b"):
            self.issue(name)
        (folder / "gateway" / "ca.crt").write_bytes(self.authority.pem)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def issue(self, name: str) -> None:
        """Write a new certificate and key."""
        folder = write(self.folder / "gateway", gateway=filled(YAML, **self.ports))
        certificate, key = self.authority.issue(f"{name}.test")
        (folder / f"{name}.crt").write_bytes(certificate)
        (folder / f"{name}.key").write_bytes(key)

    def start(self) -> None:
        self._thread.start()
        self.run(self._start())

    def stop(self) -> None:
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _start(self) -> None:
        self._stack = AsyncExitStack()
        self.store = Store(quarantine=True, stand_in=stand_in)
        prover = Prover(self.store)
        self.store.observe(prover.observe)
        self.rollout = Publication(self.store, _Quiet(), {}, prover)  # type: ignore[arg-type]
        rules = Groups(Rule(group=PROVING, cluster=PROVING), Rule(group=""))
        server = XdsServer(self.store, group_of=rules, limits=StreamLimits(bisect=True))
        self.address = f"unix:{self.folder}/xds.sock"
        await server.start(self.address)
        self._stack.push_async_callback(server.stop, 0)
        assert await proving_envoy(envoy_binary(), self.address, self._stack)

    def publish(self, **bad: Resource) -> None:
        """Publish the folder, with other secrets in the place of some."""
        found = compiled(self.folder / "gateway")
        secrets = {**found.snapshot[SECRET], **{one.name: one for one in bad.values()}}
        snapshot = found.snapshot.replacing({SECRET: secrets})
        self.run(self.rollout.publish(Compiled(found.gateway, snapshot, ())))

    def held(self) -> dict[str, str]:
        async def held() -> dict[str, str]:
            return {one.name: one.type.name for one in self.store.held()}

        found: dict[str, str] = self.run(held())
        return found

    def serial(self, listener: str) -> int:
        """The number of the certificate that a client is shown."""
        content = ssl.get_server_certificate(("127.0.0.1", self.ports[listener]), timeout=5)
        return x509.load_pem_x509_certificate(content.encode()).serial_number

    def shown(self, listener: str, server_name: str) -> str | None:
        """The name in the certificate that a client is shown; None where the handshake fails."""
        context = ssl._create_unverified_context()
        try:
            with (
                socket.create_connection(("127.0.0.1", self.ports[listener]), 5) as plain_socket,
                context.wrap_socket(plain_socket, server_hostname=server_name) as tls,
            ):
                content = tls.getpeercert(binary_form=True)
        except OSError:
            return None
        assert content is not None
        return x509.load_der_x509_certificate(content).subject.rfc4514_string()


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    (tmp_path / "gateway").mkdir()
    stack = Stack(tmp_path)
    stack.start()
    try:
        yield stack
    finally:
        stack.stop()


def _mismatched(name: str, authority: Authority) -> Resource:
    certificate, _ = authority.issue("a.test")
    _, other = authority.issue("a.test")
    secret = secret_pb2.Secret(name=name)
    secret.tls_certificate.certificate_chain.inline_bytes = certificate
    secret.tls_certificate.private_key.inline_bytes = other
    return Resource.of(secret)


def _envoy(stack: Stack) -> Envoy:
    return Envoy(plain(bootstrap(xds_address=stack.address, node_id="fleet")), stack.folder)


@pytest.mark.parametrize("bad", ["a", "b"])
def test_at_a_fresh_start_a_bad_certificate_is_left_out_alone_and_comes_back(stack: Stack, bad: str) -> None:
    good = {"a": "b", "b": "a"}[bad]
    stack.publish(**{bad: _mismatched(bad, stack.authority)})
    with _envoy(stack):
        wait_for(lambda: stack.shown("both", f"{good}.test") == f"CN={good}.test", "the good certificate")
        assert stack.shown(f"only_{good}", "x.test") == f"CN={good}.test"
        assert stack.shown(f"only_{bad}", "x.test") is None
        assert stack.held()[bad] == "secret"
        assert stack.held()[f"only-{bad}"] == "listener"
        # of the port that two listeners share, only one is closed
        assert stack.held()[f"with-{bad}"] == "listener"
        assert f"with-{good}" not in stack.held()
        assert stack.shown("shared", f"{bad}.test") is None
        wait_for(lambda: stack.shown("shared", f"{good}.test") == f"CN={good}.test", "the other listener")
        assert good not in stack.held()
        stack.publish()
        wait_for(lambda: stack.shown(f"only_{bad}", "x.test") == f"CN={bad}.test", "the mended certificate")
        wait_for(lambda: stack.shown("both", f"{bad}.test") == f"CN={bad}.test", "both certificates")
        assert stack.held() == {}


def test_while_running_a_bad_certificate_stands_as_it_was(stack: Stack) -> None:
    """The other certificates are rotated."""
    stack.publish()
    with _envoy(stack):
        wait_for(lambda: stack.shown("both", "b.test") == "CN=b.test", "the certificates")
        stack.authority = Authority("Another CA")
        certificate, key = stack.authority.issue("new-b.test", "b.test")
        (stack.folder / "gateway" / "b.crt").write_bytes(certificate)
        (stack.folder / "gateway" / "b.key").write_bytes(key)
        stack.publish(a=_mismatched("a", stack.authority))
        wait_for(lambda: stack.shown("both", "b.test") == "CN=new-b.test", "the new certificate")
        assert stack.shown("both", "a.test") == "CN=a.test"
        assert stack.shown("only_a", "x.test") == "CN=a.test"
        assert stack.held() == {"a": "secret"}
        stack.publish()
        wait_for(lambda: stack.held() == {}, "the end of the quarantine")


def test_a_bad_authority_of_client_certificates_closes_its_own_listener_only(stack: Stack) -> None:
    name = "listener/mutual/client-ca"
    bad = secret_pb2.Secret(name=name)
    bad.validation_context.trusted_ca.inline_bytes = b"no authority"
    stack.publish(bad=Resource.of(bad))
    with _envoy(stack):
        wait_for(lambda: stack.shown("both", "b.test") == "CN=b.test", "the other listeners")
        assert stack.held() == {name: "secret", "mutual": "listener"}
        assert stack.shown("mutual", "x.test") is None
        stack.publish()
        wait_for(lambda: stack.held() == {}, "the end of the quarantine")
        wait_for(lambda: _listens(stack, "mutual"), "the mended listener")


def test_while_running_a_bad_authority_of_client_certificates_stands_as_it_was(stack: Stack) -> None:
    name = "listener/mutual/client-ca"
    bad = secret_pb2.Secret(name=name)
    bad.validation_context.trusted_ca.inline_bytes = b"no authority"
    stack.publish()
    with _envoy(stack):
        wait_for(lambda: stack.shown("both", "b.test") == "CN=b.test", "the listeners")
        stack.issue("a")
        before = stack.serial("only_a")
        stack.publish(bad=Resource.of(bad))
        assert stack.held() == {name: "secret"}
        wait_for(lambda: stack.serial("only_a") != before, "the rotated certificate of another listener")
        assert _listens(stack, "mutual")
        stack.publish()
        wait_for(lambda: stack.held() == {}, "the end of the quarantine")


def _listens(stack: Stack, listener: str) -> bool:
    with socket.create_connection(("127.0.0.1", stack.ports[listener]), 5):
        return True
