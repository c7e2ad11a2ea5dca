"""Counters in Redis or Valkey, shared by many policy servers: one script decides, by the server's clock."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import NoScriptError, RedisError, ResponseError

from filters.rate_limit.algorithms import Concurrency, FixedWindow, TokenBucket
from filters.rate_limit.calendar import SECOND, end_of
from filters.rate_limit.circuit import Circuit
from filters.rate_limit.limiter import Decision, Figure, Hit

SCRIPT = resources.files("filters").joinpath("lua", "limits.lua").read_text()
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
PREFIX = "xds:"
AT_ONCE = 32
"""Calls that are under way at most, each on a connection of its own; others wait, within their deadline."""
_AWAY = (RedisError, OSError, TimeoutError, AttributeError)
"""AttributeError is what the client raises for a connection that it lost while another call was using it."""
REMEMBERED = 10_000
"""Exhausted keys that are answered without Redis, each for at most a second."""


def connect(url: str) -> Any:
    """A client of ``redis://``, ``rediss://``, ``unix://``, ``redis+cluster://HOST:PORT[,HOST:PORT]`` or
    ``redis+sentinel://HOST:PORT[,HOST:PORT]/NAME``. Raises ValueError for another URL."""
    scheme, parts = url.partition("://")[0], urlsplit(url)
    options: Any = {"socket_connect_timeout": 1.0, "socket_keepalive": True}
    if scheme == "redis+cluster":
        nodes = [ClusterNode(host, port) for host, port in _addresses(parts.netloc)]
        return RedisCluster(startup_nodes=nodes, **options)
    if scheme == "redis+sentinel":
        name = parts.path.strip("/")
        if not name:
            raise ValueError(
                f"{url}: the name of the master is missing, as in redis+sentinel://HOST:PORT/NAME"
            )
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            _addresses(parts.netloc), sentinel_kwargs=options, **options
        )
        master: Any = sentinel.master_for(name)
        return master
    return Redis.from_url(url, **options)


def _addresses(netloc: str) -> list[tuple[str, int]]:
    found = [one.rpartition(":") for one in netloc.split(",")]
    return [(host.strip("[]"), int(port)) for host, _, port in found]


