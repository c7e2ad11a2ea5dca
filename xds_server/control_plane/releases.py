"""The resources that an older Envoy is not served, with their place in the gateway."""

from __future__ import annotations

from xds_server.control_plane.control_loop import GatewayState
from xds_server.discovery.snapshot import Snapshot
from xds_server.serving.events import Held
from xds_server.serving.store import Adapted
from xds_server.translate import releases


def adapted(gateway: GatewayState, snapshot: Snapshot, release: str) -> Adapted:
    """Return a snapshot without the resources that a release of Envoy does not support, and these resources."""
    served, lacks = releases.adapted(snapshot, release)
    return served, tuple(
        Held(
            type=lack.type,
            name=lack.name,
            version=lack.version,
            standing=None,
            message=lack.message,
            node="",
            place=str(gateway.place(lack.path) or ""),
            origin=lack.path,
            closed=lack.closed,
            release=release,
        )
        for lack in lacks
    )
