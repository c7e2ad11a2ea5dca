"""The store: counts in SQLite or PostgreSQL. Several usage servers may share one PostgreSQL, and their counts add up."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event, func, select
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from xds_server.errors import EnvironmentFailed, WrongUsage
from xds_server.usage import rollup, store_url
from xds_server.usage.rollup import Batch, Counted
from xds_server.usage.schema import BATCHES, HOURS, REVISION, SPOOLS
from xds_server.usage.spool import Position

KEPT = 6 * 3600
"""Seconds for which the store knows a batch. It must be longer than Envoy sends one again (usage_entry.PATIENCE)."""
BUSY = 5.0
"""Seconds to wait for another process that writes to SQLite."""
_SUMS = ("requests", "bytes_received", "bytes_sent", "duration_ms")
_POSTGRESQL = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_MIGRATION_LOCK = 0x7864732D75736167
"""The number of PostgreSQL's advisory lock: "xds-usag"."""


class StoreFailed(Exception):  # noqa: N818 - a state of another process, reported and tried again
    """The store cannot be reached, is locked, or is full."""


class StoreReplacedError(Exception):
    """The store is not the one that was there before: it has counted another part of the spool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a report contains. `since` and `until` are in hours since 1970; `by` are columns of the store or ``day``."""

    since: int | None = None
    until: int | None = None
    by: Sequence[str] = ()
    only: Mapping[str, Sequence[str]] | None = None


class Store:
    """The store at a URL: ``sqlite:///FILE`` or ``postgresql://USER@HOST/DATABASE``.

    If it only `reads`, it must exist. Raises WrongUsage, EnvironmentFailed.
    """

    def __init__(self, url: str, *, reads: bool = False) -> None:
        self._engine = _engine(url)
        if reads:
            _ensure_file(self._engine)
        self._writer = self._engine.execution_options(writes=True)
        self.name = self._engine.url.render_as_string(hide_password=True)
        insert = import_module(f"sqlalchemy.dialects.{self._engine.dialect.name}").insert
        self._upsert = _upsert(insert, self._engine.dialect)
        self._note = insert(BATCHES).on_conflict_do_nothing().returning(BATCHES.c.batch)

    def migrate(self) -> None:
        """Make or change the tables if needed. Raises StoreFailed, EnvironmentFailed."""
        self._log_ahead()
        with self._begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            revision = _revision(connection)
            if revision == REVISION:
                return
            if revision is not None and revision > REVISION:
                raise EnvironmentFailed(
                    f"the usage store {self.name} was made by a newer version ({revision}); update this program"
                )
            _upgrade(connection)

    def _log_ahead(self) -> None:
        """Let readers of SQLite never wait for the writer. The file keeps this."""
        if self._engine.dialect.name == "sqlite":
            with self._failing(), self._engine.connect() as connection:
                driver = connection.connection.dbapi_connection
                assert driver is not None
                driver.execute("PRAGMA journal_mode=WAL")

    def position(self, spool: str) -> Position:
        """Return how far a spool is counted. Raises StoreFailed."""
        with self._begin() as connection:
            return _position(connection, spool)

    def add(
        self, spool: str, begin: Position, end: Position, batches: Sequence[Batch], counted: Counted, now: int
    ) -> int:
        """Add the counts of the batches between two positions of a spool, in one transaction, at `now` in Unix seconds.

        Returns the number of entries that are added. Batches that another server has counted are left out. It is safe
        to call this again after a failure, also if the transaction was committed: then nothing is added.
        Raises StoreFailed, StoreReplacedError.
        """
        with self._begin() as connection:
            if not _advance(connection, spool, begin, end):
                return counted.taken
            identities = {batch.identity for batch in batches}
            known = identities - self._new_batches(connection, identities, now)
            if known:
                counted = rollup.count_again(batches, counted, known)
            if counted.sums:
                rows = [(*key[:4], int(key[4]), *counted.sums[key]) for key in sorted(counted.sums)]
                connection.exec_driver_sql(self._upsert, rows)
        return counted.taken

    def forget(self, before: int) -> None:
        """Forget batches that arrived before a time in Unix seconds. Raises StoreFailed."""
        with self._begin() as connection:
            connection.execute(BATCHES.delete().where(BATCHES.c.arrival < before))

    def report(self, question: Question) -> list[dict[str, Any]]:
        """Return a row for each group, in the order of the groups. Raises StoreFailed, EnvironmentFailed."""
        with self._begin(writes=False) as connection:
            if _revision(connection) is None:
                raise EnvironmentFailed(
                    f"{self.name} is no usage store; name the one of the usage server with --store"
                )
            rows = connection.execute(_report(question)).mappings()
            return [{name: _plain(value) for name, value in row.items()} for row in rows]

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _begin(self, *, writes: bool = True) -> Iterator[Connection]:
        with self._failing(), (self._writer if writes else self._engine).begin() as connection:
            yield connection

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise StoreFailed(" ".join(str(cause).split()) or type(cause).__name__) from None

    def _new_batches(self, connection: Connection, identities: AbstractSet[bytes], now: int) -> set[bytes]:
        """Note batches as counted. Returns those that were not."""
        if not identities:
            return set()
        rows = [{"batch": identity, "arrival": now} for identity in sorted(identities)]
        return {bytes(batch) for batch in connection.execute(self._note, rows).scalars()}


