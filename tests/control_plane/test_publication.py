"""A publication waits for policy servers to have what they are served, and never for what is held back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import MappingProxyType

from filters.policy_server import NODE_CLUSTER as POLICY_SERVERS
from xds_server.control_plane.compiler import Compiler
from xds_server.control_plane.fleet import Fleet
from xds_server.control_plane.publication import Publication
from xds_server.discovery.node import Node
from xds_server.discovery.types import CLUSTER, ResourceType, of_url
from xds_server.serving.events import Acked, Connected, Nacked
from xds_server.serving.store import Store
from xds_server.sources.folder import Folder
from xds_server.translate import names

GATEWAY = b"""
listeners: {http: {port: 8080}}
upstreams: {users: {endpoints: ["127.0.0.1:9000"]}}
routes: {a: {path: /a, upstream: users, policies: {rate_limit: 5/minute}}}
"""
NODE = Node(id="p", cluster=POLICY_SERVERS)


class PolicyServer:
    """The one stream of a policy server, as the store hears of it: a stream knows a type by its URL alone."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.record(
            Connected(stream=1, node=NODE, group=POLICY_SERVERS, protocol="delta", peer="ipv4:127.0.0.1:1")
        )

    def _versions(self, type_: ResourceType) -> dict[str, str]:
        current = self._store.current(POLICY_SERVERS)
        assert current is not None
        return {name: one.version for name, one in current[type_].items()}

    def accept(self) -> None:
        current = self._store.current(POLICY_SERVERS)
        assert current is not None
        for type_ in current:
            self._store.record(
                Acked(
                    stream=1,
                    node=NODE,
                    group=POLICY_SERVERS,
                    type=of_url(type_.url),
                    version=current.version(type_),
                    versions=self._versions(type_),
                    removed=(),
                    latency=0.0,
                    convergence=0.0,
                )
            )

    def reject(self, type_: ResourceType) -> None:
        versions = self._versions(type_)
        self._store.record(
            Nacked(
                stream=1,
                node=NODE,
                group=POLICY_SERVERS,
                type=of_url(type_.url),
                version="",
                versions=versions,
                message="cannot use it",
                blamed=versions,
            )
        )


async def test_what_policy_servers_have_is_not_waited_for_any_longer() -> None:
    compiled = Compiler({}).compile(Folder(Path(), MappingProxyType({"gateway.yaml": GATEWAY})))
    store = Store()
    fleet = Fleet(lambda _group, _type, _name: None)
    store.observe(fleet.observe)

    async def ensure_policy_server() -> None:
        PolicyServer(store).accept()

    async with asyncio.timeout(10):
        await Publication(
            store, fleet, {names.POLICY_SERVER: ensure_policy_server}, ack_timeout=3600
        ).publish(compiled)
    current = store.current()
    assert current is not None
    assert current[CLUSTER] == compiled.snapshot[CLUSTER]


async def test_what_policy_servers_rejected_is_not_waited_for() -> None:
    compiled = Compiler({}).compile(Folder(Path(), MappingProxyType({"gateway.yaml": GATEWAY})))
    rules = [type_ for type_ in compiled.snapshot if type_.name == "limits"]
    assert compiled.snapshot[rules[0]]
    store = Store(quarantine=True)
    fleet = Fleet(lambda _group, _type, _name: None)
    store.observe(fleet.observe)

    async def ensure_policy_server() -> None:
        """Called when the rules are out and the Envoys wait."""
        server = PolicyServer(store)
        server.reject(rules[0])
        assert len(store.held(POLICY_SERVERS)) == 1
        server.accept()

    async with asyncio.timeout(10):
        await Publication(
            store, fleet, {names.POLICY_SERVER: ensure_policy_server}, ack_timeout=3600
        ).publish(compiled)
    current = store.current()
    assert current is not None
    assert current[CLUSTER] == compiled.snapshot[CLUSTER]
