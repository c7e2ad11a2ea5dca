"""Writes the objects that serve Gateways and sidecars, mends what others change of them, and deletes what is wanted no more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from xds_server.controller import infrastructure
from xds_server.controller.infrastructure import Wanted
from xds_server.controller.owned_objects import RESOURCES, Name, OwnedObjects, labelled, version_of
from xds_server.errors import XdsError
from xds_server.gateway_api.objects import Key
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import NotFound
from xds_server.kubernetes.resources import Key as ObjectKey
from xds_server.kubernetes.resources import Object as Written

log = logging.getLogger(__name__)

_AGAIN, _LONGEST = 1.0, 60.0
"""Seconds until the objects of a Gateway are compared again: after a change by others or its first failure, and at most."""
_FAILED = 10.0
"""Seconds until what belongs to no Gateway is tried again."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """What could not be written. It is tried again `at` a time of the event loop, later and later, or if it is something else."""

    wanted: Wanted
    pause: float
    at: float

    def due(self, wanted: Wanted) -> bool:
        return wanted != self.wanted or asyncio.get_running_loop().time() >= self.at


class InfrastructureWriter:
    """Writes as the field manager `manager`.

    `again` is called some time after a failure and after others have changed an object, so that the caller tries again.
    """

    def __init__(self, client: ApiClient, manager: str, again: Callable[[], None]) -> None:
        self._client, self._manager, self._again = client, manager, again
        self.there = OwnedObjects(client, manager, self._changed)
        """What is there. Its caches must run."""
        self._written: dict[Key, Wanted] = {}
        self._names: dict[Key, frozenset[Name]] = {}
        """The objects of each Gateway, also those that could not be written."""
        self._applied: dict[Name, Written] = {}
        self._versions: dict[Name, str] = {}
        """The version of each object after it was applied."""
        self._untidy = True
        """True if there may be objects that are wanted no more."""
        self._failures: dict[Key, _Failure] = {}
        """Gateways whose objects could not be written."""
        self._waiting: asyncio.TimerHandle | None = None
        self.faults: dict[Key, str] = {}
        """Why objects of a Gateway cannot be written."""

    def forget(self) -> None:
        """Forget what is there, because somebody else may have written."""
        self._written.clear()
        self._names.clear()
        self._applied.clear()
        self._versions.clear()
        self._untidy = True

    async def serve(self, every: Iterable[Wanted], gateways: Collection[str]) -> None:
        """Have exactly the objects of some Gateways. `gateways` has the UIDs of all there are, also of other classes."""
        every = list(every)
        keys = {one.gateway.meta.key for one in every}
        for key in self._names.keys() - keys:
            del self._names[key]
            self._written.pop(key, None)
            self.faults.pop(key, None)
            self._failures.pop(key, None)
            self._untidy = True
        for one in every:
            await self._serve(one)
        if self._untidy:
            self._untidy = not await self._tidy(gateways)

    async def _serve(self, wanted: Wanted) -> None:
        key = wanted.gateway.meta.key
        failure = self._failures.get(key)
        if self._written.get(key) == wanted or (failure is not None and not failure.due(wanted)):
            return
        self.faults.pop(key, None)
        objects = list(infrastructure.objects(wanted))
        self._names[key] = frozenset(map(_name, objects))
        self._untidy = True
        complete = await self.apply(key, objects, owner=wanted.gateway.meta.uid)
        if complete and self._names[key] <= self._applied.keys():  # others may have deleted one meanwhile
            self._written[key] = wanted
            self._failures.pop(key, None)
        elif key in self.faults:
            pause = min(failure.pause * 2, _LONGEST) if failure is not None else _AGAIN
            self._failures[key] = _Failure(wanted, pause, asyncio.get_running_loop().time() + pause)
            self._later(pause)

    async def apply(self, key: Key, objects: Iterable[Written], owner: str = "") -> bool:
        """Apply objects that differ from what was applied. Returns True if all of them are there.

        With an `owner`, an object of that name that belongs to somebody else stays as it is.
        """
        complete = True
        for one in objects:
            name = _name(one)
            if self._applied.get(name) == one:
                continue
            try:
                if owner and name not in self._applied and await self._is_foreign(name, owner):
                    said = f"there is a {name.kind} {name.key.name} that does not belong to this Gateway"
                    complete = self._failed(key, f"{said}; delete or rename it")
                    continue
                self._forget(name)  # what is heard of it until it is applied may come from ourselves
                found = await self._client.apply(RESOURCES[name.kind], labelled(one), manager=self._manager)
                self._applied[name], self._versions[name] = one, version_of(found)
            except XdsError as error:
                complete = self._failed(key, f"the {name.kind} {name.key.name} cannot be written: {error}")
        return complete

    async def _tidy(self, gateways: Collection[str]) -> bool:
        """Delete objects of Gateways that other parameters or another class made necessary. Returns True if they are gone.

        The objects of a Gateway that is gone are deleted by Kubernetes, because the Gateway owns them.
        """
        wanted = frozenset().union(*self._names.values())
        complete = True
        for name, one in list(self.there.items()):
            if name in wanted or not any(owner in gateways for owner in one.owners):
                continue
            try:
                with suppress(NotFound):
                    await self._client.delete(RESOURCES[name.kind], name.key, uid=one.uid)
                self._lost(name)
                log.info("deleted an object that no Gateway needs kind=%s name=%s", *name)
            except XdsError as error:
                log.warning("cannot delete an object kind=%s name=%s reason=%s", *name, error)
                self._later(_LONGEST)
                complete = False
        return complete

    async def _is_foreign(self, name: Name, owner: str) -> bool:
        """True if there is an object of this name that does not belong to the owner."""
        try:
            found = await self._client.get(RESOURCES[name.kind], name.key)
        except NotFound:
            return False
        return all(other["uid"] != owner for other in found["metadata"].get("ownerReferences") or ())

    def _changed(self, name: Name, version: str | None) -> None:
        """Hear that an object is another one than it was, perhaps because it was just applied."""
        if self._versions.get(name) != version:
            if name in self._applied:
                log.info("others have changed an object, so it is applied again kind=%s name=%s", *name)
            self._lost(name)
        elif any(name in names for names in self._names.values()):
            return
        self._untidy = True
        self._later(_AGAIN)

    def _lost(self, name: Name) -> None:
        """Have an object applied again if a Gateway needs it."""
        self._forget(name)
        for key, names in self._names.items():
            if name in names:
                self._written.pop(key, None)

    def _forget(self, name: Name) -> None:
        self._applied.pop(name, None)
        self._versions.pop(name, None)

    def _failed(self, key: Key, what: str) -> bool:
        """Note a fault, which is logged once."""
        if self.faults.get(key) != what:
            log.warning("a Gateway has not all of its objects gateway=%s reason=%s", "/".join(key), what)
        self.faults[key] = what
        self._later(_FAILED)
        return False

    def _later(self, seconds: float) -> None:
        """Have the caller try again after some seconds, or sooner."""
        loop = asyncio.get_running_loop()
        if self._waiting is None or self._waiting.when() > loop.time() + seconds:
            if self._waiting is not None:
                self._waiting.cancel()
            self._waiting = loop.call_later(seconds, self._retry)

    def _retry(self) -> None:
        self._waiting = None
        self._again()


def _name(one: dict[str, Any]) -> Name:
    metadata = one["metadata"]
    return Name(one["kind"], ObjectKey(metadata["namespace"], metadata["name"]))