class RedisStore:
    """Counters behind `client`, a client of redis.asyncio. `deadline` is in seconds.

    To be made in the event loop that uses it. Where no answer comes in time, the circuit decides.
    """

    name = "redis"

    def __init__(self, client: Any, registry: CollectorRegistry, deadline: float = 0.05) -> None:
        self._client = client
        self._deadline = deadline
        self._cluster = isinstance(client, RedisCluster)
        self._free = asyncio.Semaphore(AT_ONCE)
        self._preparing = asyncio.Lock()
        self._prepared = False
        self._circuit = Circuit(self.name, "redis", registry)
        self._exhausted: dict[tuple[str, int], tuple[int, int]] = {}
        self._loop = asyncio.get_running_loop()

    async def decide(self, now: int, hits: Sequence[Hit]) -> Decision:
        """Admit and count all, or count nothing; an exhausted key is remembered for a moment."""
        known = self._remembered(now, hits)
        if known is not None:
            return known
        groups = self._groups(hits)
        answers: list[list[int]] = []
        try:
            for group in groups:
                answers.append(await self._call("decide", now, group))
                if not answers[-1][1]:
                    break
            if len(answers) > 1 and not answers[-1][1]:
                for group in groups[: len(answers) - 1]:
                    await self._call(
                        "refund", now, [hit._replace(cost=-hit.cost) for hit in group if hit.cost]
                    )
        except _AWAY as error:
            return self._without_counters(now, hits, error)
        decision = _decision(groups, answers)
        self._remember(now, hits, groups, decision)
        return decision

    async def charge(self, now: int, hits: Sequence[Hit]) -> None:
        """Count what has happened. Where Redis is away it is lost, and the log says so."""
        await self._tell("charge", now, hits)

    async def release(self, hits: Sequence[Hit]) -> None:
        """Give slots back; where Redis is away their leases end by themselves."""
        await self._tell("release", 0, hits)

    def reset(self, prefix: str) -> int:
        """Forget the counters whose key begins with `prefix`. Called in another thread than the loop's; raises OSError."""
        self._exhausted.clear()
        try:
            return asyncio.run_coroutine_threadsafe(self._reset(prefix), self._loop).result(30)
        except _AWAY as error:
            raise ConnectionError(f"redis does not answer: {str(error) or type(error).__name__}") from None

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        pool = getattr(self._client, "connection_pool", None)
        if pool is not None:
            await pool.disconnect(inuse_connections=True)
        for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
            await sentinel.aclose()

    async def _reset(self, prefix: str) -> int:
        plain = "".join(f"[{one}]" if one in "*?[" else one for one in prefix)
        keys = [key async for key in self._client.scan_iter(match=f"{PREFIX}*}}{plain}*", count=1000)]
        return sum([await self._client.delete(key) for key in keys])

    def _groups(self, hits: Sequence[Hit]) -> list[list[Hit]]:
        """One script each. A cluster counts together what has the same hash tag; any other Redis everything."""
        if not self._cluster:
            return [list(hits)] if hits else []
        groups: dict[str, list[Hit]] = {}
        for hit in hits:
            groups.setdefault(tag(hit.key), []).append(hit)
        return list(groups.values())

    async def _tell(self, operation: str, now: int, hits: Sequence[Hit]) -> None:
        try:
            for group in self._groups(hits):
                await self._call(operation, now, group)
        except _AWAY as error:
            self._without_counters(now, (), error)

    def _without_counters(self, now: int, hits: Sequence[Hit], error: BaseException) -> Decision:
        if isinstance(error, ResponseError):
            return self._circuit.refused(now, hits, error)
        return self._circuit.failed(now, hits, error)

    async def _call(self, operation: str, now: int, hits: Sequence[Hit]) -> list[int]:
        """One round trip. Raises what the client raises, and ConnectionError while Redis is left alone."""
        if not hits:
            return []
        if self._circuit.left_alone:
            raise ConnectionError("left alone after failures")
        keys = [stored(hit.key) for hit in hits]
        arguments = [operation, *(value for hit in hits for value in _arguments(hit, now))]
        async with asyncio.timeout(self._deadline), self._free:
            await self._prepare()
            try:
                answer = await self._client.evalsha(_SHA, len(keys), *keys, *arguments)
            except NoScriptError:  # a new server, or one that was flushed
                answer = await self._client.eval(SCRIPT, len(keys), *keys, *arguments)
        self._circuit.answered()
        return list(answer)

    async def _prepare(self) -> None:
        """Learn a cluster's slots once, not in each of the first calls: the client is not made for that."""
        if self._cluster and not self._prepared:
            async with self._preparing:
                if not self._prepared:
                    await self._client.initialize()
                    self._prepared = True

    def _remembered(self, now: int, hits: Sequence[Hit]) -> Decision | None:
        figures = []
        for hit in hits:
            known = self._exhausted.get((hit.key, hit.limit.amount))
            if known is not None and now < known[0]:
                figures.append(Figure(hit.limit, 0, known[1], max(SECOND, known[1] - now), True))
        return Decision(False, now, tuple(figures)) if figures else None

    def _remember(
        self, now: int, hits: Sequence[Hit], groups: Iterable[Iterable[Hit]], decision: Decision
    ) -> None:
        """Only windows that stay exhausted until they end, and whatever a request costs."""
        if len(self._exhausted) >= REMEMBERED:
            self._exhausted.clear()
        ordered = [hit for group in groups for hit in group]
        for hit, figure in zip(ordered, decision.figures, strict=False):
            if (
                figure.short
                and not figure.remaining
                and isinstance(hit.limit, FixedWindow)
                and not hit.limit.shadow
            ):
                until = now + min(figure.wait, SECOND)
                self._exhausted[hit.key, hit.limit.amount] = (until, now + figure.wait)


def tag(key: str) -> str:
    """The part of a key that says who is counted: keys of the same client share a slot of a cluster."""
    return "|".join(part for part in key.split("|") if "=" in part)


def stored(key: str) -> str:
    """The key in Redis."""
    return f"{PREFIX}{{{tag(key)}}}{key}"


def _arguments(hit: Hit, now: int) -> tuple[str | int, ...]:
    limit = hit.limit
    return (
        limit.kind,
        limit.amount,
        limit.length,
        hit.cost,
        limit.burst if isinstance(limit, TokenBucket) else 0,
        int(limit.shadow),
        limit.lease if isinstance(limit, Concurrency) else 0,
        hit.lease,
        _ends(limit, now) if isinstance(limit, FixedWindow) else "",
    )


def _ends(limit: FixedWindow, now: int) -> str:
    """Where windows end: the present one and those around it, of which the server's clock chooses."""
    if limit.rolling:
        return "rolling"
    if limit.per in ("second", "minute") or (limit.zone == "UTC" and limit.per != "month"):
        return "utc"
    first = end_of(now - SECOND * 60, limit.per, limit.zone)
    second = end_of(first, limit.per, limit.zone)
    return f"{first},{second},{end_of(second, limit.per, limit.zone)}"


def _decision(groups: Sequence[Sequence[Hit]], answers: Sequence[Sequence[int]]) -> Decision:
    figures = []
    for group, answer in zip(groups, answers, strict=False):
        for number, hit in enumerate(group):
            room, reset, wait, short = answer[2 + 4 * number : 6 + 4 * number]
            figures.append(Figure(hit.limit, room, reset, wait, bool(short)))
    admitted = all(answer[1] for answer in answers)
    return Decision(admitted, answers[-1][0] if answers else 0, tuple(figures))
