"""Counts of the usage store as billing and the pages need them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from xds_server.errors import EnvironmentFailed
from xds_server.marketplace import subscriptions
from xds_server.marketplace.store import Transaction
from xds_server.usage.store import Question, Store

HOUR = 3600


def counted_by(store: Store) -> Callable[[str, int, int], Mapping[tuple[str, int], int]]:
    """Return a function that counts the calls of a consumer by plan and status. It raises DatabaseFailed."""

    def counted(consumer: str, since: int, until: int) -> Mapping[tuple[str, int], int]:
        rows = store.report(
            Question(
                since=since // HOUR, until=until // HOUR, by=("plan", "status"), only={"consumer": [consumer]}
            )
        )
        return {(str(row["plan"]), int(row["status"])): int(row["requests"]) for row in rows}

    return counted


def by_hour(store: Store, since: int, until: int) -> list[dict[str, Any]]:
    """Return the calls of all consumers by hour, plan and status between two hours since 1970. Raises DatabaseFailed."""
    return store.report(Question(since=since, until=until, by=("consumer", "plan", "hour", "status")))


def of_actor(
    store: Store, now: Transaction, days: int, groups: tuple[str, ...], at: float
) -> list[dict[str, Any]]:
    """Return the sums of the subscriptions of the actor's organisations, for a publisher those of all consumers.

    They are those of some days until `at`, in Unix seconds. Raises DatabaseFailed.
    """
    consumers = None if now.actor.publishes else subscriptions.consumers(now)
    last = int(at) // HOUR
    try:
        return by_days(store, consumers, last - (days - 1) * 24, last, groups)
    except EnvironmentFailed:  # the usage server has counted nothing yet
        return []


def by_days(
    store: Store, consumers: list[str] | None, first: int, last: int, groups: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Return calls, bytes and times of some consumers, None for all, in some days, by groups.

    The days are given by an hour of the first and of the last one, in hours since 1970. Raises DatabaseFailed.
    """
    if consumers is not None and not consumers:
        return []
    only = {} if consumers is None else {"consumer": consumers}
    since, until = first - first % 24, last - last % 24 + 24
    return store.report(Question(since=since, until=until, by=groups, only=only, latency=True))
