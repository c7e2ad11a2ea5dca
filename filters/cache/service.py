"""gateway.cache.v1.Cache: the second level of the cache, and the log of purges that all workers follow."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from filters.cache.policy import CACHE
from filters.cache.redis import RedisResponses
from filters.rules import Service
from filters.unary import RpcError, UnaryMethod
from protos import cache_pb2 as pb

INVALID_ARGUMENT = 3
"""https://github.com/grpc/grpc/blob/master/doc/statuscodes.md"""
MOST_BYTES = 256 << 20
"""Bytes of responses that the policy server keeps."""
OVERHEAD = 512
"""Bytes that an entry takes beside its text."""
PATIENCE = 5.0
"""Seconds for which a request waits for others."""
LEASE = 2.0
"""Seconds after which a request that fetches is given up, and another one fetches: its client may have gone."""
PASSING = 2.0
"""Seconds for which nobody waits for a response that was not stored the last time."""
MOST_PASSING = 10_000
UNKNOWN, FETCH = pb.LookupResponse(), pb.LookupResponse(state=pb.LookupResponse.FETCH)
MOST_PURGES = 1_000
"""Purges that are remembered. A worker that has missed more clears its cache."""


@dataclass(slots=True)
class _Entry:
    text: bytes
    url: str
    tags: frozenset[str]
    expires: int
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.text) + len(self.url) + sum(map(len, self.tags)) + OVERHEAD


class Store:
    """Responses, the last used ones, at most `limit` bytes. `clock` gives milliseconds since 1970."""

    def __init__(self, clock: Callable[[], int], limit: int = MOST_BYTES) -> None:
        self._clock, self._limit = clock, limit
        self._entries: OrderedDict[tuple[bytes, str], _Entry] = OrderedDict()
        self._names: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()
        self._of_url: dict[str, set[tuple[bytes, str]]] = {}
        """The places of the entries of each URL, because changes purge URLs all the time."""
        self.bytes = 0
        self._bytes_of_names = 0

    def find(self, key: bytes, headers: Mapping[str, str | None]) -> tuple[bytes, tuple[str, ...]] | None:
        """The response to a request that is still fresh, and the names by which it is selected."""
        names = self._names.get(key)
        if names is None or not headers.keys() >= set(names):
            return None
        place = (key, _selected(names, headers))
        entry = self._entries.get(place)
        if entry is None:
            return None
        if entry.expires <= self._clock():
            self._remove(place)
            return None
        self._entries.move_to_end(place)
        return entry.text, names

    def put(self, key: bytes, headers: Mapping[str, str | None], names: Iterable[str], entry: _Entry) -> None:
        """Store a response."""
        ordered = tuple(names)
        if not headers.keys() >= set(ordered):
            return
        place = (key, _selected(ordered, headers))
        entry.size += len(key) + len(place[1])
        if entry.size > self._limit:
            return
        if key not in self._names:
            self._bytes_of_names += len(key) + OVERHEAD
        self._names[key] = ordered
        self._names.move_to_end(key)
        self._remove(place)
        self._entries[place] = entry
        self._of_url.setdefault(entry.url, set()).add(place)
        self.bytes += entry.size
        while self.bytes > self._limit:
            self._remove(next(iter(self._entries)))
        while self._bytes_of_names > self._limit / 4:
            self._bytes_of_names -= len(self._names.popitem(last=False)[0]) + OVERHEAD

    def purge(self, purge: pb.Purge) -> int:
        """Forget the responses that a purge is about. Returns how many."""
        if purge.kind == pb.Purge.URL:
            found = list(self._of_url.get(purge.value, ()))
        else:
            found = [place for place, entry in self._entries.items() if _matches(purge, entry)]
        for place in found:
            self._remove(place)
        return len(found)

    def _remove(self, place: tuple[bytes, str]) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            self.bytes -= entry.size
            places = self._of_url[entry.url]
            places.discard(place)
            if not places:
                del self._of_url[entry.url]


def _selected(names: tuple[str, ...], headers: Mapping[str, str | None]) -> str:
    return json.dumps([[name, headers[name]] for name in names])


def _matches(purge: pb.Purge, entry: _Entry) -> bool:
    if purge.kind == pb.Purge.URL:
        return entry.url == purge.value
    if purge.kind == pb.Purge.PREFIX:
        return entry.url.startswith(purge.value)
    return purge.kind == pb.Purge.ALL or purge.value in entry.tags


