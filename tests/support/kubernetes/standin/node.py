"""What the parts of the stand-in share: the API server, local copies of some kinds, and writes that are sent once."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import subprocess
from pathlib import Path
from typing import Any

from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.resources import Key, Object, Resource
from xds_server.kubernetes.watch_cache import WatchCache

log = logging.getLogger(__name__)

NAME, ADDRESS = "node", "10.244.0.1"
"""The only node, and its address in the network namespace."""
MANAGER = "standin"
NAMESPACES = Resource(plural="namespaces", kind="Namespace", namespaced=False)
NODES = Resource(plural="nodes", kind="Node", namespaced=False)
PODS = Resource(plural="pods", kind="Pod")
SERVICES = Resource(plural="services", kind="Service")
SECRETS = Resource(plural="secrets", kind="Secret")
SERVICE_ACCOUNTS = Resource(plural="serviceaccounts", kind="ServiceAccount")
CONFIG_MAPS = Resource(plural="configmaps", kind="ConfigMap")
DEPLOYMENTS = Resource(group="apps", plural="deployments", kind="Deployment")
SLICES = Resource(group="discovery.k8s.io", plural="endpointslices", kind="EndpointSlice")
GATEWAYS = Resource(group="gateway.networking.k8s.io", plural="gateways", kind="Gateway")
OWNED = (DEPLOYMENTS, SERVICES, SERVICE_ACCOUNTS, CONFIG_MAPS)
"""The kinds of objects that belong to a Gateway."""
_FOLLOWED = (NAMESPACES, PODS, SLICES, GATEWAYS, *OWNED)


class Node:
    """The shared state. `dirty` is set when something has changed and everything is looked at again."""

    def __init__(self, client: ApiClient, folder: Path) -> None:
        self.client, self.folder = client, folder
        self.dirty = asyncio.Event()
        self.caches: dict[Resource, WatchCache[Object]] = {
            resource: WatchCache(client, resource, lambda object_: object_, self._changed)
            for resource in _FOLLOWED
        }
        self._written: dict[object, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def _changed(self, key: Key, before: Object | None, after: Object | None) -> None:
        self.dirty.set()

    def items(self, resource: Resource) -> list[tuple[Key, Object]]:
        """Return the objects of a kind, in a list that does not change."""
        return list(self.caches[resource].items.items())

    def later(self, seconds: float = 0.2) -> None:
        """Look at everything again after some seconds."""
        asyncio.get_running_loop().call_later(seconds, self.dirty.set)

    def spawn(self, work: Any) -> None:
        """Run a coroutine beside the loop, which looks at everything again when it ends."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.dirty.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work beside the loop failed", exc_info=error)

    def differs(self, name: object, value: object) -> bool:
        """Return true if this is another value than the last one that `wrote` has taken for a name."""
        return self._written.get(name) != json.dumps(value, sort_keys=True)

    def wrote(self, name: object, value: object) -> None:
        """Remember what was written."""
        self._written[name] = json.dumps(value, sort_keys=True)

    async def status(self, resource: Resource, key: Key, uid: str, status: Object) -> None:
        """Write the status of an object, if it is another one than before."""
        if self.differs((resource, uid), status):
            await self.client.merge_patch(
                resource, key, {"status": status}, manager=MANAGER, subresource="status"
            )
            self.wrote((resource, uid), status)


def now() -> str:
    """Return the time as objects have it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def deleting(object_: Object) -> bool:
    """Return true if an object is being deleted."""
    return bool(object_["metadata"].get("deletionTimestamp"))


def call(*command: str, text: str = "") -> str:
    """Run a command and return its output. Raises RuntimeError with its error."""
    done = subprocess.run(command, capture_output=True, text=True, input=text, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")
    return done.stdout
