"""The versions that this control plane serves in a rollout: it makes the store equal to what the record says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from xds_server.control_plane import rollout_steps as steps
from xds_server.control_plane.compiler import Compiled
from xds_server.control_plane.publication import ACK_TIMEOUT, Publication, joined_rules, rules_of
from xds_server.control_plane.rollout_record import Record
from xds_server.discovery.snapshot import Snapshot
from xds_server.gateway.model.rollout import NO_ROLLOUT, Rollout
from xds_server.serving.audiences import nobody
from xds_server.serving.services import ClientState
from xds_server.serving.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The version that was read last. `ordered` is true if an operator has chosen it."""

    version: str
    compiled: Compiled
    commit: str = ""
    ordered: bool = False


class RolloutServing:
    """Serves two versions: `stable` to most Envoys, and `candidate` to those up to a `bound`. Empty means none.

    `number` is that of the proposal of the candidate. `clients` returns the open streams. `adopted` is called with a
    gateway before it becomes the stable one, also if only what no Envoy is sent has changed in it.
    """

    def __init__(
        self,
        publication: Publication,
        store: Store,
        clients: Callable[[], Iterable[ClientState]],
        adopted: Callable[[Compiled], Awaitable[None]],
    ) -> None:
        self._adopted = adopted
        self.stable = self.candidate = ""
        self.bound = -1.0
        self.number = 0
        self._publication, self._store, self._clients = publication, store, clients
        self.section = NO_ROLLOUT
        """The section `rollout` of the stable version."""
        self._published: Compiled | None = None
        self._offered: Compiled | None = None

    def restore(self, stable: str, candidate: str, snapshot: Snapshot | None, record: Record) -> None:
        """Serve what was served before a restart. The store has the stable version already."""
        self.stable, self.bound, self.number = stable, record.bound, record.number
        if candidate and snapshot is not None and self._store.current() is not None:
            self.candidate = candidate
            self._store.offer(snapshot, chosen=self.is_chosen)

    async def follow(self, record: Record, newest: Newest | None) -> list[str]:
        """Serve what a record says, as far as its versions are known here. What is not known changes nothing.

        Returns what the proving Envoy has rejected of a new candidate, which no Envoy is served then: call it again with
        the record that follows from that.
        """
        state = record.state
        if state.stable != self.stable and self.candidate == state.stable:
            await self._promote()
        if newest is not None and newest.version == state.stable and newest.compiled is not self._published:
            await self._publish(newest, state.candidate)
        held: list[str] = []
        known = newest is not None and newest.version == state.candidate
        if state.candidate and self.stable == state.stable and newest is not None and known:
            held = await self._offer(newest, record)
        if self.candidate and self.candidate != state.candidate:
            await self._take_back()
        if self.candidate and not held and self.bound != record.bound:
            await self._choose(record.bound)
        return held

    def lacks(self, record: Record) -> str:
        """Return the version that should be served here and is not known here, or an empty text."""
        if record.state.stable != self.stable:
            return record.state.stable
        return record.state.candidate if record.state.candidate != self.candidate else ""

    def is_chosen(self, node: str) -> bool:
        """True if a node is served the candidate, if there is one."""
        return steps.position(node) <= self.bound

    def section_for(self, newest: Rollout) -> Rollout:
        """Return the section `rollout` that counts: that of the stable version if the newest has none.

        Otherwise a mistake that loses the section would reach all Envoys at once.
        """
        return newest if newest.declared else self.section

    def version_of(self, node: str) -> str:
        """Return the version that a node is served, "" before the first one."""
        return self.candidate if self.candidate and self.is_chosen(node) else self.stable

    def envoys(self) -> dict[str, bool]:
        """Return whether each connected Envoy has what it is served. An Envoy may have several streams."""
        found: dict[str, bool] = {}
        for client in self._clients():
            if not client.group:
                found[client.node] = client.current and found.get(client.node, True)
        return found

    def rules(self) -> Snapshot:
        """Return the rules that policy servers need now. Until all Envoys have the candidate, a rule of the stable version is
        served if both versions have it."""
        stable, candidate = self._store.current(), self._store.candidate()
        assert stable is not None
        if candidate is None:
            return rules_of(stable)
        return joined_rules(candidate, stable) if self.bound >= 1 else joined_rules(stable, candidate)

    async def _publish(self, newest: Newest, candidate: str) -> None:
        await self._adopted(newest.compiled)
        await self._publication.publish(newest.compiled)
        if self.candidate and self.candidate != candidate:
            self._forget_candidate()
        self.stable = newest.version
        self._take(newest.compiled)

    async def _offer(self, newest: Newest, record: Record) -> list[str]:
        """Serve the candidate, if it is not served yet in this form."""
        goes_on = newest.version == self.candidate
        if goes_on and newest.compiled is self._offered:
            return []
        stable = self._store.current()
        assert stable is not None
        snapshot = newest.compiled.snapshot
        proof = await self._publication.prepare(snapshot, joined_rules(stable, snapshot))
        if not goes_on:
            self.bound = -1.0
        self._store.offer(
            proof.snapshot,
            chosen=self.is_chosen if goes_on else nobody,
            proved_by=self._publication.proved_by,
            left_out=proof.rejected,
        )
        self.candidate, self._offered, self.number = newest.version, newest.compiled, record.number
        rejected = () if goes_on else self._store.held_of_candidate()
        if not goes_on and not rejected:
            await self._choose(record.bound)
        return [f"{held.type.name} {held.name}: {held.message}" for held in rejected]

    async def _choose(self, bound: float) -> None:
        before, self.bound = self.bound, bound
        if bound >= 1 > before:
            await self._inform()
        self._store.choose(self.is_chosen)

    async def adopt(self, version: str, compiled: Compiled) -> None:
        """A gateway was read. If it has the content of the stable one, it is that from now on."""
        if version == self.stable:
            await self._adopted(compiled)
            self._take(compiled)

    def _take(self, compiled: Compiled | None) -> None:
        self._published = compiled
        if compiled is not None:
            self.section = compiled.gateway.sections.rollout

    async def _promote(self) -> None:
        if self._offered is not None:
            await self._adopted(self._offered)
        self._store.promote()
        self.stable = self.candidate
        self._take(self._offered)
        self.candidate, self._offered = "", None
        await self._inform_later()

    async def _take_back(self) -> None:
        self._forget_candidate()
        await self._inform_later()

    def _forget_candidate(self) -> None:
        self._store.take_back()
        self.candidate, self._offered = "", None

    async def _inform_later(self) -> None:
        """Give policy servers the rules of what is served, when Envoys use them no other way."""
        try:
            async with asyncio.timeout(ACK_TIMEOUT):
                while not all(self.envoys().values()):  # noqa: ASYNC110 - streams have no common event
                    await asyncio.sleep(0.02)
        except TimeoutError:
            log.warning("not every Envoy has the version that it should have; rules change without waiting")
        await self._inform()

    async def _inform(self) -> None:
        """Give policy servers the rules of what is served now."""
        current = self._store.current()
        if current is not None:
            await self._publication.inform(self.rules(), current)


def current_rollout(newest: Compiled | None) -> Rollout:
    """Return the section `rollout` of a gateway, an empty one if there is no gateway."""
    return newest.gateway.sections.rollout if newest is not None else NO_ROLLOUT
