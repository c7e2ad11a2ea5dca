"""Previews: branches that are served to groups of nodes beside the gateway itself, each on its own last good commit.

A branch is followed while a node of it is connected, and some time longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import grpc

from filters.policy_server import NODE_CLUSTER as POLICY_SERVERS
from filters.policy_server import SERVICE, internal_cluster
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.control_plane.control_loop import ControlLoop, GatewayState, JudgedVersion
from xds_server.control_plane.fleet import Fleet
from xds_server.control_plane.preview_bindings import PREFIX, Binding, NoBranch, binding, restored, saved
from xds_server.control_plane.publication import Publication
from xds_server.discovery.node import Node
from xds_server.discovery.snapshot import Snapshot
from xds_server.gateway.model.groups import Group
from xds_server.local_services import LocalServices, OwnService
from xds_server.serving.events import Connected, Disconnected, Event
from xds_server.serving.services import Services
from xds_server.serving.session import Context, GroupOf, NodeRejected
from xds_server.serving.store import Store
from xds_server.sources.branch_source import Allowed, BranchSource
from xds_server.sources.gateway_folder import FolderReader, GatewayFolder
from xds_server.sources.source import Source
from xds_server.translate.route_trees import DEFAULT, Shape

log = logging.getLogger(__name__)

LINGER = 600.0
"""Seconds for which a branch is followed without a node."""
MOST = 32
"""Branches that are followed at the same time. Each has its own translation, and a policy server if it needs one."""
_LOOK = 5.0
"""Seconds between two looks for branches without a node."""
_OWN = f"policy-server@{PREFIX}"
"""The beginning of the node ids of policy servers that this process starts for previews."""


class Branch(Source, Protocol):
    """A source that can be told to look at once."""

    def notify(self) -> None:
        """Fetch at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What previews are made of. `branch` makes the source of a ref, and is None if the gateway is not in git.

    `gateway` names the Gateway that is served, if the folder has Kubernetes manifests. `judged` is called with each
    version of a branch.
    """

    store: Store
    fleet: Fleet
    services: LocalServices
    branch: Callable[[str], Branch] | None
    gateway: tuple[str, str] | None = None
    shape: Shape = DEFAULT
    judged: Callable[[Binding, JudgedVersion], None] = lambda _of, _verdict: None


class Preview:
    """A branch that is followed. `streams` are those of its Envoys, and `idle_since` is when the last one ended."""

    def __init__(self, of: Binding, group: Group, parts: Parts) -> None:
        assert parts.branch is not None
        self.of, self.group = of, group
        self.streams = 0
        self.idle_since: float | None = None
        self._policy_server: OwnService | None = None
        addresses, start = dict(parts.services.addresses), dict[str, Callable[[], Awaitable[None]]]()
        if group.policy_server is not None:
            addresses[SERVICE] = group.policy_server
        elif parts.services.another_policy_server is not None:
            self._policy_server = parts.services.another_policy_server(f"policy-server@{of.name}")
            addresses[SERVICE] = self._policy_server.address
            start[internal_cluster(SERVICE)] = self._policy_server.ensure
        self.source = parts.branch(f"refs/heads/{of.branch}")
        allowed = Allowed(environment=group.environment, files=group.files, python=group.python)
        self.control = ControlLoop(
            BranchSource(GatewayFolder(self.source, FolderReader(parts.gateway)), allowed),
            Compiler(internal_services=addresses, shape=parts.shape, metered=False, composed=False),
            Publication(parts.store, parts.fleet, start, group=of.name).publish,
            judged=lambda verdict: parts.judged(of, verdict),
            label=f"preview of {of.branch}",
        )
        self.control.serving.restored = parts.store.current(of.name) is not None
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        try:
            await self.control.run()
        except Exception:
            log.exception("the preview of %s ended: this is a fault of xds, please report it", self.of.branch)

    async def stop(self) -> None:
        """Stop following the branch. What is served stays."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._policy_server is not None:
            await self._policy_server.process.stop()

    def as_json(self) -> dict[str, Any]:
        """The state for machines."""
        state = self.control.serving
        return {
            "group": self.of.group,
            "branch": self.of.branch,
            "healthy": state.healthy,
            "serving": state.something,
            "served_since": state.since or None,
            "commit": asdict(state.version) if state.version is not None else None,
            "newest": asdict(state.newest) if state.newest is not None else None,
            "problems": [*map(str, state.problems), *([state.unreadable] if state.unreadable else [])],
            "streams": self.streams,
        }


