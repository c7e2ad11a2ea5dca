"""The record of a rollout in PostgreSQL: a row, and a row for the report of each replica. The clock is the server's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, LiteralString, TypeVar

import psycopg

from xds_server.control_plane.rollout_replicas import LIVE
from xds_server.control_plane.rollout_store import Answer, Unreachable

TIMEOUT = 2.0
"""Seconds for an answer, and for opening the connection."""
_LOCK = 0x7864732D726F6C6C
"""The number of PostgreSQL's advisory lock: "xds-roll"."""
_TABLES: LiteralString = (
    "create table if not exists xds_rollout (name text primary key, record bytea not null); "
    "create table if not exists xds_rollout_replica (name text, replica text, at timestamptz not null, "
    "report bytea not null, primary key (name, replica))"
)
_REPORT: LiteralString = (
    "insert into xds_rollout_replica values (%s, %s, clock_timestamp(), %s) on conflict (name, replica) "
    "do update set at = excluded.at, report = excluded.report"
)
_READ: LiteralString = (
    "select extract(epoch from clock_timestamp())::float8, (select record from xds_rollout where name = %s)"
)
_REPORTS: LiteralString = "select replica, extract(epoch from clock_timestamp() - at)::float8, report from xds_rollout_replica where name = %s"
_PRUNE: LiteralString = (
    "delete from xds_rollout_replica where name = %s and at < clock_timestamp() - make_interval(secs => %s)"
)
_T = TypeVar("_T")
_Connection = psycopg.AsyncConnection[Any]


class PostgresRolloutStore:
    """The record `name` in the database at a URL. The tables are made if they are missing."""

    def __init__(self, url: str, name: str) -> None:
        self._url, self._record = url, name
        self._connection: _Connection | None = None
        self._lock = asyncio.Lock()
        self.name = f"PostgreSQL, record {name} of the table xds_rollout"

    async def exchange(self, replica: str, report: bytes) -> Answer:
        """Keep a report, and return the record and the reports. Raises Unreachable."""

        async def ask(connection: _Connection) -> Answer:
            await connection.execute(_REPORT, (self._record, replica, report))
            await connection.execute(_PRUNE, (self._record, LIVE))
            now, record = await (await connection.execute(_READ, (self._record,))).fetchone() or (0.0, None)
            rows = await (await connection.execute(_REPORTS, (self._record,))).fetchall()
            reports = {one: (age, bytes(body)) for one, age, body in rows}
            return Answer(now=now, record=bytes(record or b""), reports=reports)

        return await self._ask(ask)

    async def replace(self, old: bytes, new: bytes) -> bool:
        """Write the record if it still is `old`. Raises Unreachable."""

        async def ask(connection: _Connection) -> bool:
            if old:
                query: LiteralString = "update xds_rollout set record = %s where name = %s and record = %s"
                found = await connection.execute(query, (new, self._record, old))
            else:
                query = "insert into xds_rollout values (%s, %s) on conflict (name) do nothing"
                found = await connection.execute(query, (self._record, new))
            return found.rowcount == 1

        return await self._ask(ask)

    async def close(self, replica: str) -> None:
        """Remove the report, and close the connection."""

        async def ask(connection: _Connection) -> None:
            query: LiteralString = "delete from xds_rollout_replica where name = %s and replica = %s"
            await connection.execute(query, (self._record, replica))

        with suppress(Unreachable):  # the report becomes too old by itself
            await self._ask(ask)
        if self._connection is not None:
            await self._connection.close()

    async def _ask(self, call: Callable[[_Connection], Awaitable[_T]]) -> _T:
        """Ask, and open the connection before if there is none. After a failure the next call opens another one."""
        try:
            async with self._lock, asyncio.timeout(TIMEOUT):
                if self._connection is None or self._connection.closed:
                    self._connection = await self._connected()
                return await call(self._connection)
        except (psycopg.Error, OSError, TimeoutError) as error:
            if self._connection is not None:
                await self._connection.close()
                self._connection = None
            first = str(error).strip().partition("\n")[0]
            raise Unreachable(first or f"no answer in {TIMEOUT:g} s") from None

    async def _connected(self) -> _Connection:
        options: dict[str, Any] = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
        found = await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=int(TIMEOUT), **options
        )
        async with found.transaction():
            await found.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            await found.execute(_TABLES)
        return found
