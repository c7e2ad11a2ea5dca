"""Responses in Redis or Valkey, shared by many policy servers, and the log of purges that all of them follow.

Nothing in Redis is needed: without an answer in time, a request is a miss. Nothing in Redis is trusted: a value that is not
whole, or that belongs to another request, counts as absent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any

from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry, Counter
from redis.exceptions import RedisClusterException, RedisError

from filters.language.tokens import TOKEN
from filters.rate_limit.stores.circuit_breaker import Breaker
from filters.rate_limit.stores.silence import silence_timeout
from protos import cache_pb2 as pb

PREFIX = "xds:cache:"
LOG, EPOCH = f"{PREFIX}{{purges}}:log", f"{PREFIX}{{purges}}:epoch"
"""The stream of purges, and a name that is another one if Redis has lost it. Neither expires."""
DEADLINE = 0.1
"""Seconds that Redis may be silent while a request waits for it."""
LOG_DEADLINE = 1.0
"""The same for the log of purges, for which no request waits."""
CLOSING = 1.0
"""Seconds that a part of the work gets to end before it is told again."""
INTERVAL = 0.2
"""Seconds between two looks at the log of purges."""
MOST_PURGES = 20_000
"""Purges in the log. A response that is older than the log counts as purged."""
MOST_WAITING = 1_000
"""Purges that wait for Redis. More of them become one purge of everything."""
BATCH = 1_000
MOST_AT_ONCE = 256
"""Requests that wait for Redis at the same time. All others are misses."""
MOST_BYTES = 4 << 20
"""The size of a value."""
MOST_WRITTEN = 32 << 20
"""Bytes of responses that are on their way to Redis at the same time. Others are not stored there."""
LONGEST = 24 * 3600 * 1000
"""Milliseconds until a value expires at the latest."""
_MAGIC = b"XDSC1"
_AWAY = (RedisError, RedisClusterException, OSError, TimeoutError, AttributeError)
"""The client raises AttributeError for a connection that it lost while another call used it."""
_VALUE = re.compile(rb"[^\0\r\n]*")
Position = tuple[int, int]
"""A place in the log of purges: the id of an entry of a Redis stream."""
START: Position = (0, 0)


def position(written: str | bytes) -> Position:
    """The position of ``1792890000000-0``. Raises ValueError."""
    time, _, number = (written.decode() if isinstance(written, bytes) else written).partition("-")
    return int(time), int(number)


class PurgeIndex:
    """The last purge of each URL, prefix and tag. It answers whether a response was purged after it was requested."""

    def __init__(self, limit: int = MOST_PURGES) -> None:
        self._limit = limit
        self._last: OrderedDict[tuple[int, str], Position] = OrderedDict()
        self._prefixes: dict[str, Position] = {}
        self.floor = START
        """Responses that are older count as purged."""

    def add(self, at: Position, purge: pb.Purge) -> None:
        """Note a purge. Positions only grow."""
        if purge.kind == pb.Purge.ALL:
            self.forget(at)
            return
        if purge.kind == pb.Purge.PREFIX:
            self._prefixes[purge.value] = at
        key = (purge.kind, purge.value)
        self._last[key] = at
        self._last.move_to_end(key)
        if len(self._last) > self._limit:
            (kind, value), self.floor = self._last.popitem(last=False)
            if kind == pb.Purge.PREFIX:
                del self._prefixes[value]

    def forget(self, floor: Position) -> None:
        """Count all responses as purged that are older than `floor`."""
        self._last.clear()
        self._prefixes.clear()
        self.floor = floor

    def purged(self, generation: Position, url: str, tags: Iterable[str]) -> bool:
        """True if a response with this URL and these tags was purged after `generation`."""
        if generation < self.floor:
            return True
        keys = ((pb.Purge.URL, url), *((pb.Purge.TAG, tag) for tag in tags))
        return any(self._last.get(key, START) > generation for key in keys) or any(
            at > generation and url.startswith(prefix) for prefix, at in self._prefixes.items()
        )


def selected(names: Iterable[str], headers: Mapping[str, str | None]) -> str:
    """The values by which one of the responses to a request is selected."""
    return json.dumps([[name, headers[name]] for name in names])


def encoded(stored: pb.Stored) -> bytes:
    """The value in Redis."""
    text = stored.SerializeToString()
    return _MAGIC + hashlib.sha256(text).digest() + text


def decoded(value: bytes) -> pb.Stored | None:
    """The response of a value, or None if it is not whole or no response of ours."""
    text = value[len(_MAGIC) + 32 :]
    if (
        value[: len(_MAGIC)] != _MAGIC
        or value[len(_MAGIC) : len(_MAGIC) + 32] != hashlib.sha256(text).digest()
    ):
        return None
    try:
        stored = pb.Stored.FromString(text)
        response = pb.Response.FromString(stored.entry)
        position(stored.generation)
    except (DecodeError, ValueError):
        return None
    sound = (
        200 <= response.status <= 599
        and response.url == stored.url
        and set(response.tags) == set(stored.tags)
        and stored.key.endswith(b"\0" + stored.url.encode())
        and response.born + response.fresh == stored.expires
        and all(_sound(one) for one in response.headers)
    )
    return stored if sound else None


def _sound(header: pb.ResponseHeader) -> bool:
    return (
        re.fullmatch(TOKEN, header.name) is not None
        and header.name == header.name.lower()
        and bool(_VALUE.fullmatch(header.value))
    )


class RedisResponses:
    """Responses behind `client`, a client of redis.asyncio. Create it in the event loop that uses it.

    `purged` is called with the purges of all policy servers, in their order. `clock` gives milliseconds since 1970.
    """

    def __init__(
        self,
        client: Any,
        registry: CollectorRegistry,
        purged: Callable[[Iterable[pb.Purge]], int],
        clock: Callable[[], int],
    ) -> None:
        self._client, self._purged, self._clock = client, purged, clock
        self._index = PurgeIndex()
        self._epoch: bytes | None = None
        self._position = START
        self._positions: deque[tuple[int, Position]] = deque([(0, START)], maxlen=BATCH)
        """The position in the log when the policy server had so many purges."""
        self._waiting: deque[pb.Purge] = deque()
        self._woken = asyncio.Event()
        self._at_once = self._written = 0
        self._breaker = Breaker(
            "redis of the cache does not answer; each policy server goes on with its own responses, and learns of no purge",
            "redis of the cache answers again",
        )
        lookups = Counter(
            "xds_cache_redis_lookups",
            "Lookups of responses in Redis. outcome: found, missing, invalid (the value is not whole or not ours), purged, "
            "failed (no answer in time) or skipped (Redis does not answer, or too many requests wait).",
            ["outcome"],
            registry=registry,
        )
        outcomes = ("found", "missing", "invalid", "purged", "failed", "skipped")
        self._lookups = {one: lookups.labels(one) for one in outcomes}
        self._tasks = {asyncio.get_running_loop().create_task(self._follow())}

    async def close(self) -> None:
        """End all work and close the connections. It takes a bounded time, also if the client loses a cancellation."""
        waiting = set(self._tasks)
        while waiting:
            for task in waiting:
                task.cancel()
            _, waiting = await asyncio.wait(waiting, timeout=CLOSING)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING):
                await self._client.aclose()

    def generation(self, version: int) -> Position:
        """The position in the log of which somebody knows who knows this version of the policy server's purges."""
        return next((at for known, at in reversed(self._positions) if known <= version), START)

    async def find(self, key: bytes, headers: Mapping[str, str | None]) -> pb.Stored | None:
        """The response to a request, if it is there, whole and fresh. It takes at most the deadline."""
        if self._epoch is None or self._breaker.is_open or self._at_once >= MOST_AT_ONCE:
            self._lookups["skipped"].inc()
            return None
        self._at_once += 1
        try:
            async with silence_timeout(DEADLINE):
                outcome, stored = await self._look_up(key, headers)
            self._breaker.answered()
        except _AWAY as error:
            self._breaker.failed(error)
            outcome, stored = "failed", None
        finally:
            self._at_once -= 1
        self._lookups[outcome].inc()
        return stored

    async def _look_up(self, key: bytes, headers: Mapping[str, str | None]) -> tuple[str, pb.Stored | None]:
        place = _place(key)
        written = await self._client.getrange(f"{place}:names", 0, BATCH * 10)
        if not written:
            return "missing", None
        names = _names(written)
        if names is None:
            return "invalid", None
        if not headers.keys() >= set(names):
            return "missing", None
        chosen = selected(names, headers)
        value = await self._client.getrange(f"{place}:{_hash(chosen.encode())}", 0, MOST_BYTES)
        if not value:
            return "missing", None
        stored = decoded(value)
        now = self._clock()
        if stored is None or (stored.key, [*stored.names], stored.selected) != (key, names, chosen):
            return "invalid", None
        if not now < stored.expires <= now + LONGEST * 366:
            return "missing", None
        if stored.epoch != self._epoch or self._index.purged(
            position(stored.generation), stored.url, stored.tags
        ):
            return "purged", None
        return "found", stored

    def put(self, request: pb.StoreRequest, headers: Mapping[str, str | None]) -> None:
        """Store a response without waiting for Redis."""
        left = min(request.expires - self._clock(), LONGEST)
        names = [*request.names]
        if self._epoch is None or self._breaker.is_open or left <= 0 or not headers.keys() >= set(names):
            return
        stored = pb.Stored(
            key=request.selection.key,
            names=names,
            selected=selected(names, headers),
            entry=request.entry,
            tags=request.tags,
            url=request.url,
            expires=request.expires,
            generation="{}-{}".format(*self.generation(request.version)),
            epoch=self._epoch,
        )
        value = encoded(stored)
        if len(value) <= MOST_BYTES and self._written + len(value) <= MOST_WRITTEN:
            self._written += len(value)
            self._run(self._write(stored, value, left))

    async def _write(self, stored: pb.Stored, value: bytes, left: int) -> None:
        place = _place(stored.key)
        try:
            async with silence_timeout(LOG_DEADLINE):
                await self._client.set(f"{place}:{_hash(stored.selected.encode())}", value, px=left)
                await self._client.set(f"{place}:names", json.dumps([*stored.names]), px=left)
            self._breaker.answered()
        except _AWAY as error:
            self._breaker.failed(error)
        finally:
            self._written -= len(value)

    def purge(self, purge: pb.Purge) -> None:
        """Tell all policy servers of a purge, as soon as Redis answers."""
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.clear()
            purge = pb.Purge(kind=pb.Purge.ALL)
        self._waiting.append(purge)
        self._woken.set()

    async def _follow(self) -> None:
        """Send purges to the log, and read those of others."""
        while True:
            if not self._breaker.is_open:
                try:
                    async with silence_timeout(LOG_DEADLINE):
                        await self._tell()
                        await self._learn()
                    self._breaker.answered()
                except _AWAY as error:
                    self._breaker.failed(error)
            # not wait_for, which may lose a cancellation in Python 3.11 (https://github.com/python/cpython/issues/86296)
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._woken.wait()
            self._woken.clear()

    async def _tell(self) -> None:
        while self._waiting:
            purge = self._waiting[0]
            fields = {"kind": int(purge.kind), "value": purge.value}
            await self._client.xadd(LOG, fields, maxlen=MOST_PURGES, approximate=True)
            if self._waiting and self._waiting[0] is purge:
                self._waiting.popleft()

    async def _learn(self) -> None:
        epoch = await self._client.get(EPOCH)
        if epoch is None:
            await self._client.set(EPOCH, uuid.uuid4().hex, nx=True)
            epoch = await self._client.get(EPOCH)
        if (
            epoch != self._epoch and self._epoch is not None
        ):  # Redis has lost the log, and perhaps purges in it
            self._index, self._position = PurgeIndex(), START
            self._noted([], all_of_them=True)
        first = self._epoch != epoch
        while True:
            after = "({}-{}".format(*self._position)
            entries = await self._client.xrange(LOG, min=after, count=BATCH)
            length = await self._client.xlen(LOG)
            # The log is as long as it may be, and nothing of what is known is left in it: some of it is lost.
            lost = bool(entries) and length >= MOST_PURGES and await self._begins_later()
            if lost:
                self._index.forget(position(entries[0][0]))
            found = [(position(at), _purge(fields)) for at, fields in entries]
            for at, purge in found:
                self._index.add(at, purge)
                self._position = at
            self._noted([purge for _, purge in found], all_of_them=lost and not first)
            if len(entries) < BATCH:
                break
        self._epoch = epoch

    async def _begins_later(self) -> bool:
        oldest = await self._client.xrange(LOG, count=1)
        return bool(oldest) and position(oldest[0][0]) > self._position

    def _noted(self, purges: list[pb.Purge], *, all_of_them: bool) -> None:
        if all_of_them:
            purges = [pb.Purge(kind=pb.Purge.ALL)]
        if purges and self._epoch is not None:  # before, there is nothing to purge
            self._positions.append((self._purged(purges), self._position))
        elif purges:
            self._positions.append((0, self._position))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _purge(fields: Mapping[bytes, bytes]) -> pb.Purge:
    """The purge of an entry of the log. One that cannot be read is a purge of everything."""
    try:
        kind = int(fields[b"kind"])
        if kind in pb.Purge.Kind.values():
            return pb.Purge(kind=kind, value=fields[b"value"].decode())  # type: ignore[arg-type]
    except (KeyError, ValueError):
        pass
    return pb.Purge(kind=pb.Purge.ALL)


def _names(written: bytes) -> list[str] | None:
    try:
        names = json.loads(written)
    except ValueError:
        return None
    fine = isinstance(names, list) and all(isinstance(one, str) for one in names)
    return names if fine else None


def _hash(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:32]


def _place(key: bytes) -> str:
    """The beginning of the keys of a request. The hash tag keeps them on one node of a cluster."""
    return f"{PREFIX}{{{_hash(key)}}}"
