"""What `xds run` keeps in the state file, and serves again after a restart."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from envoy.config.listener.v3 import listener_pb2

from filters.policy_server import SUBSCRIBERS_CLUSTER
from xds_server.control_plane.previews import Previews
from xds_server.control_plane.progressive_rollout import ProgressiveRollout
from xds_server.control_plane.prover import PROVING
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, LISTENER
from xds_server.local_services import LocalServices
from xds_server.serving.persistence import LastGood
from xds_server.serving.store import Store
from xds_server.translate.clusters import internal_service
from xds_server.translate.composer_entry import CALLS
from xds_server.translate.compositions import calls_address

log = logging.getLogger(__name__)


def restore(
    path: Path,
    store: Store,
    here: LocalServices,
    rollout: ProgressiveRollout,
    previews: Previews,
    stack: AsyncExitStack,
) -> bool:
    """Serve the snapshots of before the restart until the folder has been read. Returns True if there were any.

    Our own services are where `here` says, which changes with each start if this process starts the services.
    """
    services = [Resource.of(internal_service(name, address)) for name, address in here.addresses.items()]

    def moved(snapshot: Snapshot) -> Snapshot:
        clusters = {one.name: one for one in services if one.name in snapshot[CLUSTER]}
        if not clusters:
            return snapshot
        calls = snapshot[LISTENER].get(CALLS)
        listeners = {} if calls is None else {CALLS: _listening(calls, here.composer_calls)}
        return snapshot.replacing(
            {
                CLUSTER: {**snapshot[CLUSTER], **clusters},
                LISTENER: {**snapshot[LISTENER], **listeners},
            }
        )

    def more() -> Mapping[str, Snapshot]:
        return {**rollout.saved(), **previews.saved()}

    def take(further: Mapping[str, Snapshot]) -> None:
        rollout.restore(further)
        previews.restore(further)

    kept = LastGood(path, store, without=(PROVING, SUBSCRIBERS_CLUSTER), adapt=moved, more=more, take=take)
    rollout.changed, rollout.kept, previews.changed = kept.write, True, kept.write
    restored = kept.restore()
    if restored:
        log.info("serving the last good gateway until the folder has been read file=%s", path)
    store.observe(kept.observe)
    stack.push_async_callback(kept.close)
    return restored


def _listening(resource: Resource, address: str) -> Resource:
    """Return a listener at another address."""
    message = listener_pb2.Listener.FromString(resource.body)
    message.address.CopyFrom(calls_address(address))
    return Resource.of(message)
