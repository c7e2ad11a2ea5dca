"""The store of the marketplace: transactions, and the audit log of what they change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, TypeVar

from sqlalchemy import Connection, RowMapping, Select, Table, select

from xds_server.database import Database, DatabaseConflict, Tables
from xds_server.marketplace.actor import Actor, not_found
from xds_server.marketplace.errors import Conflict, Stale
from xds_server.marketplace.schema import AUDIT, REVISION

_TABLES = Tables(
    what="marketplace store",
    package="xds_server.marketplace",
    revision=REVISION,
    version_table="market_revision",
    lock=0x7864732D6D726B74,  # "xds-mrkt"
)
Version = int | frozenset[int] | None
"""The version of an object that the actor has seen, or some of which any will do; None if that does not matter."""
_SECRET = frozenset({"token", "sha256", "csrf", "hint"})
"""Columns that no audit entry has."""


class _Record(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


_R = TypeVar("_R", bound=_Record)


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction of an actor at a moment (`now`, in Unix seconds)."""

    connection: Connection
    actor: Actor
    now: int

    def one(self, record: type[_R], statement: Select[Any], what: str) -> _R:
        """Return the only row of a statement. Raises NotFound, with `what` it is."""
        found = self.maybe(record, statement)
        if found is None:
            raise not_found(what)
        return found

    def maybe(self, record: type[_R], statement: Select[Any]) -> _R | None:
        """Return the only row of a statement, None if there is none."""
        row = self.connection.execute(statement).mappings().one_or_none()
        return None if row is None else made(record, row)

    def all(self, record: type[_R], statement: Select[Any]) -> list[_R]:
        """Return the rows of a statement."""
        return [made(record, row) for row in self.connection.execute(statement).mappings()]

    def add(
        self, table: Table, kind: str, values: Mapping[str, Any], organisation: str | None = None
    ) -> None:
        """Add a row with an audit entry. `kind` names the object."""
        self.connection.execute(table.insert().values(**values))
        self.audit("create", kind, str(values["id"]), organisation, after=values)

    def change(
        self,
        table: Table,
        kind: str,
        before: Any,
        values: Mapping[str, Any],
        *,
        action: str = "update",
        version: Version = None,
        organisation: str | None = None,
    ) -> None:
        """Change a row that was read as `before`, with an audit entry.

        Raises Stale.
        """
        require_version(before, version)
        statement = table.update().where(table.c.id == before.id, table.c.version == before.version)
        changed = self.connection.execute(statement.values(**values, version=before.version + 1))
        if changed.rowcount != 1:
            raise stale()
        was = {name: getattr(before, name) for name in values}
        self.audit(action, kind, before.id, organisation, before=was, after=values)

    def audit(
        self,
        action: str,
        kind: str,
        object_: str,
        organisation: str | None = None,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """Add an audit entry. It has no secrets and no hashes of them."""
        values = {"before": _shown(before), "after": _shown(after), "organisation": organisation}
        row = {"at": self.now, "actor": self.actor.name, "action": action, "kind": kind, "object": object_}
        self.connection.execute(AUDIT.insert().values(**row, **values))


class Marketplace:
    """The store at a URL. `clock` gives Unix seconds. One that `exists` is not made. Raises WrongUsage, and
    EnvironmentFailed if it does not exist.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time, *, exists: bool = False) -> None:
        self._database = Database(url, _TABLES, reads=exists)
        self._clock = clock
        self.name = self._database.name

    def migrate(self) -> None:
        """Make or change the tables if needed. Raises DatabaseFailed, EnvironmentFailed."""
        self._database.migrate()

    @contextmanager
    def begin(self, actor: Actor) -> Iterator[Transaction]:
        """Begin a transaction that changes something. It is committed if the block ends well.

        Raises DatabaseFailed, and Conflict if another transaction was first.
        """
        try:
            with self._database.begin() as connection:
                yield Transaction(connection, actor, int(self._clock()))
        except DatabaseConflict:
            raise Conflict(
                "somebody else did the same at this moment; look at the result and try again"
            ) from None

    @contextmanager
    def read(self, actor: Actor) -> Iterator[Transaction]:
        """Begin a transaction that only reads. Raises DatabaseFailed."""
        with self._database.begin(writes=False) as connection:
            yield Transaction(connection, actor, int(self._clock()))

    def close(self) -> None:
        """Close all connections."""
        self._database.close()


def made(record: type[_R], row: RowMapping | Mapping[str, Any]) -> _R:
    """Return a record from a row. Lists of the row become tuples."""
    values = {one.name: row[one.name] for one in fields(record)}
    return record(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    )


def columns(record: type[Any], table: Table) -> Select[Any]:
    """Return a statement that reads a record from a table."""
    return select(*(table.c[one.name] for one in fields(record)))


def require_version(before: Any, version: Version) -> None:
    """Raise Stale if the actor has seen another version of an object."""
    seen = frozenset((version,)) if isinstance(version, int) else version
    if seen is not None and before.version not in seen:
        raise stale()


def stale() -> Stale:
    """Return the error for a change of a row that somebody else has changed."""
    return Stale("somebody else has changed this since you read it; read it again and repeat your change")


def _shown(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return (
        None if values is None else {name: _plain(one) for name, one in values.items() if name not in _SECRET}
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