def _upsert(insert: Any, dialect: sqlalchemy.Dialect) -> str:
    """Return the statement that adds sums to a row of HOURS, which is made if there is none.

    It is compiled once, with its values in the order of the columns: for many rows, the driver itself is four times as
    fast as SQLAlchemy.
    """
    statement = insert(HOURS)
    adding = statement.on_conflict_do_update(
        index_elements=list(HOURS.primary_key),
        set_={name: HOURS.c[name] + statement.excluded[name] for name in _SUMS},
    )
    positional = type(dialect)(paramstyle="qmark" if dialect.name == "sqlite" else "format")  # type: ignore[call-arg] # a parameter of both dialects
    return str(adding.compile(dialect=positional))


def _engine(url: str) -> Engine:
    try:
        parsed = sqlalchemy.make_url(store_url.checked(url))
        if parsed.get_backend_name() == "sqlite":
            engine = sqlalchemy.create_engine(parsed, connect_args={"timeout": BUSY})
            event.listen(engine, "connect", _manual)
            event.listen(engine, "begin", _begin)
            return engine
        arguments = {name: value for name, value in _POSTGRESQL.items() if name not in parsed.query}
        return sqlalchemy.create_engine(parsed, connect_args=arguments, pool_pre_ping=True)
    except (ArgumentError, ValueError):
        raise WrongUsage(
            "the URL of the usage store cannot be read; check its port and its options"
        ) from None
    except ImportError:
        raise WrongUsage(
            "a usage store in PostgreSQL needs psycopg; install it with: pip install 'psycopg[binary]'"
        ) from None


def _ensure_file(engine: Engine) -> None:
    """Raise EnvironmentFailed if there is no file. SQLite would create an empty one."""
    file = engine.url.database
    if engine.dialect.name == "sqlite" and not (file and Path(file).is_file()):
        raise EnvironmentFailed(
            f"there is no usage store {file}; name the one of the usage server with --store sqlite:///FILE"
        )


def _manual(connection: Any, _record: Any) -> None:
    """Let SQLAlchemy begin transactions, and not the driver of SQLite."""
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    """Begin a transaction of SQLite. A writer takes the lock at once: a lock that is taken later can fail at once."""
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")


def _revision(connection: Connection) -> str | None:
    if not sqlalchemy.inspect(connection).has_table("usage_revision"):
        return None
    found = connection.exec_driver_sql("SELECT version_num FROM usage_revision").scalar()
    return None if found is None else str(found)


def _upgrade(connection: Connection) -> None:
    """Run the migrations. Alembic is imported only then, because it is large."""
    from importlib.resources import files

    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option(
        "script_location", str(files("xds_server.usage") / "migrations").replace("%", "%%")
    )
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


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
    groups = {
        name: (HOURS.c.hour - HOURS.c.hour % 24).label("day") if name == "day" else HOURS.c[name]
        for name in question.by
    }
    sums = [func.coalesce(func.sum(HOURS.c[name]), 0).label(name) for name in _SUMS]
    statement = select(*groups.values(), *sums).group_by(*groups.values()).order_by(*groups.values())
    if question.since is not None:
        statement = statement.where(HOURS.c.hour >= question.since)
    if question.until is not None:
        statement = statement.where(HOURS.c.hour < question.until)
    for name, values in (question.only or {}).items():
        statement = statement.where(HOURS.c[name].in_(_values(name, values)))
    return statement


def _values(name: str, values: Iterable[str]) -> list[Any]:
    return [int(value) for value in values] if name == "status" else list(values)


def _plain(value: Any) -> Any:
    """Return PostgreSQL's sums of integers, which are decimals, as integers."""
    return value if isinstance(value, str) else int(value)
