"""The work for an event does not grow with the number of Envoys: a change for 10,000 of them is more than 10,000 events."""

from __future__ import annotations

import asyncio

from xds_server.control_plane.fleet import Fleet
from xds_server.discovery.node import Node
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER
from xds_server.serving.events import Acked, Connected, Disconnected

ENVOYS = 500
SNAPSHOT = Snapshot.of({CLUSTER: [Resource.from_bytes("a", b"content")]})


def _connected(stream: int, group: str = "") -> Connected:
    return Connected(stream=stream, node=Node(id=f"e{stream}"), group=group, protocol="delta", peer="")


def _acked(stream: int, group: str = "") -> Acked:
    return Acked(
        stream=stream,
        node=Node(id=f"e{stream}"),
        group=group,
        type=CLUSTER,
        version=SNAPSHOT.version(CLUSTER),
        versions={},
        removed=(),
        latency=0.0,
        convergence=0.0,
        release="",
    )


class _Counting(Fleet):
    """A fleet that counts how often the state of an Envoy is computed."""

    looks = 0

    def served(self, _release: str, _node: str) -> Snapshot:
        self.looks += 1
        return SNAPSHOT


def _fleet() -> _Counting:
    fleet = _Counting(lambda _group, _type, _name: None)
    for number in range(ENVOYS):
        fleet.observe(_connected(number))
    return fleet


async def test_waiting_for_all_envoys_costs_a_few_looks_at_each() -> None:
    fleet = _fleet()
    waiting = asyncio.create_task(fleet.until_current(fleet.served))
    for number in reversed(range(ENVOYS)):
        await asyncio.sleep(0)
        assert not waiting.done()
        fleet.observe(_acked(number))
    await waiting
    assert fleet.looks <= 4 * ENVOYS


async def test_an_envoy_that_disconnects_or_joins_is_no_longer_or_also_waited_for() -> None:
    fleet = _fleet()
    waiting = asyncio.create_task(fleet.until_current(fleet.served))
    await asyncio.sleep(0)
    fleet.observe(_connected(ENVOYS))
    for number in range(1, ENVOYS):
        fleet.observe(_acked(number))
    fleet.observe(Disconnected(stream=0, node=Node(id="e0"), group="", reason=""))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    fleet.observe(_acked(ENVOYS))
    await waiting


def test_a_group_has_acknowledged_only_if_it_has_members_and_all_of_them_have() -> None:
    fleet = _fleet()
    versions = {CLUSTER: SNAPSHOT.version(CLUSTER)}
    assert not fleet.has("servers", versions)
    fleet.observe(_connected(1000, "servers"))
    assert not fleet.has("servers", versions)
    fleet.observe(_acked(1000, "servers"))
    assert fleet.has("servers", versions)
    fleet.observe(Disconnected(stream=1000, node=Node(id="e1000"), group="servers", reason=""))
    assert not fleet.has("servers", versions)
