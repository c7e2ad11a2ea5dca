"""The publication of a compiled gateway: policy servers first, then the proof, then the Envoys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

from filters.policy_server import NODE_CLUSTER as POLICY_SERVERS
from filters.policy_server import internal_cluster
from xds_server.control_plane.compiler import Compiled
from xds_server.control_plane.fleet import Fleet
from xds_server.control_plane.prover import PROVING, Proof, Prover
from xds_server.discovery.snapshot import EMPTY, Snapshot
from xds_server.discovery.types import BY_URL, CLUSTER, ResourceType
from xds_server.serving.store import Store
from xds_server.translate import composer_entry, names
from xds_server.translate.composer_entry import NODE_CLUSTER as COMPOSERS
from xds_server.translate.translator import RULE_TYPES

log = logging.getLogger(__name__)

_COMPOSER = internal_cluster(composer_entry.SERVICE)
_COMPOSITIONS = RULE_TYPES[composer_entry.COMPOSITION.name]
ACK_TIMEOUT = 5.0
"""The maximum number of seconds that Envoys wait until policy servers have the rules."""


class Publication:
    """Publishes gateways in a store.

    `start` has functions that start our own services, by the name of their cluster. Each is called before a gateway
    with that cluster is published. Without one for policy servers, another operator runs them, and the publication does
    not wait for them: if a request arrives before its rule, the response is the same as for an unreachable policy
    server. Without `prover`, Envoys get unproved gateways. `group` is the group of the Envoys in the store; that of their
    policy servers ends with the same name. `ack_timeout` is in seconds.
    """

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        start: Mapping[str, Callable[[], Awaitable[None]]],
        prover: Prover | None = None,
        *,
        group: str = "",
        ack_timeout: float = ACK_TIMEOUT,
    ) -> None:
        self._store = store
        self._group = group
        self._policy_servers = f"{POLICY_SERVERS}/{group}" if group else POLICY_SERVERS
        self._composers = f"{COMPOSERS}/{group}" if group else COMPOSERS
        self._fleet = fleet
        self._start = start
        self._prover = prover
        self._ack_timeout = ack_timeout

    async def publish(self, compiled: Compiled) -> None:
        """Publish a gateway to policy servers and Envoys."""
        proof = await self.prepare(compiled.snapshot, rules_of(compiled.snapshot))
        self._store.publish(proof.snapshot, self._group, proved_by=self.proved_by, left_out=proof.rejected)
        await asyncio.sleep(0)  # streams send their responses before the control loop goes on

    @property
    def proved_by(self) -> str | None:
        """The group of the proving Envoy, None if there is none."""
        return PROVING if self._prover is not None else None

    async def prepare(self, snapshot: Snapshot, rules: Snapshot) -> Proof:
        """Give policy servers the rules, and prove the snapshot. Envoys get nothing."""
        _, proof = await asyncio.gather(self.inform(rules, snapshot), self._prove(snapshot))
        return proof

    async def resume(self) -> None:
        """Wait until policy servers have the restored gateway. Envoys already get it."""
        restored = self._store.current(self._group)
        if restored is not None:
            rules = (self._store.current(group) or EMPTY for group in (self._policy_servers, self._composers))
            await self._ensure(restored, *rules)

    async def _prove(self, snapshot: Snapshot) -> Proof:
        if self._prover is None:
            return Proof(snapshot=snapshot, judged=False)
        return await self._prover.prove(snapshot)

    async def inform(self, rules: Snapshot, snapshot: Snapshot) -> None:
        """Publish the rules of policy servers and composers, and wait until those have them that the snapshot needs."""
        of_policy_servers, of_composers = divided(rules)
        self._store.publish(of_policy_servers, self._policy_servers)
        self._store.publish(of_composers, self._composers)
        await self._ensure(snapshot, of_policy_servers, of_composers)

    async def _ensure(self, snapshot: Snapshot, of_policy_servers: Snapshot, of_composers: Snapshot) -> None:
        """Start the services that a snapshot needs, and wait until they have their rules."""
        needed = [cluster for cluster in self._start if cluster in snapshot[CLUSTER]]
        await asyncio.gather(*(self._start[cluster]() for cluster in needed))
        if names.POLICY_SERVER in needed:
            await self._until_acknowledged("policy servers", self._policy_servers, of_policy_servers)
        if _COMPOSER in needed:
            await self._until_acknowledged("composers", self._composers, of_composers)

    async def _until_acknowledged(self, who: str, group: str, rules: Snapshot) -> None:
        def served() -> Mapping[ResourceType, str]:
            """Return the versions without quarantined rules, which no client acknowledges."""
            current = self._store.current(group) or rules
            return {type_: current.version(type_) for type_ in rules if rules[type_]}

        try:
            async with asyncio.timeout(self._ack_timeout):
                await self._fleet.until_acknowledged(group, served)
        except TimeoutError:
            log.warning(
                "%s did not acknowledge their rules in time; Envoys get the gateway without waiting seconds=%.0f",
                who,
                self._ack_timeout,
            )


def divided(rules: Snapshot) -> tuple[Snapshot, Snapshot]:
    """Return the rules of policy servers, and those of composers."""
    others = [type_ for type_ in rules if type_ != _COMPOSITIONS]
    return _only(rules, others), _only(rules, [_COMPOSITIONS] if _COMPOSITIONS in rules else [])


def _only(snapshot: Snapshot, types: Iterable[ResourceType]) -> Snapshot:
    chosen = list(types)
    return Snapshot.of(
        {type_: snapshot[type_].values() for type_ in chosen},
        {type_: snapshot.version(type_) for type_ in chosen},
    )


def rules_of(snapshot: Snapshot) -> Snapshot:
    """Return the part of a snapshot that policy servers and composers get: our own types."""
    return _only(snapshot, (type_ for type_ in snapshot if type_.url not in BY_URL))


def joined_rules(first: Snapshot, second: Snapshot) -> Snapshot:
    """Return the rules of two snapshots. If both have a rule, that of `first` is served."""
    one, other = rules_of(first), rules_of(second)
    types = dict.fromkeys((*one, *other))
    return Snapshot.of({type_: {**other[type_], **one[type_]}.values() for type_ in types})
