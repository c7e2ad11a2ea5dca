"""Exports of counted calls to billing systems of others, each call once, whatever is killed in between.

A number of calls is written down as pending before it is sent, with the identifier that it is sent with. After a failure
exactly the same is sent again, and the receiver knows the identifier. What was counted later is sent as one more event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import bindparam, select

from xds_server.marketplace.actor import CLOCK
from xds_server.marketplace.schema import EXPORTS
from xds_server.marketplace.store import Marketplace, Transaction

AT_ONCE = 100
"""Events of one request. Lago takes at most 100."""


class ExportFailed(Exception):  # noqa: N818 - a state of another system, reported and tried again
    """The target cannot be reached, or rejects what is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Calls of a consumer on a plan in one hour (since 1970 in UTC). `id` is the same whenever the same is sent."""

    id: str
    consumer: str
    plan: str
    hour: int
    calls: int


class Target(Protocol):
    """A billing system. `name` keeps what it has apart from what others have."""

    name: str

    def takes(self, consumer: str) -> bool:
        """True if the target knows a consumer. Calls of others are kept until it does."""

    def send(self, events: Sequence[Event]) -> None:
        """Send events; those that it knows already do nothing there. Raises ExportFailed."""


Counts = Callable[[], Iterable[tuple[str, str, int, int]]]
"""Consumer, plan, hour and counted calls of all hours that are to be exported."""


def export(marketplace: Marketplace, target: Target, counts: Counts) -> int:
    """Send what the target does not have yet. Returns the calls that were sent. Raises ExportFailed, DatabaseFailed."""
    sent = _finish(marketplace, target)
    wanted = {
        (consumer, plan, hour): calls
        for consumer, plan, hour, calls in counts()
        if calls and target.takes(consumer)
    }
    keys = sorted(wanted)
    for begin in range(0, len(keys), AT_ONCE):
        part = keys[begin : begin + AT_ONCE]
        with marketplace.begin(CLOCK) as now:
            _note(now, target.name, {key: wanted[key] for key in part})
        sent += _finish(marketplace, target)
    return sent


def _note(now: Transaction, target: str, wanted: dict[tuple[str, str, int], int]) -> None:
    """Write down what is sent next. What another process sends now is left alone."""
    hours = {hour for _, _, hour in wanted}
    rows = now.connection.execute(
        select(EXPORTS).where(EXPORTS.c.target == target, EXPORTS.c.hour.in_(hours))
    ).mappings()
    known = {(row["consumer"], row["plan"], row["hour"]): row for row in rows}
    new = [
        {"target": target, "consumer": key[0], "plan": key[1], "hour": key[2], "sent": 0, "pending": calls}
        for key, calls in wanted.items()
        if key not in known
    ]
    more = [
        {"c": key[0], "p": key[1], "h": key[2], "pending": calls}
        for key, calls in wanted.items()
        if key in known and known[key]["pending"] is None and calls > known[key]["sent"]
    ]
    if new:
        now.connection.execute(EXPORTS.insert(), new)
    if more:
        where = (EXPORTS.c.consumer == bindparam("c")) & (EXPORTS.c.plan == bindparam("p"))
        where &= (EXPORTS.c.hour == bindparam("h")) & (EXPORTS.c.target == target)
        where &= EXPORTS.c.pending.is_(None) & (EXPORTS.c.sent < bindparam("pending"))
        now.connection.execute(EXPORTS.update().where(where).values(pending=bindparam("pending")), more)


def _finish(marketplace: Marketplace, target: Target) -> int:
    """Send what is pending. Returns the calls that were sent."""
    sent = 0
    while True:
        with marketplace.read(CLOCK) as now:
            rows = list(_pending(now, target.name))
        if not rows:
            return sent
        events = [_event(target.name, row) for row in rows]
        target.send(events)
        with marketplace.begin(CLOCK) as now:
            where = (EXPORTS.c.target == target.name) & (EXPORTS.c.consumer == bindparam("c"))
            where &= (EXPORTS.c.plan == bindparam("p")) & (EXPORTS.c.hour == bindparam("h"))
            where &= EXPORTS.c.pending == bindparam("n")
            done = [
                {"c": row["consumer"], "p": row["plan"], "h": row["hour"], "n": row["pending"]}
                for row in rows
            ]
            now.connection.execute(
                EXPORTS.update().where(where).values(sent=bindparam("n"), pending=None), done
            )
        sent += sum(one.calls for one in events)


def _pending(now: Transaction, target: str) -> Iterator[Any]:
    statement = select(EXPORTS).where(EXPORTS.c.target == target, EXPORTS.c.pending.is_not(None))
    order = (EXPORTS.c.hour, EXPORTS.c.consumer, EXPORTS.c.plan)
    yield from now.connection.execute(statement.order_by(*order).limit(AT_ONCE)).mappings()


def _event(target: str, row: Any) -> Event:
    parts = (target, row["consumer"], row["plan"], str(row["hour"]), str(row["sent"]), str(row["pending"]))
    identity = hashlib.sha256("\t".join(parts).encode()).hexdigest()[:32]
    return Event(
        id=identity,
        consumer=row["consumer"],
        plan=row["plan"],
        hour=row["hour"],
        calls=row["pending"] - row["sent"],
    )