class Previews:
    """Binds nodes to branches, and follows the branches. Use it in the thread of the event loop.

    `services` returns those whose clients connect again if the groups change. `changed` is called if there is something
    new to keep over a restart. `clock`, `linger` and `look` are in seconds.
    """

    def __init__(
        self,
        parts: Parts,
        services: Callable[[], Iterable[Services]],
        *,
        linger: float = LINGER,
        look: float = _LOOK,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.groups: Mapping[str, Group] = {}
        self.changed: Callable[[], None] = lambda: None
        self._parts, self._services, self._clock = parts, services, clock
        self._linger, self._look, self._most = linger, look, most
        self._followed: dict[str, Preview] = {}
        self._ending = set[asyncio.Task[None]]()
        self._left: dict[str, float] = {}
        """Groups of before a restart whose branch is not followed, with the time since when."""

    async def declare(self, compiled: Compiled) -> None:
        """Bind nodes by the groups of a gateway, in their order. Nodes of another group than before connect again."""
        groups = compiled.gateway.sections.groups
        if list(groups.items()) == list(self.groups.items()):
            return
        if self._parts.branch is None:
            log.warning("'groups' need a gateway in git; every node is served the folder until then")
            self.groups = {}
            return
        self.groups = groups
        for services in self._services():
            services.reconnect(self._misplaced)
        for preview in list(self._followed.values()):
            group = groups.get(preview.of.group)
            if group is not None and group != preview.group:
                await preview.stop()
                self._follow(preview.of, preview)
        self.changed()

    def group_of(self, base: GroupOf) -> GroupOf:
        """Return a function that assigns groups: `base` decides whether a node is served, and the groups what."""

        def assigned(node: Node, context: Context) -> str | None:
            group = base(node, context)
            assert not isinstance(group, Awaitable)
            if group not in ("", POLICY_SERVERS):
                return group
            return self._bound(group, node)

        return assigned

    def _bound(self, group: str, node: Node) -> str:
        if group == POLICY_SERVERS and node.id.startswith(_OWN):
            return f"{POLICY_SERVERS}/{node.id.partition('@')[2]}"
        try:
            found = binding(self.groups, node)
        except NoBranch as error:
            raise NodeRejected(grpc.StatusCode.PERMISSION_DENIED, str(error)) from None
        if found is None:
            return group
        if group == POLICY_SERVERS:
            return found.policy_servers
        if found.name not in self._followed and len(self._followed) >= self._most and not self._idle():
            message = f"{self._most} branches are previewed already, which is the most"
            raise NodeRejected(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        return found.name

    def _misplaced(self, group: str, node: Node) -> bool:
        """True if a client belongs to another group than it is served."""
        base = POLICY_SERVERS if node.cluster == POLICY_SERVERS else ""
        if group not in ("", POLICY_SERVERS) and not group.startswith((PREFIX, f"{POLICY_SERVERS}/{PREFIX}")):
            return False
        try:
            return self._bound(base, node) != group
        except NodeRejected:
            return True

    def observe(self, event: Event) -> None:
        """Follow the branches of connected Envoys."""
        if not isinstance(event, Connected | Disconnected) or not event.group.startswith(PREFIX):
            return
        preview = self._followed.get(event.group)
        if isinstance(event, Connected):
            found = binding(self.groups, event.node) if preview is None else preview.of
            assert found is not None
            preview = preview or self._follow(found)
            preview.streams += 1
            preview.idle_since = None
        elif preview is not None:
            preview.streams -= 1
            preview.idle_since = self._clock() if not preview.streams else None

    def _idle(self) -> list[str]:
        """Return the branches without a node, the longest first."""
        idle = {name: one.idle_since for name, one in self._followed.items() if one.idle_since is not None}
        return sorted(idle, key=lambda name: idle[name])

    def _follow(self, of: Binding, before: Preview | None = None) -> Preview:
        self._left.pop(of.name, None)
        if of.name not in self._followed and len(self._followed) >= self._most:
            ending = asyncio.create_task(self._give_up(self._idle()[0]).stop())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        made = self._followed[of.name] = Preview(of, self.groups[of.group], self._parts)
        if before is not None:
            made.control.serving.version = before.control.serving.version
            made.streams = before.streams
        made.idle_since = None if made.streams else self._clock()
        log.info("preview begins branch=%s group=%s", of.branch, of.group)
        return made

    def notify(self) -> None:
        """Fetch all branches at once, because somebody says that there is a new commit."""
        for preview in self._followed.values():
            preview.source.notify()

    async def run(self) -> None:
        """Give up branches without nodes, until cancelled. At the end, none is followed, and what is served stays."""
        try:
            while True:
                await asyncio.sleep(self._look)
                await self._sweep()
        finally:
            for preview in self._followed.values():
                await preview.stop()

    async def _sweep(self) -> None:
        before = self._clock() - self._linger
        for name, preview in list(self._followed.items()):
            if preview.idle_since is not None and preview.idle_since <= before:
                await self._give_up(name).stop()
        for name in [name for name, since in self._left.items() if since <= before]:
            del self._left[name]
            self._withdraw(name)

    def _give_up(self, name: str) -> Preview:
        preview = self._followed.pop(name)
        self._withdraw(name)
        log.info("preview ends, because no Envoy is connected branch=%s", preview.of.branch)
        return preview

    def _withdraw(self, name: str) -> None:
        for group in (name, f"{POLICY_SERVERS}/{name}"):
            self._parts.store.withdraw(group)
        self.changed()

    def serving(self, group: str) -> GatewayState | None:
        """Return the state of the branch that a group of the store is served, None if it is no group of a preview."""
        name = group.removeprefix(f"{POLICY_SERVERS}/")
        if not name.startswith(PREFIX):
            return None
        preview = self._followed.get(name)
        return preview.control.serving if preview is not None else GatewayState(name)

    def states(self) -> list[GatewayState]:
        """Return the states of all branches that are followed. It may be called in any thread."""
        return [preview.control.serving for preview in list(self._followed.values())]

    def as_json(self) -> list[dict[str, Any]]:
        """The state for machines."""
        return [preview.as_json() for _, preview in sorted(self._followed.items())]

    def saved(self) -> Mapping[str, Snapshot]:
        """Return what is kept over a restart, beside what the groups are served."""
        return saved(self.groups)

    def restore(self, kept: Mapping[str, Snapshot]) -> None:
        """Bind nodes as before a restart."""
        try:
            self.groups = restored(kept)
        except ValueError as error:
            log.warning("the groups of before cannot be read; there are none error=%s", error)
        now = self._clock()
        self._left = {name: now for name in self._parts.store.groups if name.startswith(PREFIX)}
