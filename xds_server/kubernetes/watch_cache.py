"""A local copy of a collection of the Kubernetes API that follows the API server for as long as it runs."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

from xds_server.errors import XdsError
from xds_server.kubernetes.api_client import ALL, GRACE, PAGE, WATCH, ApiClient, Selection, WatchEvent
from xds_server.kubernetes.api_errors import Forbidden, Gone, Invalid, NotFound, Rejected, Status
from xds_server.kubernetes.backoff import LONGEST, SHORTEST, Backoff
from xds_server.kubernetes.resources import Key, Object, Resource, key_of
from xds_server.kubernetes.watch_state import Change, Found, PagedList, WatchFrom, WatchState

log = logging.getLogger(__name__)
T = TypeVar("T")

ABSENT = 30.0
"""Seconds between two looks at the API server for a kind that it does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times of a cache. The clock and the sources of chance are parameters, so that tests choose them.

    `watch` is the seconds after which a watch begins anew, `grace` those of silence beyond that, `shortest` and `longest` the pauses after errors, `absent`
    the pause for a missing kind, and `page` the number of objects in one response.
    """

    watch: float = WATCH
    grace: float = GRACE
    shortest: float = SHORTEST
    longest: float = LONGEST
    absent: float = ABSENT
    page: int = PAGE
    clock: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random


PACE = Pace()


class WatchCache(Generic[T]):
    """Follows the objects of a kind, in some namespaces or in all of them.

    `keep` returns what the cache holds of an object, or None to leave the object out; nothing else of it stays in
    memory. `changed(key, before, after)` is called for each change of what is held: `before` is None for an added
    object and `after` for a deleted one. An object that was replaced by one of the same name is deleted and added.

    `run()` follows until it is cancelled. Errors of the API server are logged, and the copy stays as it is.
    """

    def __init__(
        self,
        client: ApiClient,
        resource: Resource,
        keep: Callable[[Object], T | None],
        changed: Callable[[Key, T | None, T | None], None],
        *,
        namespaces: Collection[str] = (),
        selection: Selection = ALL,
        streaming: bool = True,
        pace: Pace = PACE,
    ) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        """Set when every object has been read once, or the API server does not have the kind."""
        self._changed = changed
        self._clock = pace.clock
        self._items: dict[Key, T] = {}
        self._followers = [
            _Follower(client, resource, keep, self._take, namespace, selection, pace, streaming=streaming)
            for namespace in (sorted(namespaces) or (None,))
        ]

    @property
    def items(self) -> Mapping[Key, T]:
        """What is held, a view that stays current."""
        return MappingProxyType(self._items)

    @property
    def stale(self) -> float:
        """Seconds since the API server was last known to be there; infinite if it never was.

        While all is well, it is at most about a minute, because bookmarks come once a minute.
        """
        return self._clock() - min(one.last_good for one in self._followers)

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for one in self._followers:
                tasks.create_task(one.run())

    def _take(self, changes: list[Change[T]]) -> None:
        for change in changes:
            if change.after is None:
                del self._items[change.key]
            else:
                self._items[change.key] = change.after
            self._changed(change.key, change.before, change.after)
        if not self.synced.is_set() and all(one.synced for one in self._followers):
            self.synced.set()


class _Follower(Generic[T]):
    """Follows one namespace, or all: sends what the state requests, and gives it what comes back."""

    def __init__(
        self,
        client: ApiClient,
        resource: Resource,
        keep: Callable[[Object], T | None],
        take: Callable[[list[Change[T]]], None],
        namespace: str | None,
        selection: Selection,
        pace: Pace,
        *,
        streaming: bool,
    ) -> None:
        self.last_good = -math.inf
        self._client, self._resource, self._namespace, self._selection = (
            client,
            resource,
            namespace,
            selection,
        )
        self._keep, self._take = keep, take
        self._pace = pace
        self._state: WatchState[T] = WatchState(streaming=streaming)
        self._backoff = Backoff(pace.random, shortest=pace.shortest, longest=pace.longest)
        self._reported = ""

    @property
    def synced(self) -> bool:
        return self._state.synced

    async def run(self) -> None:
        while True:
            least, started = None, self._pace.clock()
            try:
                if await self._request():
                    continue
                self._state.interrupted()
            except Gone:
                self._state.gone()
            except NotFound as error:
                least = await self._missing(error)
            except XdsError as error:
                self._failed(error)
                least = error.status.retry_after if isinstance(error, Rejected) else None
            if self._pace.clock() - started >= self._pace.longest:
                self._backoff.reset()  # a watch in which nothing happened
            await asyncio.sleep(self._backoff.pause(least))

    async def _request(self) -> bool:
        """Send what the state requests, and take the whole response. Raises XdsError.

        Returns true if the next request follows at once, as the watch does after a list.
        """
        match self._state.request:
            case PagedList(whole):
                await self._list(0 if whole else self._pace.page)
                return True
            case WatchFrom(version):
                await self._watch(version)
            case _:
                await self._watch(None)
        return False

    async def _list(self, limit: int) -> None:
        pages = self._client.pages(self._resource, self._namespace, self._selection, limit=limit)
        async with aclosing(pages):
            async for page in pages:
                self._good()
                found = [self._found(item) for item in page.items]
                self._take(self._state.page(found, page.resource_version, last=not page.more))

    async def _watch(self, version: str | None) -> None:
        events = self._client.watch(
            self._resource,
            self._namespace,
            self._selection,
            resource_version=version,
            seconds=self._pace.watch,
            grace=self._pace.grace,
        )
        async with aclosing(events):
            async for event in events:
                self._good()
                if isinstance(self._state.request, WatchFrom):
                    self._backoff.reset()  # and not for a list, which a server may refuse to follow each time
                self._take(self._event(event))

    def _event(self, event: WatchEvent) -> list[Change[T]]:
        match event.type:
            case "BOOKMARK":
                return self._state.bookmark(event.resource_version, initial_end=event.initial_end)
            case "DELETED":
                return self._state.deleted(key_of(event.object), event.resource_version)
            case _:
                return self._state.put(self._found(event.object), event.resource_version)

    def _found(self, object_: Object) -> Found[T]:
        return Found(key_of(object_), object_["metadata"].get("uid", ""), self._keep(object_))

    def _good(self) -> None:
        self.last_good = self._pace.clock()
        if self._reported:
            log.info("the API server answers again resource=%s%s", self._resource, self._where)
            self._reported = ""

    def _failed(self, error: XdsError) -> None:
        """Report an error once, and let the state go on."""
        self._interrupted(error)
        if str(error) == self._reported:
            return
        self._reported = str(error)
        if isinstance(error, Forbidden):
            log.error(
                "the account may not read a kind; grant it the verbs list and watch resource=%s%s reason=%s",
                self._resource,
                self._where,
                error,
            )
        else:
            log.warning(
                "cannot follow a kind; what is known of it stays in use resource=%s%s reason=%s",
                self._resource,
                self._where,
                error,
            )

    def _interrupted(self, error: XdsError) -> None:
        match error:
            case Invalid() | Rejected(in_stream=True):
                self._state.rejected()
            case Rejected(status=Status(code=500)) if isinstance(self._state.request, WatchFrom):
                self._state.gone()  # what the server says of a version that it cannot read
            case _:
                self._state.interrupted()

    async def _missing(self, error: NotFound) -> float | None:
        """Empty the copy if the API server does not have the kind. Returns the seconds until the next look.

        It asks for the list of kinds first, because a proxy on the way may also say 404, and an empty copy stops
        the traffic of every route.
        """
        try:
            served = await self._client.serves(self._resource)
        except XdsError as other:
            self._failed(other)
            return None
        if served:
            self._failed(error)
            return None
        self._good()
        self._take(self._state.absent())
        return self._pace.absent

    @property
    def _where(self) -> str:
        return f" namespace={self._namespace}" if self._namespace else ""
