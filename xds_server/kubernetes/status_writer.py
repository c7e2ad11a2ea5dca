"""Writes the status of objects, and bounds the writes: only differences, a number a second, the newest for each object."""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from xds_server.errors import XdsError
from xds_server.kubernetes import status
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import Conflict, Invalid, NotFound
from xds_server.kubernetes.backoff import Backoff
from xds_server.kubernetes.resources import Key, Object, Resource

log = logging.getLogger(__name__)

PER_SECOND, AT_ONCE = 200.0, 8
"""Requests in a second, and those that are under way at the same time."""
CONFLICTS = 5
"""Attempts for one object that other controllers keep writing, before it is its turn again later."""
_Name = tuple[Resource, Key]


@dataclass(frozen=True, slots=True)
class _Wanted:
    status: Object
    current: Object | None
    first: bool


class _NotLeading(Exception):  # noqa: N818 - it is not an error
    """Another process leads since a moment ago."""


class StatusWriter:
    """Writes what is wanted, as long as `leading` says so. What is wanted meanwhile waits, one status for each object.

    `controller` is the name of our GatewayClasses, and is the field manager too. A status with `parents` or `ancestors`
    is written by a merge patch with the version of the object, and keeps the entries of other controllers. Any other
    one is applied on the server, so that each manager has its own conditions and listeners. An empty one takes back what this
    controller has written.
    """

    def __init__(
        self,
        client: ApiClient,
        controller: str,
        leading: Callable[[], bool] = lambda: True,
        *,
        per_second: float = PER_SECOND,
        at_once: int = AT_ONCE,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
        random: Callable[[], float] = random.random,
    ) -> None:
        self._client, self._controller, self._leading = client, controller, leading
        self._interval, self._at_once = 1 / per_second, at_once
        self._clock, self._wall, self._random = clock, wall, random
        self._pending: dict[_Name, _Wanted] = {}
        self._first: dict[_Name, None] = {}
        """Those of `_pending` that do not wait for the others, in their order."""
        self._writing: set[_Name] = set()
        self._applied: dict[_Name, Object] = {}
        self._next = 0.0
        self._wake = asyncio.Event()
        self.written = 0
        """Writes that the API server accepted."""

    def want(
        self,
        resource: Resource,
        key: Key,
        wanted: Object,
        current: Object | None = None,
        *,
        first: bool = False,
    ) -> None:
        """Have the status of an object be `wanted`, which replaces what was wanted of this object before.

        Those that are wanted `first` do not wait for thousands of others.

        Conditions have no `lastTransitionTime`, and entries of `parents` and `ancestors` have no `controllerName`: both
        are added. `current` is the object as it was last seen, with `metadata.resourceVersion` and `status`; without
        it, the object is read.
        """
        self._put((resource, key), _Wanted(wanted, current, first))
        self._wake.set()

    def _put(self, name: _Name, wanted: _Wanted) -> None:
        self._pending[name] = wanted
        if wanted.first:
            self._first[name] = None

    def _name(self) -> _Name | None:
        """Return the object whose status is written next, or None."""
        waiting = (
            name
            for names in (self._first, self._pending)
            for name in names
            if name not in self._writing and name in self._pending
        )
        return next(waiting, None)

    def forget(self, resource: Resource, key: Key) -> None:
        """Take back what was wanted of an object, because it is deleted."""
        self._pending.pop((resource, key), None)
        self._first.pop((resource, key), None)
        self._applied.pop((resource, key), None)

    def resume(self) -> None:
        """Look again whether this process leads."""
        self._wake.set()

    @property
    def idle(self) -> bool:
        """True if nothing waits and nothing is being written."""
        return not self._pending and not self._writing

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._at_once):
                tasks.create_task(self._work())

    async def _work(self) -> None:
        backoff = Backoff(self._random)
        while True:
            name = self._name()
            if name is None or not self._leading():
                self._wake.clear()
                await self._wake.wait()
                continue
            wanted = self._pending.pop(name)
            self._first.pop(name, None)
            self._writing.add(name)
            try:
                await self._write(name, wanted)
                backoff.reset()
            except _NotLeading:
                self._again(name, wanted)
            except NotFound:
                self.forget(*name)
            except Invalid as error:
                log.error("a status was rejected; the object keeps its old one reason=%s", error)
            except XdsError as error:
                self._again(name, replace(wanted, current=None))
                log.warning("cannot write a status yet object=%s %s reason=%s", name[0], name[1], error)
                await asyncio.sleep(backoff.pause())
            finally:
                self._writing.discard(name)
                self._wake.set()

    def _again(self, name: _Name, wanted: _Wanted) -> None:
        """Have a status written later, unless a newer one is wanted."""
        if name not in self._pending:
            self._put(name, wanted)

    async def _write(self, name: _Name, wanted: _Wanted) -> None:
        """Write one status, if it differs. Raises XdsError."""
        resource, key = name
        current = wanted.current
        for attempt in range(CONFLICTS):
            if current is None:
                await self._turn()
                current = await self._client.get(resource, key)
            try:
                await self._write_over(name, wanted.status, current)
                return
            except Conflict:
                if attempt == CONFLICTS - 1:
                    raise
                current = None

    async def _write_over(self, name: _Name, wanted: Object, current: Object) -> None:
        resource, key = name
        now, before = (
            self._wall().astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            current.get("status") or {},
        )
        shared = status.shared_list(wanted)
        if shared is not None:
            there = before.get(shared) or []
            entries = status.merged(wanted[shared], there, status.SHARED[shared], self._controller, now)
            if entries == there:
                return
            patch = {
                "metadata": {"resourceVersion": current["metadata"]["resourceVersion"]},
                "status": {shared: entries},
            }
            await self._turn()
            await self._client.merge_patch(
                resource, key, patch, manager=self._controller, subresource="status"
            )
        else:
            full = status.with_times(wanted, before, now)
            # what is there beyond it may be ours from before, or another manager's, who does not matter
            ours = self._applied.get(name) == wanted
            if status.holds(before, full, exactly=not ours) and (wanted or not self._wrote(current)):
                return
            metadata = {"name": key.name} | ({"namespace": key.namespace} if key.namespace else {})
            await self._turn()
            await self._client.apply(
                resource,
                {"metadata": metadata, "status": full},
                manager=self._controller,
                subresource="status",
            )
            self._applied[name] = wanted
        self.written += 1

    def _wrote(self, current: Object) -> bool:
        """True if this controller has fields of the status, which an empty status takes back."""
        return any(
            (one.get("manager"), one.get("subresource")) == (self._controller, "status")
            for one in current["metadata"].get("managedFields") or ()
        )

    async def _turn(self) -> None:
        """Wait until the next request may be sent. Raises _NotLeading."""
        now = self._clock()
        self._next = max(self._next + self._interval, now)
        await asyncio.sleep(self._next - now)
        if not self._leading():
            raise _NotLeading
