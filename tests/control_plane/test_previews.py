"""Branches are followed while nodes of them are connected, and some time longer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from filters.policy_server import NODE_CLUSTER
from tests.support.git import WorkingTree
from xds_server.control_plane.compiler import Compiled
from xds_server.control_plane.fleet import Fleet
from xds_server.control_plane.previews import Parts, Previews
from xds_server.discovery.node import Node
from xds_server.discovery.snapshot import EMPTY
from xds_server.gateway.model.gateway import Sections
from xds_server.gateway.model.groups import Group, NodeMatch
from xds_server.local_services import LocalServices
from xds_server.serving.events import Connected, Disconnected
from xds_server.serving.session import NodeRejected
from xds_server.serving.store import Store
from xds_server.sources.git_repository import LocalRepository
from xds_server.sources.git_source import GitSource, Pace
from xds_server.translate.clusters import INTERNAL_SERVICES

YAML = "routes: {version: {path: /version, respond: {body: '1'}}}\nlisteners: {http: {port: 8080}}\n"
GROUPS = {"preview": Group(match=NodeMatch(id="preview-*"), ref="feature/*")}
LOGIN = Node(id="preview-login")
NAME = "preview/preview/feature/login"


class World:
    """Previews of a repository, with a clock that a test sets."""

    def __init__(self, root: Path, *, most: int = 32) -> None:
        tree = WorkingTree(root / "tree")
        tree.commit("First", gateway=YAML)
        tree.git("branch", "feature/login")
        self.store, self.now = Store(), 0.0
        services = LocalServices(xds="", addresses=INTERNAL_SERVICES, own={}, another_policy_server=None)
        parts = Parts(
            store=self.store,
            fleet=Fleet(lambda _group, _type, _name: None),
            services=services,
            branch=lambda ref: GitSource(
                "shop", LocalRepository(str(tree.path), "", ref), Pace(interval=0.05)
            ),
        )
        self.previews = Previews(parts, lambda: (), look=0.01, most=most, clock=lambda: self.now)
        self.store.observe(self.previews.observe)
        self.assign = self.previews.group_of(lambda node, _context: NODE_CLUSTER if node.cluster else "")

    async def declare(self, groups: dict[str, Group]) -> None:
        compiled = Compiled.__new__(Compiled)
        object.__setattr__(compiled, "gateway", type("Read", (), {"sections": Sections(groups=groups)}))
        await self.previews.declare(compiled)

    def connect(self, node: Node) -> str:
        group = self.assign(node, None)  # type: ignore[arg-type]
        assert isinstance(group, str)
        self.store.record(Connected(stream=1, node=node, group=group, protocol="delta", peer=""))
        return group

    def disconnect(self, node: Node, group: str) -> None:
        self.store.record(Disconnected(stream=1, node=node, group=group))

    async def until(self, served: bool) -> None:
        async with asyncio.timeout(30):
            while (self.store.current(NAME) is not None) is not served:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)


async def test_a_branch_is_given_up_some_time_after_its_last_node(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.declare(GROUPS)
    running = asyncio.create_task(world.previews.run())
    group = world.connect(LOGIN)
    assert group == NAME
    await world.until(served=True)
    world.disconnect(LOGIN, group)
    world.now = 599
    await asyncio.sleep(0.05)
    assert world.store.current(NAME) is not None
    world.now = 600
    await world.until(served=False)
    assert world.previews.as_json() == []
    world.connect(LOGIN)
    await world.until(served=True)
    running.cancel()
    await asyncio.wait({running})


async def test_only_so_many_branches_are_followed(tmp_path: Path) -> None:
    world = World(tmp_path, most=1)
    await world.declare(GROUPS)
    world.connect(LOGIN)
    assert world.connect(LOGIN) == NAME
    with pytest.raises(NodeRejected) as rejected:
        world.connect(Node(id="preview-other"))
    assert rejected.value.status == grpc.StatusCode.RESOURCE_EXHAUSTED
    for _ in range(2):
        world.disconnect(LOGIN, NAME)
    assert world.connect(Node(id="preview-other")) == "preview/preview/feature/other"
    assert [one["branch"] for one in world.previews.as_json()] == ["feature/other"]
    await next(iter(world.previews._followed.values())).stop()


async def test_a_restored_group_without_nodes_is_given_up_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.declare(GROUPS)
    kept = world.previews.saved()
    world.previews.groups = {}
    world.store.publish(EMPTY.replacing({}), NAME)
    world.previews.restore(kept)
    assert world.previews.groups == GROUPS
    running = asyncio.create_task(world.previews.run())
    world.now = 600
    await world.until(served=False)
    running.cancel()
    await asyncio.wait({running})


async def test_the_order_of_groups_counts(tmp_path: Path) -> None:
    world = World(tmp_path)
    other = Group(match=NodeMatch(id="preview-login"), ref="main")
    await world.declare({**GROUPS, "other": other})
    assert world.assign(LOGIN, None) == NAME  # type: ignore[arg-type]
    await world.declare({"other": other, **GROUPS})
    assert world.assign(LOGIN, None) == "preview/other/main"  # type: ignore[arg-type]


async def test_policy_servers_of_a_preview_belong_to_it_by_their_id(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.declare(GROUPS)
    assert world.assign(replace(LOGIN, cluster=NODE_CLUSTER), None) == f"{NODE_CLUSTER}/{NAME}"  # type: ignore[arg-type]
    own = Node(id=f"policy-server@{NAME}", cluster=NODE_CLUSTER)
    assert world.assign(own, None) == f"{NODE_CLUSTER}/{NAME}"  # type: ignore[arg-type]
    assert world.assign(Node(id="other", cluster=NODE_CLUSTER), None) == NODE_CLUSTER  # type: ignore[arg-type]
