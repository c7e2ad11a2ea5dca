"""The store: counts in SQLite or PostgreSQL. Several usage servers may share one PostgreSQL, and their counts add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Table, func, select

from xds_server.database import Database, Tables
from xds_server.errors import EnvironmentFailed
from xds_server.usage import latency, rollup
from xds_server.usage.rollup import Batch, Counted
from xds_server.usage.schema import BATCHES, DAYS, HOURS, REVISION, SPOOLS
from xds_server.usage.spool import Position

KEPT = 6 * 3600
"""Seconds for which the store knows a batch. It must be longer than Envoy sends one again (usage_entry.PATIENCE)."""
SUMS = ("requests", "bytes_received", "bytes_sent", "duration_ms")
"""The sums of reports, by their columns."""
_TABLES = Tables(
    what="usage store",
    package="xds_server.usage",
    revision=REVISION,
    version_table="usage_revision",
    lock=0x7864732D75736167,  # "xds-usag"
)


class StoreReplacedError(Exception):
    """The store is not the one that was there before: it has counted another part of the spool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a report contains. `since` and `until` are in hours since 1970; `by` are columns of the store or ``day``.

    With `latency`, the report also has the counts of requests by how long they took, in the columns of `latency`.
    """

    since: int | None = None
    until: int | None = None
    by: Sequence[str] = ()
    only: Mapping[str, Sequence[str]] | None = None
    latency: bool = False


class Store:
    """The store at a URL: ``sqlite:///FILE`` or ``postgresql://USER@HOST/DATABASE``.

    If it only `reads`, it must exist. Raises WrongUsage, EnvironmentFailed.
    """

    def __init__(self, url: str, *, reads: bool = False) -> None:
        self._database = Database(url, _TABLES, reads=reads)
        self.name = self._database.name
        dialect = self._database.dialect
        insert = import_module(f"sqlalchemy.dialects.{dialect.name}").insert
        self._upsert = {table: _upsert(insert, dialect, table) for table in (HOURS, DAYS)}
        self._note = insert(BATCHES).on_conflict_do_nothing().returning(BATCHES.c.batch)

    def migrate(self) -> None:
        """Make or change the tables if needed. Raises DatabaseFailed, EnvironmentFailed."""
        self._database.migrate()

    def position(self, spool: str) -> Position:
        """Return how far a spool is counted. Raises DatabaseFailed."""
        with self._database.begin() as connection:
            return _position(connection, spool)

    def add(
        self, spool: str, begin: Position, end: Position, batches: Sequence[Batch], counted: Counted, now: int
    ) -> int:
        """Add the counts of the batches between two positions of a spool, in one transaction, at `now` in Unix seconds.

        Returns the number of entries that are added. Batches that another server has counted are left out. It is safe
        to call this again after a failure, also if the transaction was committed: then nothing is added.
        Raises DatabaseFailed, StoreReplacedError.
        """
        with self._database.begin() as connection:
            if not _advance(connection, spool, begin, end):
                return counted.taken
            identities = {batch.identity for batch in batches}
            known = identities - self._new_batches(connection, identities, now)
            if known:
                counted = rollup.count_again(batches, counted, known)
            if counted.sums:
                rows = [(*key[:4], int(key[4]), *counted.sums[key]) for key in sorted(counted.sums)]
                connection.exec_driver_sql(self._upsert[HOURS], rows)
                connection.exec_driver_sql(self._upsert[DAYS], _by_day(counted.sums))
        return counted.taken

    def forget(self, before: int) -> None:
        """Forget batches that arrived before a time in Unix seconds. Raises DatabaseFailed."""
        with self._database.begin() as connection:
            connection.execute(BATCHES.delete().where(BATCHES.c.arrival < before))

    def report(self, question: Question) -> list[dict[str, Any]]:
        """Return a row for each group, in the order of the groups. Raises DatabaseFailed, EnvironmentFailed."""
        with self._database.begin(writes=False) as connection:
            if self._database.revision(connection) is None:
                raise EnvironmentFailed(
                    f"{self.name} is no usage store; name the one of the usage server with --store"
                )
            rows = connection.execute(_report(question)).mappings()
            return [{name: _plain(value) for name, value in row.items()} for row in rows]

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def _new_batches(self, connection: Connection, identities: AbstractSet[bytes], now: int) -> set[bytes]:
        """Note batches as counted. Returns those that were not."""
        if not identities:
            return set()
        rows = [{"batch": identity, "arrival": now} for identity in sorted(identities)]
        return {bytes(batch) for batch in connection.execute(self._note, rows).scalars()}


def _by_day(sums: rollup.Sums) -> list[tuple[Any, ...]]:
    """Return the rows to add to DAYS. They are in one order, because PostgreSQL locks them one after the other."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for (hour, consumer, plan, route, status), values in sums.items():
        key = consumer, hour - hour % 24, plan, route, int(status)
        known = found.get(key)
        found[key] = list(values) if known is None else [*map(sum, zip(known, values, strict=True))]
    return [(*key, *found[key]) for key in sorted(found)]


