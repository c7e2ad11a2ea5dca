"""A compiled gateway to those who serve it: policy servers first, then a proof, then the Envoys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from filters.policy_server import NODE_CLUSTER as POLICY_SERVERS
from xds_server.control_plane.compiler import Compiled
from xds_server.control_plane.fleet import Fleet
from xds_server.control_plane.prover import PROVING, Proof, Prover
from xds_server.discovery.snapshot import EMPTY, Snapshot
from xds_server.discovery.types import BY_URL, CLUSTER, ResourceType
from xds_server.serving.store import Store
from xds_server.translate import names

log = logging.getLogger(__name__)

ACK_TIMEOUT = 5.0
"""Seconds that Envoys wait at most until policy servers have the rules."""


class Rollout:
    """Publishes gateways in a store. `ensure_policy_server` starts policy servers; it is called when a gateway first wants one.

    Without `ensure_policy_server` nobody waits: policy servers are run by someone else, and a request that comes before its rule is
    answered as if they were away. Without `prover` Envoys get what nobody has judged. `ack_timeout` is in seconds.
    """

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        ensure_policy_server: Callable[[], Awaitable[None]] | None,
        prover: Prover | None = None,
        *,
        ack_timeout: float = ACK_TIMEOUT,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._need = ensure_policy_server
        self._prover = prover
        self._ack_timeout = ack_timeout

    async def publish(self, compiled: Compiled) -> None:
        """Bring everybody to a gateway."""
        proved_by = PROVING if self._prover is not None else None
        _, proof = await asyncio.gather(self._inform(compiled.snapshot), self._prove(compiled.snapshot))
        self._store.publish(proof.snapshot, proved_by=proved_by, left_out=proof.rejected)

    async def resume(self) -> None:
        """Bring policy servers to what was restored after a restart; Envoys ask for it already."""
        restored = self._store.current()
        if self._need is not None and restored is not None and names.POLICY_SERVER in restored[CLUSTER]:
            await self._need()
            await self._until_they_have(self._store.current(POLICY_SERVERS) or EMPTY)

    async def _prove(self, snapshot: Snapshot) -> Proof:
        if self._prover is None:
            return Proof(snapshot=snapshot, judged=False)
        return await self._prover.prove(snapshot)

    async def _inform(self, snapshot: Snapshot) -> None:
        """Bring the policy servers to their rules."""
        rules = _rules(snapshot)
        self._store.publish(rules, POLICY_SERVERS)
        if self._need is not None and names.POLICY_SERVER in snapshot[CLUSTER]:
            await self._need()
            await self._until_they_have(rules)

    async def _until_they_have(self, rules: Snapshot) -> None:
        def served() -> Mapping[ResourceType, str]:
            """Without what is quarantined, which nobody will acknowledge."""
            current = self._store.current(POLICY_SERVERS) or rules
            return {type_: current.version(type_) for type_ in rules if rules[type_]}

        try:
            async with asyncio.timeout(self._ack_timeout):
                await self._fleet.until_acknowledged(POLICY_SERVERS, served)
        except TimeoutError:
            log.warning(
                "policy servers did not take the rules in %.0fs; Envoys go on without waiting",
                self._ack_timeout,
            )


def _rules(snapshot: Snapshot) -> Snapshot:
    """What of a snapshot is for policy servers: the types of our own."""
    types = [type_ for type_ in snapshot if type_.url not in BY_URL]
    return Snapshot.of(
        {type_: snapshot[type_].values() for type_ in types},
        {type_: snapshot.version(type_) for type_ in types},
    )
