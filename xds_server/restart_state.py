"""What `xds run` keeps in the state file, and serves again after a restart."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from filters.policy_server import SUBSCRIBERS_CLUSTER
from xds_server.control_plane.previews import Previews
from xds_server.control_plane.progressive_rollout import ProgressiveRollout
from xds_server.control_plane.prover import PROVING
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER
from xds_server.serving.persistence import LastGood
from xds_server.serving.store import Store
from xds_server.translate.clusters import internal_service

log = logging.getLogger(__name__)


def restore(
    path: Path,
    store: Store,
    addresses: Mapping[str, str],
    rollout: ProgressiveRollout,
    previews: Previews,
    stack: AsyncExitStack,
) -> bool:
    """Serve the snapshots of before the restart until the folder has been read. Returns True if there were any.

    Our own services are at `addresses` now, which change with each start if this process starts the services.
    """
    services = [Resource.of(internal_service(name, address)) for name, address in addresses.items()]

    def here(snapshot: Snapshot) -> Snapshot:
        moved = {one.name: one for one in services if one.name in snapshot[CLUSTER]}
        return snapshot.replacing({CLUSTER: {**snapshot[CLUSTER], **moved}}) if moved else snapshot

    def more() -> Mapping[str, Snapshot]:
        return {**rollout.saved(), **previews.saved()}

    def take(further: Mapping[str, Snapshot]) -> None:
        rollout.restore(further)
        previews.restore(further)

    kept = LastGood(path, store, without=(PROVING, SUBSCRIBERS_CLUSTER), adapt=here, more=more, take=take)
    rollout.changed, rollout.kept, previews.changed = kept.write, True, kept.write
    restored = kept.restore()
    if restored:
        log.info("serving the last good gateway until the folder has been read file=%s", path)
    store.observe(kept.observe)
    stack.push_async_callback(kept.close)
    return restored
