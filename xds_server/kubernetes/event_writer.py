"""Writes Events: what is wrong with objects that have no conditions. Each is written once, and again before it expires.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from xds_server.errors import XdsError
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import Conflict, Invalid, NotFound
from xds_server.kubernetes.backoff import Backoff
from xds_server.kubernetes.resources import Key, Object, Resource

log = logging.getLogger(__name__)

EVENTS = Resource(plural="events", kind="Event")
RENEW = 3300.0
"""Seconds after which an Event is written again. The API server keeps it for an hour by default."""
MOST = 20
"""The maximum number of Events of one object. Whoever writes a large object must not fill the API server with them."""
_LONGEST_MESSAGE, _LONGEST_NAME = 1024, 200
_LOOK = 60.0
"""Seconds between two looks at what expires."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of an object. `uid` is that of the object, and `reason` a word for programs."""

    resource: Resource
    key: Key
    uid: str
    reason: str
    message: str

    @property
    def name(self) -> str:
        """The name of the Event without its time, which is the same in every replica."""
        digest = hashlib.sha256("\0".join((self.uid, self.reason, self.message)).encode()).hexdigest()
        return f"{self.key.name[:_LONGEST_NAME].rstrip('.-')}.{digest[:16]}"


def _bounded(told: Iterable[Told]) -> dict[str, Told]:
    """Return what is told by name. If there is too much of one object, the last Event says how much more."""
    of_objects: dict[tuple[Resource, Key, str], list[Told]] = {}
    for one in told:
        of_objects.setdefault((one.resource, one.key, one.uid), []).append(one)
    kept: list[Told] = []
    for (resource, key, uid), some in of_objects.items():
        if len(some) > MOST:
            message = f"{len(some) - MOST + 1} more things are wrong; correct the first ones"
            some = [*some[: MOST - 1], Told(resource, key, uid, "MoreFaults", message)]
        kept += some
    return {one.name: one for one in kept}


class EventWriter:
    """Writes what is wanted, as long as `leading` says so. `component` is the name of this controller."""

    def __init__(
        self,
        client: ApiClient,
        component: str,
        leading: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
        random: Callable[[], float] = random.random,
    ) -> None:
        self._client, self._component, self._leading = client, component, leading
        self._clock, self._wall, self._random = clock, wall, random
        self._wanted: dict[str, Told] = {}
        self._written: dict[str, float] = {}
        """When each was written."""
        self._wake = asyncio.Event()

    def want(self, told: Iterable[Told]) -> None:
        """Have exactly these Events written, at most `MOST` of one object. Those that are wanted no more stay until they expire."""
        self._wanted = _bounded({one.name: one for one in told}.values())
        self._written = {name: when for name, when in self._written.items() if name in self._wanted}
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        backoff = Backoff(self._random)
        while True:
            self._wake.clear()
            for told in self._due():
                try:
                    await self._write(told)
                    self._written[told.name] = self._clock()
                    backoff.reset()
                except XdsError as error:
                    log.warning("cannot write an Event yet object=%s reason=%s", told.key, error)
                    await asyncio.sleep(backoff.pause())
                    self._wake.set()
                    break
            try:
                async with asyncio.timeout(_LOOK):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _due(self) -> list[Told]:
        if not self._leading():
            return []
        due = self._clock() - RENEW
        return [one for name, one in self._wanted.items() if self._written.get(name, due) <= due]

    async def _write(self, told: Told) -> None:
        """Write an Event. Raises XdsError."""
        if told.name not in self._written:
            what = (told.resource.kind, told.key, told.reason, told.message)
            log.warning("an object is not served as it is object=%s %s reason=%s: %s", *what)
        try:
            await self._client.create(EVENTS, self._event(told))
        except (Conflict, NotFound):
            return  # another replica has written it, or its namespace is gone
        except Invalid as error:
            log.error("an Event was rejected reason=%s", error)

    def _event(self, told: Told) -> Object:
        now = self._wall().astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        namespace = told.key.namespace or "default"  # of objects without one
        metadata = {"name": f"{told.name}.{int(self._wall().timestamp() // RENEW):x}", "namespace": namespace}
        involved = {
            "apiVersion": told.resource.api_version,
            "kind": told.resource.kind,
            "name": told.key.name,
            "uid": told.uid,
            **({"namespace": told.key.namespace} if told.key.namespace else {}),
        }
        return {
            "metadata": metadata,
            "involvedObject": involved,
            "reason": told.reason,
            "message": told.message[:_LONGEST_MESSAGE],
            "type": "Warning",
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": self._component},
            "reportingComponent": self._component,
        }
