"""What policy servers need of subscriptions, in the order of the changes: a table that a control plane follows.

Each row belongs to one subscription. It changes in the transaction that changes the subscription, its keys or its
product, and gets the next number then. Numbers are committed in their order, because a transaction holds the lock of the
counter until its end. So whoever has read all rows up to a number misses none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import RowMapping, bindparam, func, select

from xds_server.marketplace.records import Subscriber
from xds_server.marketplace.schema import COUNTERS, KEYS, LIVE_STATES, PRODUCTS, SUBSCRIBERS, SUBSCRIPTIONS
from xds_server.marketplace.store import Transaction

_COUNTER = "subscribers"


def refresh(transaction: Transaction, subscription: str) -> None:
    """Bring the row of one subscription up to date."""
    _refresh(transaction, SUBSCRIPTIONS.c.id == subscription)


def refresh_product(transaction: Transaction, product: str) -> None:
    """Bring the rows of all subscriptions to a product up to date."""
    _refresh(transaction, (SUBSCRIPTIONS.c.product == product) & SUBSCRIPTIONS.c.state.in_(LIVE_STATES))


def plans_in_use(transaction: Transaction, product: str) -> set[str]:
    """Return the plans of a product that have subscriptions which have not ended."""
    where = (SUBSCRIPTIONS.c.product == product) & SUBSCRIPTIONS.c.state.in_(LIVE_STATES)
    return set(transaction.connection.execute(select(SUBSCRIPTIONS.c.plan).where(where).distinct()).scalars())


def newest(transaction: Transaction) -> int:
    """Return the number of the last change."""
    found = select(COUNTERS.c.value).where(COUNTERS.c.name == _COUNTER)
    return int(transaction.connection.execute(found).scalar() or 0)


def changed_since(transaction: Transaction, sequence: int, limit: int) -> list[Subscriber]:
    """Return the subscribers that have changed after a number, at most `limit`, in the order of the changes."""
    statement = select(SUBSCRIBERS).where(SUBSCRIBERS.c.sequence > sequence)
    rows = transaction.connection.execute(statement.order_by(SUBSCRIBERS.c.sequence).limit(limit)).mappings()
    return [_subscriber(row) for row in rows]


def _subscriber(row: RowMapping) -> Subscriber:
    return Subscriber(
        consumer=row["consumer"],
        plan=row["plan"],
        apis=tuple(row["apis"]),
        keys=tuple((bytes.fromhex(sha256), not_after) for sha256, not_after in row["keys"] or ()),
        sequence=row["sequence"],
    )


def _refresh(transaction: Transaction, where: Any) -> None:
    joined = SUBSCRIPTIONS.join(PRODUCTS, PRODUCTS.c.id == SUBSCRIPTIONS.c.product)
    wanted = select(SUBSCRIPTIONS, PRODUCTS.c.apis).select_from(joined).where(where)
    # The lock comes first: what is read before it may change until this transaction is committed.
    lock = select(COUNTERS.c.value).where(COUNTERS.c.name == _COUNTER).with_for_update()
    transaction.connection.execute(lock)
    found = transaction.connection.execute(wanted.order_by(SUBSCRIPTIONS.c.id)).mappings().all()
    if not found:
        return
    first = _take_numbers(transaction, len(found))
    keys = _keys(transaction, [row["id"] for row in found if row["state"] == "active"])
    rows = [
        {
            "consumer": row["consumer"],
            "sequence": first + number,
            "plan": row["plan"],
            "apis": row["apis"],
            "keys": _working(keys.get(row["id"], ()), row["expires"]),
        }
        for number, row in enumerate(found)
    ]
    known = {row["consumer"] for row in rows} & set(
        transaction.connection.execute(
            select(SUBSCRIBERS.c.consumer).where(
                SUBSCRIBERS.c.consumer.in_([row["consumer"] for row in rows])
            )
        ).scalars()
    )
    new = [row for row in rows if row["consumer"] not in known]
    old = [{**row, "at": row["consumer"]} for row in rows if row["consumer"] in known]
    if new:
        transaction.connection.execute(SUBSCRIBERS.insert(), new)
    if old:
        update = SUBSCRIBERS.update().where(SUBSCRIBERS.c.consumer == bindparam("at"))
        changed: dict[str, Any] = {name: bindparam(name) for name in ("sequence", "plan", "apis", "keys")}
        transaction.connection.execute(update.values(**changed), [_without_consumer(row) for row in old])


def _without_consumer(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "consumer"}


def _take_numbers(transaction: Transaction, count: int) -> int:
    """Return the first of `count` numbers. Until the end of the transaction, no other one gets any."""
    update = COUNTERS.update().where(COUNTERS.c.name == _COUNTER).values(value=COUNTERS.c.value + count)
    last = transaction.connection.execute(update.returning(COUNTERS.c.value)).scalar_one()
    return int(last) - count + 1


def _keys(transaction: Transaction, subscriptions: Iterable[str]) -> dict[str, list[tuple[str, int]]]:
    found: dict[str, list[tuple[str, int]]] = {}
    listed = list(subscriptions)
    for begin in range(0, len(listed), 500):  # SQLite takes a bounded number of parameters
        part = listed[begin : begin + 500]
        statement = select(KEYS.c.subscription, KEYS.c.sha256, func.coalesce(KEYS.c.not_after, 0))
        rows = transaction.connection.execute(
            statement.where(KEYS.c.subscription.in_(part)).order_by(KEYS.c.slot)
        )
        for subscription, sha256, not_after in rows:
            found.setdefault(subscription, []).append((bytes(sha256).hex(), int(not_after)))
    return found


def _working(keys: Iterable[tuple[str, int]], expires: int | None) -> list[list[Any]] | None:
    """Return the keys with the earlier of their own end and that of the subscription; None if there are none."""
    ends = [[sha256, min(filter(None, (end, expires)), default=0)] for sha256, end in keys]
    return ends or None
