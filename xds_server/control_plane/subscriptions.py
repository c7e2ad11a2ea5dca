"""Subscriptions of the marketplace on their way to policy servers: what has changed in the store, within a moment.

They are a snapshot of their own, in a group of nodes of their own: a changed key neither waits for a change of the
gateway nor makes one. While the store has not been read, nothing is served, so that policy servers keep what they have.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from filters.identity.key_lookup import BUCKETS, SUBSCRIBERS, Subscriber, bucket_of
from filters.policy_server import SUBSCRIBERS_CLUSTER
from xds_server.database import DatabaseFailed
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import custom
from xds_server.errors import EnvironmentFailed
from xds_server.marketplace import subscribers
from xds_server.marketplace.actor import GATEWAY
from xds_server.marketplace.store import Marketplace
from xds_server.serving.store import Store

log = logging.getLogger(__name__)

GROUP = SUBSCRIBERS_CLUSTER
"""The group of nodes that gets subscriptions."""
TYPE = custom(SUBSCRIBERS.name, SUBSCRIBERS.full_name)
PAUSE = 0.1
"""Seconds between two looks at the store."""
AWAY = 1.0
"""The same while the store cannot be read."""
_AT_ONCE = 20_000
"""Rows that are read in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionsStatus:
    """What is served. `sequence` numbers the last change; `clashes` are names that the gateway's files have too.

    `without_limits` are the plans that the gateway's files do not have, with the number of their subscriptions: no limits of a
    plan hold for these.
    """

    store: str
    complete: bool
    sequence: int
    subscriptions: int
    clashes: tuple[str, ...]
    without_limits: Mapping[str, int]
    problem: str

    def as_json(self) -> dict[str, Any]:
        """Return it for `xds status`."""
        return {
            "store": self.store,
            "complete": self.complete,
            "sequence": self.sequence,
            "subscriptions": self.subscriptions,
            "clashes": list(self.clashes),
            "without_limits": dict(self.without_limits),
            "problem": self.problem,
        }


class Subscriptions:
    """Follows a marketplace and publishes its subscriptions in a store.

    `written` returns the consumers of the gateway's files, which have precedence over a subscription with the same name.
    It returns the same object while they are the same. `plans` returns their plans, None before there are any.
    """

    def __init__(
        self,
        marketplace: Marketplace,
        store: Store,
        written: Callable[[], Collection[str]],
        plans: Callable[[], Collection[str] | None],
    ) -> None:
        self._marketplace, self._store, self._written, self._plans = marketplace, store, written, plans
        self._on_plan: Counter[str] = Counter()
        self._without_limits: Mapping[str, int] = {}
        self._buckets: list[dict[str, Subscriber]] = [{} for _ in range(BUCKETS)]
        self._resources: dict[int, Resource] = {}
        self._seen = 0
        self._migrated = self._complete = False
        self._checked: Collection[str] = ()
        self._clashes: frozenset[str] = frozenset()
        self._problem = ""

    def status(self) -> SubscriptionsStatus:
        """Return what is served now. It may be called in any thread."""
        return SubscriptionsStatus(
            store=self._marketplace.name,
            complete=self._complete,
            sequence=self._seen,
            subscriptions=sum(bool(one.keys) for bucket in self._buckets for one in tuple(bucket.values())),
            clashes=tuple(sorted(self._clashes)),
            without_limits=self._without_limits,
            problem=self._problem,
        )

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            try:
                await self._follow()
            except (DatabaseFailed, EnvironmentFailed) as failure:
                if not self._problem:
                    log.error(
                        "the marketplace store failed; keys that are known stay, and new ones wait store=%s error=%s",
                        self._marketplace.name,
                        failure,
                    )
                self._problem = str(failure)
                await asyncio.sleep(AWAY)
                continue
            if self._problem:
                self._problem = ""
                log.info("the marketplace store works again store=%s", self._marketplace.name)
            await asyncio.sleep(PAUSE)

    async def _follow(self) -> None:
        """Serve what has changed."""
        if not self._migrated:
            await asyncio.to_thread(self._marketplace.migrate)
            self._migrated = True
        changed = await asyncio.to_thread(self._read)
        changed |= self._look_for_clashes(changed)
        self._look_for_plans()
        if not self._complete:
            changed |= set(range(BUCKETS))
        if not changed:
            return
        began = time.perf_counter()
        made = await asyncio.to_thread(self._made, sorted(changed))
        self._resources.update(made)
        self._complete = True
        self._store.publish(Snapshot.of({TYPE: self._resources.values()}), GROUP)
        seconds = time.perf_counter() - began
        log.info(
            "subscriptions published changed=%d sequence=%d seconds=%.3f", len(changed), self._seen, seconds
        )

    def _read(self) -> set[int]:
        """Read what has changed in the store. Returns the buckets with changes. Raises DatabaseFailed."""
        changed: set[int] = set()
        while True:
            with self._marketplace.read(GATEWAY) as now:
                newest = subscribers.newest(now)
                if newest < self._seen:
                    log.warning(
                        "the marketplace store is older than before; all subscriptions are read again store=%s",
                        self._marketplace.name,
                    )
                    changed = {number for number, bucket in enumerate(self._buckets) if bucket}
                    for bucket in self._buckets:
                        bucket.clear()
                    self._on_plan.clear()
                    self._seen = 0
                rows = subscribers.changed_since(now, self._seen, _AT_ONCE)
            for row in rows:
                number = bucket_of(row.consumer)
                changed.add(number)
                before = self._buckets[number].get(row.consumer)
                if before is not None and before.keys:
                    self._on_plan[before.plan] -= 1
                if row.keys:
                    self._on_plan[row.plan] += 1
                self._buckets[number][row.consumer] = Subscriber(row.consumer, row.plan, row.apis, row.keys)
                self._seen = row.sequence
            if len(rows) < _AT_ONCE:
                return changed

    def _look_for_clashes(self, changed: Collection[int]) -> set[int]:
        """Find names that the gateway's files have too. Returns the buckets where that has changed."""
        written = self._written()
        if written is not self._checked:
            found = frozenset(name for name in written if name in self._buckets[bucket_of(name)])
            self._checked = written
        elif changed:
            others = (name for name in self._clashes if bucket_of(name) not in changed)
            names = (name for number in changed for name in self._buckets[number] if name in written)
            found = frozenset((*others, *names))
        else:
            return set()
        news, self._clashes, before = found - self._clashes, found, self._clashes
        for name in sorted(news):
            log.error(
                "consumers.%s of the gateway and the subscription '%s' of the marketplace have the same name; the keys of "
                "the subscription do not work; rename the consumer",
                name,
                name,
            )
        return {bucket_of(name) for name in found ^ before}

    def _look_for_plans(self) -> None:
        """Find plans of subscriptions that the gateway's files do not have, and report those that are new."""
        plans = self._plans()
        if plans is None:
            return
        found = {name: count for name, count in self._on_plan.items() if count and name not in plans}
        for name in sorted(found.keys() - self._without_limits.keys()):
            log.error(
                "the gateway has no plan '%s', so no limits of a plan hold for its subscriptions; write the plan, or change "
                "the subscriptions subscriptions=%d",
                name,
                found[name],
            )
        self._without_limits = found

    def _made(self, numbers: Iterable[int]) -> Mapping[int, Resource]:
        """Return the resources of some buckets."""
        made = {}
        for number in numbers:
            name = f"{number:04}"
            served = [
                one
                for one in self._buckets[number].values()
                if one.keys and one.consumer not in self._clashes
            ]
            made[number] = Resource.of(SUBSCRIBERS.build(name, served), name)
        return made