class Purges:
    """The last purges in their order. A version is the number of purges since the log began."""

    def __init__(self) -> None:
        self.epoch = uuid.uuid4().hex
        self._log: list[pb.Purge] = []
        self._forgotten = 0

    @property
    def version(self) -> int:
        """The number of purges."""
        return self._forgotten + len(self._log)

    def add(self, purge: pb.Purge) -> None:
        """Append a purge."""
        self._log.append(purge)
        if len(self._log) > MOST_PURGES:
            self._forgotten += 1
            del self._log[0]

    def since(self, epoch: str, version: int) -> list[pb.Purge]:
        """The purges after a version. A log that began later, or has forgotten some, says that all is purged."""
        if epoch != self.epoch or version < self._forgotten:
            return [pb.Purge(kind=pb.Purge.ALL)]
        return self._log[version - self._forgotten :]


class CacheService:
    """The service. `clock` gives milliseconds since 1970. `redis` is a client of redis.asyncio, for a shared store."""

    def __init__(
        self, registry: CollectorRegistry, clock: Callable[[], int] | None = None, redis: Any = None
    ) -> None:
        clock = clock or (lambda: time.time_ns() // 1_000_000)
        self.store = Store(clock)
        self.purges = Purges()
        self._shared = RedisResponses(redis, registry, self._purge_all, clock) if redis is not None else None
        self._fetching: dict[bytes, asyncio.Future[bool]] = {}
        """Requests that fetch. The result is true if others may still profit: it was stored, or given up."""
        self._passing: OrderedDict[bytes, float] = OrderedDict()
        """Until when nobody waits for a response, by its key; seconds of the event loop's clock."""
        lookups = Counter(
            "xds_cache_lookups",
            "Requests that a worker's own cache could not answer. outcome: found, fetch (the worker asks the upstream) or "
            "wait (another request asks it).",
            ["outcome"],
            registry=registry,
        )
        self._lookups = {one: lookups.labels(one) for one in ("found", "fetch", "wait")}
        self._purged = Counter("xds_cache_purges", "Purges of the cache.", registry=registry)
        size = Gauge(
            "xds_cache_bytes",
            "Bytes of responses in the second level.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        size.set_function(lambda: self.store.bytes)

    def service(self) -> Service:
        """The gRPC service that a server mounts."""
        methods = (
            ("Lookup", pb.Selection, self.lookup),
            ("Await", pb.Selection, self.wait),
            ("Store", pb.StoreRequest, self.keep),
            ("PurgeAll", pb.Purge, self.purge),
            ("Changes", pb.ChangesRequest, self.changes),
        )
        return Service(
            name=CACHE,
            methods=tuple(
                UnaryMethod(
                    path=f"/{CACHE}/{name}",
                    parse=message.FromString,
                    call=call,
                    serialize=lambda response: response.SerializeToString(),
                )
                for name, message, call in methods
            ),
            actions={"/cache/purge": self._purge_by_text},
            close=self._close,
        )

    def _close(self) -> Awaitable[None] | None:
        return None if self._shared is None else self._shared.close()

    def lookup(self, request: pb.Selection) -> pb.LookupResponse | Awaitable[pb.LookupResponse]:
        """A stored response, or whether to fetch it or to wait."""
        found = self._found(request)
        if found is not None:
            self._lookups["found"].inc()
            return found
        if request.only:
            return pb.LookupResponse() if self._shared is None else self._look_in_shared(request, UNKNOWN)
        if request.key in self._fetching:
            self._lookups["wait"].inc()
            return pb.LookupResponse(state=pb.LookupResponse.WAIT)
        if self._passing.get(request.key, 0) < asyncio.get_running_loop().time():
            self._fetch(request.key)
            if self._shared is not None:
                return self._look_in_shared(request, FETCH)
        self._lookups["fetch"].inc()
        return FETCH

    async def _look_in_shared(self, request: pb.Selection, otherwise: pb.LookupResponse) -> pb.LookupResponse:
        """A response that another policy server has stored. Other requests for it wait meanwhile."""
        assert self._shared is not None
        headers = _headers(request)
        version = self.purges.version
        stored = await self._shared.find(request.key, headers)
        if stored is None:
            self._lookups["fetch"].inc(otherwise is FETCH)
            return otherwise
        entry = _Entry(stored.entry, stored.url, frozenset(stored.tags), stored.expires)
        if not any(_matches(one, entry) for one in self.purges.since(self.purges.epoch, version)):
            self.store.put(request.key, headers, stored.names, entry)
        self._finish(request.key, stored=True)
        self._lookups["found"].inc()
        return pb.LookupResponse(state=pb.LookupResponse.FOUND, entry=stored.entry, names=stored.names)

    async def wait(self, request: pb.Selection) -> pb.LookupResponse:
        """Wait for the request that fetches, and look again. If it is given up, one of those who wait fetches."""
        loop = asyncio.get_running_loop()
        until, useful = loop.time() + PATIENCE, True
        while useful and loop.time() < until:
            fetching = self._fetching.get(request.key)
            if fetching is None:
                break
            await asyncio.wait([fetching], timeout=until - loop.time())
            useful = fetching.done() and fetching.result()
            found = self._found(request)
            if found is not None:
                return found
        if useful and request.key not in self._fetching:
            self._fetch(request.key)
        return pb.LookupResponse(state=pb.LookupResponse.FETCH)

    def keep(self, request: pb.StoreRequest) -> pb.StoreResponse:
        """Store a response, and let those go on who wait for it."""
        headers = _headers(request.selection)
        key, loop = request.selection.key, asyncio.get_running_loop()
        stored = bool(request.entry)
        if stored:
            entry = _Entry(request.entry, request.url, frozenset(request.tags), request.expires)
            later = self.purges.since(request.epoch, request.version)
            if not any(_matches(one, entry) for one in later):  # nobody purged it while it was on its way
                self.store.put(key, headers, request.names, entry)
                if self._shared is not None:
                    self._shared.put(request, headers)
            self._passing.pop(key, None)
        else:
            self._passing[key] = loop.time() + PASSING
            self._passing.move_to_end(key)
            while len(self._passing) > MOST_PASSING:
                self._passing.popitem(last=False)
        self._finish(key, stored=stored)
        return pb.StoreResponse()

    def purge(self, request: pb.Purge) -> pb.PurgeResponse:
        """Forget responses here, in all workers within half a second, and in all policy servers with the same Redis."""
        if self._shared is not None:
            self._shared.purge(request)
        self._purge_all([request])
        self._purged.inc()
        return pb.PurgeResponse()

    def _purge_all(self, purges: Iterable[pb.Purge]) -> int:
        """Forget responses here and in the workers of this policy server. Returns the version of the log of purges."""
        for one in purges:
            self.purges.add(one)
            self.store.purge(one)
        return self.purges.version

    def changes(self, request: pb.ChangesRequest) -> pb.ChangesResponse:
        """The purges that a worker does not know."""
        return pb.ChangesResponse(
            epoch=self.purges.epoch,
            version=self.purges.version,
            purges=self.purges.since(request.epoch, request.version),
        )

    def _found(self, request: pb.Selection) -> pb.LookupResponse | None:
        found = self.store.find(request.key, _headers(request))
        if found is None:
            return None
        return pb.LookupResponse(state=pb.LookupResponse.FOUND, entry=found[0], names=found[1])

    def _fetch(self, place: bytes) -> None:
        loop = asyncio.get_running_loop()
        fetching: asyncio.Future[bool] = loop.create_future()
        self._fetching[place] = fetching

        def give_up() -> None:
            if self._fetching.get(place) is fetching:
                del self._fetching[place]
            if not fetching.done():
                fetching.set_result(True)

        loop.call_later(LEASE, give_up)

    def _finish(self, place: bytes, *, stored: bool) -> None:
        """Let those go on who wait for a response."""
        fetching = self._fetching.pop(place, None)
        if fetching is not None and not fetching.done():
            fetching.set_result(stored)

    def _purge_by_text(self, text: str) -> Mapping[str, int]:
        """Purge as the admin address is asked: JSON with `kind` and `value`."""
        try:
            asked = json.loads(text)
            purge = pb.Purge(kind=asked["kind"].upper(), value=asked.get("value", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RpcError(INVALID_ARGUMENT, "expected JSON with kind and value") from None
        before = self.store.purge(purge)
        self.purge(purge)
        return {"purged": before}


def _headers(request: pb.Selection) -> dict[str, str | None]:
    return {one.name: one.value if one.HasField("value") else None for one in request.headers}
