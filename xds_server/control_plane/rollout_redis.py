"""The record of a rollout in Redis or Valkey. Two scripts read and change it, by the clock of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from redis.exceptions import RedisClusterException, RedisError

from filters.rate_limit.stores.redis_client import connect, disconnect
from xds_server.control_plane.rollout_replicas import LIVE
from xds_server.control_plane.rollout_store import Answer, Unreachable

TIMEOUT = 2.0
"""Seconds for an answer."""
PREFIX = "xds:rollout:"

_EXCHANGE = """
local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1000000
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.6f ', now) .. ARGV[2])
redis.call('EXPIRE', KEYS[2], 86400)
local found = redis.call('HGETALL', KEYS[2])
local answer = {string.format('%.6f', now), redis.call('GET', KEYS[1]) or ''}
for at = 1, #found, 2 do
  local age = now - tonumber(string.match(found[at + 1], '^%S+'))
  if age > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[2], found[at])
  else
    table.insert(answer, found[at])
    table.insert(answer, string.format('%.6f ', age) .. string.match(found[at + 1], '^%S+ (.*)$'))
  end
end
return answer
"""
_REPLACE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
_AWAY = (RedisError, RedisClusterException, OSError, TimeoutError, AttributeError)
"""The client raises AttributeError for a connection that it lost while another call used it."""
_T = TypeVar("_T")


class RedisRolloutStore:
    """The record `name` behind a URL of Redis, of the forms that counters have. Raises ValueError for another URL."""

    def __init__(self, url: str, name: str) -> None:
        self._client: Any = connect(url)
        record = f"{PREFIX}{{{name}}}"
        self._keys = (record, f"{record}:replicas")  # one hash tag, for a cluster
        self.name = f"Redis, key {record}"

    async def exchange(self, replica: str, report: bytes) -> Answer:
        """Keep a report, and return the record and the reports. Raises Unreachable."""
        now, record, *found = await self._ask(
            self._client.eval(_EXCHANGE, 2, *self._keys, replica, report, LIVE)
        )
        pairs = zip(found[::2], found[1::2], strict=True)
        reports = {one.decode(errors="replace"): body.split(b" ", 1) for one, body in pairs}
        return Answer(
            now=float(now),
            record=record,
            reports={one: (float(age), body) for one, (age, body) in reports.items()},
        )

    async def replace(self, old: bytes, new: bytes) -> bool:
        """Write the record if it still is `old`. Raises Unreachable."""
        return bool(await self._ask(self._client.eval(_REPLACE, 1, self._keys[0], old, new)))

    async def close(self, replica: str) -> None:
        """Remove the report, and close all connections."""
        with suppress(Unreachable):  # the report becomes too old by itself
            await self._ask(self._client.hdel(self._keys[1], replica))
        await disconnect(self._client)

    async def _ask(self, call: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(TIMEOUT):
                return await call
        except _AWAY as error:
            raise Unreachable(str(error) or f"no answer in {TIMEOUT:g} s") from None
