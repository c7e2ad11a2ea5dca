"""Clients of Redis and Valkey: of one server, of a cluster, or of the master that Sentinels name."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.exceptions import RedisError

from filters.rate_limit.stores.silence import silence_timeout

ANSWER = 0.1
"""Seconds in which a Sentinel must answer, so that one that is silent does not hold a connection up."""

FOLLOW = 1.0
"""Seconds between two questions for the master."""


class Sentinels(Sentinel):
    """Sentinels that are all asked at once. The library asks one after the other, and waits for each that is silent."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return the address of the master. Raises MasterNotFoundError.

        If Sentinels disagree, the one with the newest configuration is right (the highest epoch).
        """
        asking = [asyncio.ensure_future(one.sentinel_masters()) for one in self.sentinels]
        await asyncio.wait(asking, timeout=ANSWER)
        states = [state for one in asking if (state := self._state(one, service_name)) is not None]
        if not states:
            raise MasterNotFoundError(f"no Sentinel knows a master '{service_name}'")
        newest = max(states, key=lambda state: int(state["config-epoch"]))
        return str(newest["ip"]), int(newest["port"])

    def _state(self, asked: asyncio.Future[Any], service_name: str) -> dict[str, Any] | None:
        """Return what a Sentinel says of the master, None if it has not answered or sees no master that works."""
        if not asked.done():
            asked.cancel()
            return None
        error = asked.exception()
        if isinstance(error, RedisError | OSError):
            return None
        state: dict[str, Any] | None = asked.result().get(service_name)
        return state if state and self.check_master_state(state, service_name) else None


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
        sentinels: Any = Sentinels(  # type: ignore[no-untyped-call]
            _addresses(parts.netloc), sentinel_kwargs=options, **options
        )
        master: Any = sentinels.master_for(name)
        return master
    return Redis.from_url(url, **options)


async def follow(pool: SentinelConnectionPool) -> None:
    """Learn of a new master also while the old one still answers, because the old one counts for itself then."""
    while True:
        await asyncio.sleep(FOLLOW)
        with suppress(RedisError, OSError):
            await pool.get_master_address()  # type: ignore[no-untyped-call]


async def to_master(pool: SentinelConnectionPool, connection: Any, seconds: float) -> None:
    """Open a connection again if it is closed, or goes to an earlier master. Raises TimeoutError, or the client's errors."""
    if connection.is_connected and (connection.host, connection.port) == pool.master_address:
        return
    async with silence_timeout(seconds):
        await connection.disconnect()
        await connection.connect()


async def disconnect(client: Any) -> None:
    """Close all connections of a client of `connect`."""
    await client.aclose()
    pool = getattr(client, "connection_pool", None)
    if pool is not None:
        await pool.disconnect(inuse_connections=True)
    for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
        await sentinel.aclose()


def _addresses(netloc: str) -> list[tuple[str, int]]:
    found = [one.rpartition(":") for one in netloc.split(",")]
    return [(host.strip("[]"), int(port)) for host, _, port in found]
