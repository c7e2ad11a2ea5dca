"""Exports of counted calls to billing systems of others, each call once, whatever is killed in between.

A number of calls is written down as pending before it is sent, with the identifier that it is sent with. After a failure
exactly the same is sent again, and the receiver knows the identifier. What was counted later is sent as one more event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import bindparam, select, tuple_

from xds_server.marketplace.actor import CLOCK
from xds_server.marketplace.schema import EXPORTS
from xds_server.marketplace.store import Marketplace, Transaction

AT_ONCE = 100
"""Events of one request. Lago takes at most 100."""


class ExportFailed(Exception):  # noqa: N818 - a state of another system, reported and tried again
    """The target cannot be reached, or takes nothing now."""


class EventsRejected(ExportFailed):
    """The target will not take these events, or one of them, however often they are sent."""


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
        """Send events; those that it knows already do nothing there. Raises ExportFailed, EventsRejected."""


Counts = Callable[[], Iterable[tuple[str, str, int, int]]]
"""Consumer, plan, hour and counted calls of all hours that are to be exported."""


def export(marketplace: Marketplace, target: Target, counts: Counts) -> int:
    """Send what the target does not have yet. Returns the calls that were sent.

    Events that the target rejects are left for the next time, and the others are sent. Raises ExportFailed, also if some were
    rejected; DatabaseFailed.
    """
    sending = _Sending(marketplace, target)
    sending.finish()
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
        sending.finish()
    if sending.rejected:
        consumer, reason = next(iter(sending.rejected.items()))
        raise ExportFailed(
            f"the calls of {len(sending.rejected)} consumers were rejected, such as those of {consumer} ({reason}); "
            f"{sending.sent} calls of others were sent"
        )
    return sending.sent


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


class _Sending:
    """Sends what is pending. `sent` are the calls that were, and `rejected` has a reason by consumer."""

    def __init__(self, marketplace: Marketplace, target: Target) -> None:
        self.sent = 0
        self.rejected: dict[str, str] = {}
        self._marketplace, self._target = marketplace, target

    def finish(self) -> None:
        """Send all that is pending, but for consumers that the target does not take, or has rejected already."""
        last: tuple[int, str, str] | None = None
        while True:
            with self._marketplace.read(CLOCK) as now:
                rows = _pending(now, self._target.name, last)
            if not rows:
                return
            last = (rows[-1]["hour"], rows[-1]["consumer"], rows[-1]["plan"])
            if taken := [one for one in rows if self._takes(one["consumer"])]:
                self._send(taken)

    def _takes(self, consumer: str) -> bool:
        return consumer not in self.rejected and self._target.takes(consumer)

    def _send(self, rows: Sequence[Any]) -> None:
        """Send rows together; one by one if the target rejects them."""
        events = [_event(self._target.name, row) for row in rows]
        try:
            self._target.send(events)
        except EventsRejected as error:
            if len(rows) == 1:
                self.rejected[rows[0]["consumer"]] = str(error)
                return
            for row in rows:
                if self._takes(row["consumer"]):
                    self._send([row])
            return
        with self._marketplace.begin(CLOCK) as now:
            _note_sent(now, self._target.name, rows)
        self.sent += sum(one.calls for one in events)


def _note_sent(now: Transaction, target: str, rows: Sequence[Any]) -> None:
    where = (EXPORTS.c.target == target) & (EXPORTS.c.consumer == bindparam("c"))
    where &= (EXPORTS.c.plan == bindparam("p")) & (EXPORTS.c.hour == bindparam("h"))
    where &= EXPORTS.c.pending == bindparam("n")
    done = [{"c": row["consumer"], "p": row["plan"], "h": row["hour"], "n": row["pending"]} for row in rows]
    now.connection.execute(EXPORTS.update().where(where).values(sent=bindparam("n"), pending=None), done)


def _pending(now: Transaction, target: str, after: tuple[int, str, str] | None) -> list[Any]:
    """Return the next rows behind one, in their order."""
    order = (EXPORTS.c.hour, EXPORTS.c.consumer, EXPORTS.c.plan)
    statement = select(EXPORTS).where(EXPORTS.c.target == target, EXPORTS.c.pending.is_not(None))
    if after is not None:
        statement = statement.where(tuple_(*order) > tuple_(*after))
    return list(now.connection.execute(statement.order_by(*order).limit(AT_ONCE)).mappings())


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