def _upsert(insert: Any, dialect: sqlalchemy.Dialect, table: Table) -> str:
    """Return the statement that adds sums to a row of a table, which is made if there is none.

    It is compiled once, with its values in the order of the columns: for many rows, the driver itself is four times as
    fast as SQLAlchemy.
    """
    statement = insert(table)
    adding = statement.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_={name: table.c[name] + statement.excluded[name] for name in (*SUMS, *latency.COLUMNS)},
    )
    positional = type(dialect)(paramstyle="qmark" if dialect.name == "sqlite" else "format")  # type: ignore[call-arg] # a parameter of both dialects
    return str(adding.compile(dialect=positional))


def _position(connection: Connection, spool: str) -> Position:
    statement = select(SPOOLS.c.segment, SPOOLS.c.position).where(SPOOLS.c.spool == spool)
    row = connection.execute(statement).one_or_none()
    return Position(0, 0) if row is None else Position(*row)


def _advance(connection: Connection, spool: str, begin: Position, end: Position) -> bool:
    """Move the mark of a spool from one position to another. Returns False if it is there already. Raises StoreReplacedError."""
    at = _position(connection, spool)
    if at == end and begin != end:
        return False
    if at != begin:
        raise StoreReplacedError
    if begin == (0, 0):
        connection.execute(SPOOLS.delete().where(SPOOLS.c.spool == spool))
        connection.execute(SPOOLS.insert().values(spool=spool, segment=end.segment, position=end.offset))
    else:
        connection.execute(
            SPOOLS.update().where(SPOOLS.c.spool == spool).values(segment=end.segment, position=end.offset)
        )
    return True


def _report(question: Question) -> sqlalchemy.Select[Any]:
    if _whole_days(question):
        table, time = DAYS, DAYS.c.day
        groups = {name: table.c[name] for name in question.by}
    else:
        table, time = HOURS, HOURS.c.hour
        day = (time - time % 24).label("day")
        groups = {name: day if name == "day" else table.c[name] for name in question.by}  # type: ignore[misc] # a label groups as a column does
    summed = (*SUMS, *latency.COLUMNS) if question.latency else SUMS
    sums = [func.coalesce(func.sum(table.c[name]), 0).label(name) for name in summed]
    statement = select(*groups.values(), *sums).group_by(*groups.values()).order_by(*groups.values())
    if question.since is not None:
        statement = statement.where(time >= question.since)
    if question.until is not None:
        statement = statement.where(time < question.until)
    for name, values in (question.only or {}).items():
        statement = statement.where(table.c[name].in_(_values(name, values)))
    return statement


def _whole_days(question: Question) -> bool:
    """True if sums by day are enough."""
    return "hour" not in question.by and not (question.since or 0) % 24 and not (question.until or 0) % 24


def _values(name: str, values: Iterable[str]) -> list[Any]:
    return [int(value) for value in values] if name == "status" else list(values)


def _plain(value: Any) -> Any:
    """Return PostgreSQL's sums of integers, which are decimals, as integers."""
    return value if isinstance(value, str) else int(value)
