"""A database in SQLite or PostgreSQL: its URL, its engine, its transactions and its migrations.

SQLAlchemy is imported by this module, so a process that only checks a URL imports `database_url`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event, func, select
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from xds_server import database_url
from xds_server.errors import EnvironmentFailed, WrongUsage

BUSY = 5.0
"""Seconds to wait for another process that writes to SQLite."""
MIGRATING = 15.0
"""Seconds to wait for another process that makes the tables in SQLite."""
_PAUSE = 0.05
"""Seconds until a migration is tried again, because SQLite tells nobody when a lock is free."""
_POSTGRESQL = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}


class DatabaseFailed(Exception):  # noqa: N818 - a state of another process, reported and tried again
    """The database cannot be reached, is locked, or is full."""


class DatabaseConflict(DatabaseFailed):
    """Another transaction was first: what this one adds is there already, or what it refers to is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The tables of one part of the program in a database.

    `what` names the store in messages. `package` has the folder `migrations`, whose newest revision is `revision`; the
    table `version_table` has the one of the database. `lock` is the number of PostgreSQL's advisory lock for migrations.
    """

    what: str
    package: str
    revision: str
    version_table: str
    lock: int


class Database:
    """The database at a URL: ``sqlite:///FILE`` or ``postgresql://USER@HOST/DATABASE``.

    If it only `reads`, it must exist. Raises WrongUsage, EnvironmentFailed.
    """

    def __init__(self, url: str, tables: Tables, *, reads: bool = False) -> None:
        self._tables = tables
        self._engine = _engine(url, tables.what)
        if reads:
            self._ensure_file()
        self._writer = self._engine.execution_options(writes=True)
        self.name = self._engine.url.render_as_string(hide_password=True)
        self._file: tuple[int, int] | None = None

    @property
    def dialect(self) -> sqlalchemy.Dialect:
        """The dialect of SQL."""
        return self._engine.dialect

    def migrate(self) -> None:
        """Make or change the tables if needed. Raises DatabaseFailed, EnvironmentFailed.

        Servers that start together wait for the first one, which may take longer than any other transaction.
        """
        end = time.monotonic() + MIGRATING
        while True:
            try:
                self._migrate()
            except DatabaseFailed as failure:
                if "database is locked" not in str(failure) or time.monotonic() > end:
                    raise
                time.sleep(_PAUSE)
            else:
                return

    def _migrate(self) -> None:
        self._log_ahead()
        with self.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(self._tables.lock)))
            revision, newest = self.revision(connection), self._tables.revision
            if revision == newest:
                return
            if revision is not None and revision > newest:
                raise EnvironmentFailed(
                    f"the {self._tables.what} {self.name} was made by a newer version ({revision}); update this program"
                )
            _upgrade(connection, self._tables)

    def _log_ahead(self) -> None:
        """Let readers of SQLite never wait for the writer. The file keeps this."""
        if self._engine.dialect.name == "sqlite":
            with self._failing(), self._engine.connect() as connection:
                driver = connection.connection.dbapi_connection
                assert driver is not None
                driver.execute("PRAGMA journal_mode=WAL")

    def revision(self, connection: Connection) -> str | None:
        """Return the revision of the tables, None if there are none."""
        table = self._tables.version_table
        if not sqlalchemy.inspect(connection).has_table(table):
            return None
        version = connection.exec_driver_sql(f"SELECT version_num FROM {table}").scalar()  # noqa: S608 - a name of ours
        return None if version is None else str(version)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def begin(self, *, writes: bool = True) -> Iterator[Connection]:
        """Begin a transaction, which is committed if the block ends well. Raises DatabaseFailed, DatabaseConflict."""
        self._follow_file()
        with self._failing(), (self._writer if writes else self._engine).begin() as connection:
            yield connection

    def _follow_file(self) -> None:
        """Close the connections to a file of SQLite that was replaced, for example by a backup: they lead to the old one."""
        if self._engine.dialect.name == "sqlite" and self._engine.url.database:
            try:
                found = Path(self._engine.url.database).stat()
            except OSError:
                return
            file = found.st_dev, found.st_ino
            if self._file not in (None, file):
                self._engine.dispose()
            self._file = file

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise DatabaseConflict(_cause(error)) from None
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise DatabaseFailed(f"{_cause(error)} ({self.name})") from None

    def _ensure_file(self) -> None:
        """Raise EnvironmentFailed if there is no file. SQLite would create an empty one."""
        file = self._engine.url.database
        if self._engine.dialect.name == "sqlite" and not (file and Path(file).is_file()):
            raise EnvironmentFailed(f"there is no {self._tables.what} {file}; {_NAME_IT}")


def _cause(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(cause).split()) or type(cause).__name__


_NAME_IT = "name the one that its server uses with --store sqlite:///FILE"


def _engine(url: str, what: str) -> Engine:
    try:
        parsed = sqlalchemy.make_url(database_url.checked(url, what))
        if parsed.get_backend_name() == "sqlite":
            engine = sqlalchemy.create_engine(parsed, connect_args={"timeout": BUSY})
            event.listen(engine, "connect", _connected)
            event.listen(engine, "begin", _begin)
            return engine
        arguments = {name: value for name, value in _POSTGRESQL.items() if name not in parsed.query}
        return sqlalchemy.create_engine(parsed, connect_args=arguments, pool_pre_ping=True)
    except (ArgumentError, ValueError):
        raise WrongUsage(f"the URL of the {what} cannot be read; check its port and its options") from None
    except ImportError:
        raise WrongUsage(
            f"a {what} in PostgreSQL needs psycopg; install it with: pip install 'psycopg[binary]'"
        ) from None


def _connected(connection: Any, _record: Any) -> None:
    """Let SQLAlchemy begin transactions, and not the driver of SQLite. SQLite checks foreign keys only if it is told to."""
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: Connection) -> None:
    """Begin a transaction of SQLite. A writer takes the lock at once: a lock that is taken later can fail at once."""
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")


def _upgrade(connection: Connection, tables: Tables) -> None:
    """Run the migrations. Alembic is imported only then, because it is large."""
    from importlib.resources import files

    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files(tables.package) / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["version_table"] = tables.version_table
    command.upgrade(config, "head")
