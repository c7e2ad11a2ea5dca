"""A compiled gateway to those who serve it: the policy servers have its rules before Envoys send them requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from xds_server.compiler import Compiled
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.types import BY_URL, CLUSTER
from xds_server.fleet import Fleet
from xds_server.policy_server.run import CLUSTER as POLICY_SERVERS
from xds_server.serving.store import Store
from xds_server.translate import names

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that Envoys wait at most for policy servers to have the rules."""


class Rollout:
    """Publishes gateways in a store. `need` starts policy servers; it is called when a gateway first wants one.

    Without `need` nobody waits: policy servers are run by someone else, and a request that comes before its rule is
    answered as if they were away.
    """

    def __init__(self, store: Store, fleet: Fleet, need: Callable[[], Awaitable[None]] | None) -> None:
        self._store = store
        self._fleet = fleet
        self._need = need

    async def publish(self, compiled: Compiled) -> None:
        """Bring everybody to a gateway."""
        rules = _rules(compiled.snapshot)
        self._store.publish(rules, POLICY_SERVERS)
        if self._need is not None and names.POLICY_SERVER in compiled.snapshot[CLUSTER]:
            await self._need()
            await self._until_they_have(rules)
        self._store.publish(compiled.snapshot)

    async def _until_they_have(self, rules: Snapshot) -> None:
        def served() -> Mapping[str, str]:
            """Without what is quarantined, which nobody will acknowledge."""
            current = self._store.current(POLICY_SERVERS) or rules
            return {type_.name: current.version(type_) for type_ in rules if rules[type_]}

        try:
            async with asyncio.timeout(PATIENCE):
                await self._fleet.until_acknowledged(POLICY_SERVERS, served)
        except TimeoutError:
            log.warning(
                "policy servers did not take the rules in %.0fs; Envoys go on without waiting", PATIENCE
            )


def _rules(snapshot: Snapshot) -> Snapshot:
    """What of a snapshot is for policy servers: the types of our own."""
    types = [type_ for type_ in snapshot if type_.url not in BY_URL]
    return Snapshot.of(
        {type_: snapshot[type_].values() for type_ in types},
        {type_: snapshot.version(type_) for type_ in types},
    )
