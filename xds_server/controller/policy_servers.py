"""Policy servers of Gateways: each Envoy has one beside it in its pod, and gets a change after its policy server has the rules."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from filters.policy_server import NODE_CLUSTER, POLICY_SERVER, SERVICE
from xds_server.control_plane.fleet import Fleet
from xds_server.control_plane.publication import ACK_TIMEOUT, rules_of
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.types import CLUSTER, ResourceType
from xds_server.serving.store import Store
from xds_server.translate.clusters import INTERNAL_SERVICES

log = logging.getLogger(__name__)

FOLDER = "/run/xds"
"""A folder that the containers of a pod share."""
ADDRESS = f"unix:{FOLDER}/policy-server.sock"
ADMIN = f"unix:{FOLDER}/policy-server-admin.sock"
"""The admin address of a policy server, which only its pod reaches: whoever may run commands there may purge and reset."""
INTERNAL = {**INTERNAL_SERVICES, SERVICE: ADDRESS}
"""The addresses at which the Envoys of Gateways reach our own services."""


def group_of(gateway: str) -> str:
    """Return the group of the policy servers of a Gateway."""
    return f"{NODE_CLUSTER}/{gateway}"


def needed(snapshot: Snapshot | None) -> bool:
    """True if a policy of a Gateway needs a policy server."""
    return snapshot is not None and POLICY_SERVER in snapshot[CLUSTER]


class RulesFirst:
    """Publishes Gateways: the rules to policy servers, and the rest to Envoys when the policy servers have them.

    Otherwise the first requests after a change would be rejected. Policy servers that do not answer in `ack_timeout` seconds,
    or that are not there yet, hold nothing up.
    """

    def __init__(self, store: Store, fleet: Fleet, *, ack_timeout: float = ACK_TIMEOUT) -> None:
        self._store, self._fleet, self._ack_timeout = store, fleet, ack_timeout
        self._newest: dict[str, Snapshot] = {}
        self._waiting: dict[str, asyncio.Task[None]] = {}

    def publish(self, gateway: str, snapshot: Snapshot) -> None:
        """Publish a Gateway. If an older state waits, this one takes its place."""
        self._newest[gateway] = snapshot
        servers = group_of(gateway)
        changed = False
        if needed(snapshot) or self._store.current(servers) is not None:
            changed = bool(self._store.publish(rules_of(snapshot), servers))
        if gateway in self._waiting:
            return
        if changed and self._fleet.states(lambda _release, _node: None, servers):
            self._waiting[gateway] = asyncio.create_task(self._later(gateway))
        else:
            self._to_envoys(gateway)

    def acknowledged(self, gateway: str) -> bool:
        """True if the policy servers of a Gateway have its rules, or if it needs none."""
        return not needed(self._newest.get(gateway)) or self._fleet.has(
            group_of(gateway), self._versions(gateway)
        )

    async def _later(self, gateway: str) -> None:
        try:
            async with asyncio.timeout(self._ack_timeout):
                await self._fleet.until_acknowledged(group_of(gateway), lambda: self._versions(gateway))
        except TimeoutError:
            log.warning("policy servers did not acknowledge their rules in time gateway=%s", gateway)
        finally:
            del self._waiting[gateway]
        self._to_envoys(gateway)

    def _versions(self, gateway: str) -> Mapping[ResourceType, str]:
        """Return the versions of the current rules, without those that no policy server takes."""
        current = self._store.current(group_of(gateway))
        return {} if current is None else {one: current.version(one) for one in current if current[one]}

    def _to_envoys(self, gateway: str) -> None:
        if self._store.publish(self._newest[gateway], gateway):
            log.info("published gateway=%s", gateway)
