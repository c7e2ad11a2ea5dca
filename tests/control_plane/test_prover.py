"""A snapshot is proved when all that the proving Envoy asks for has its answer; who is away is not waited for twice."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.answers import acked, nacked
from tests.support.resources import cluster, endpoint, listener, routes
from xds_server.control_plane.prover import PROVING, Prover
from xds_server.discovery.node import Node
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, ResourceType
from xds_server.serving.events import Connected, Disconnected
from xds_server.serving.store import Store

NODE = Node(id="prover", cluster=PROVING)
SNAPSHOT = Snapshot.of(
    {
        CLUSTER: [cluster("a"), cluster("b")],
        ENDPOINT: [endpoint("a"), endpoint("b")],
        LISTENER: [listener("l", "r")],
        ROUTE: [routes("r", {"/": "a"}), routes("unused", {"/": "a"})],
    }
)


class Proving:
    """A prover, and what its Envoy says."""

    def __init__(self, patience: float, search_limit: float = 60) -> None:
        self.store = Store(quarantine=True)
        self.prover = Prover(self.store, patience, search_limit=search_limit)
        self.store.observe(self.prover.observe)

    def connect(self) -> None:
        self.store.record(Connected(stream=1, node=NODE, group=PROVING, protocol="delta", peer=""))

    def leave(self) -> None:
        self.store.record(Disconnected(stream=1, node=NODE, group=PROVING))

    def accept(self, type_: ResourceType, *names: str) -> None:
        versions = {name: SNAPSHOT[type_][name].version for name in names}
        self.store.record(acked(type_, versions, PROVING, NODE))

    def reject(self, type_: ResourceType, name: str) -> None:
        versions = {name: SNAPSHOT[type_][name].version}
        self.store.record(nacked(type_, versions, PROVING, NODE))


async def test_a_proof_needs_an_answer_for_everything_that_is_asked_for_and_nothing_else() -> None:
    proving = Proving(patience=60)
    proof = asyncio.create_task(proving.prover.prove(SNAPSHOT))
    await asyncio.sleep(0)
    proving.connect()
    proving.accept(CLUSTER, "a", "b")
    proving.accept(ENDPOINT, "a")
    proving.accept(LISTENER, "l")
    proving.accept(ROUTE, "r")
    await asyncio.sleep(0)
    assert not proof.done()
    proving.reject(ENDPOINT, "b")
    assert (await proof).judged
    assert [one.name for one in proving.store.held(PROVING)] == ["b"]
    assert proving.prover.as_json() == {"connected": True, "proved": True}


async def test_who_is_away_is_waited_for_once_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    proving = Proving(patience=0.01)
    assert not (await proving.prover.prove(SNAPSHOT)).judged
    assert "is not connected; the other Envoys get the gateway unproved" in caplog.text
    assert proving.prover.as_json() == {"connected": False, "proved": False}
    proving.connect()
    assert not (await proving.prover.prove(SNAPSHOT)).judged
    assert "did not answer in time" in caplog.text
    for type_, name in ((CLUSTER, "a"), (CLUSTER, "b"), (ENDPOINT, "a"), (ENDPOINT, "b")):
        proving.accept(type_, name)
    proving.accept(LISTENER, "l")
    proving.accept(ROUTE, "r")
    proving.leave()
    assert (await proving.prover.prove(SNAPSHOT)).judged


async def test_without_an_envoy_to_prove_with_nobody_waits() -> None:
    proving = Proving(patience=60)
    proving.prover.available = False
    assert not (await proving.prover.prove(SNAPSHOT)).judged
    assert proving.prover.as_json() == {"connected": False, "proved": False}


async def test_routes_that_nobody_judged_in_time_answer_503_until_the_next_change() -> None:
    proving = Proving(patience=60, search_limit=0.01)
    proving.connect()
    for type_, names in ((CLUSTER, "ab"), (ENDPOINT, "ab"), (LISTENER, "l")):
        proving.accept(type_, *names)
    proof = asyncio.create_task(proving.prover.prove(SNAPSHOT))
    await asyncio.sleep(0)
    proving.reject(ROUTE, "r")  # and then it is silent, whatever it is asked
    while not proof.done():
        wanted = proving.store.wanted(PROVING)
        assert wanted is not None
        mended = wanted[ROUTE]["r"]
        if b"503/" in mended.body:
            proving.store.record(acked(ROUTE, {"r": mended.version}, PROVING, NODE))
        await asyncio.sleep(0)
    found = await proof
    assert found.judged
    assert b"503/" in found.snapshot[ROUTE]["r"].body
    (held,) = found.rejected
    assert held.closed
    assert "there was no time to verify this route" in held.message
    assert proving.prover.available
