"""A marketplace of some size for benchmarks: its gateway's folder, its store and its usage store."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Table, func, select

from benchmarks.catalog import Words, document
from xds_server.marketplace import logins, names, people
from xds_server.marketplace.actor import COMMAND, VISITOR
from xds_server.marketplace.schema import (
    APPLICATIONS,
    COUNTERS,
    KEYS,
    MEMBERS,
    ORGANISATIONS,
    PRODUCTS,
    SUBSCRIBERS,
    SUBSCRIPTIONS,
    USERS,
)
from xds_server.marketplace.store import Marketplace, Transaction
from xds_server.usage import latency
from xds_server.usage.rollup import Counted
from xds_server.usage.spool import Position
from xds_server.usage.store import Store

APIS, PRODUCTS_OF, OPERATIONS = 1_000, 100, 10
ORGANISATIONS_OF, DEVELOPERS_EACH, APPLICATIONS_EACH, SUBSCRIPTIONS_EACH = 2_000, 5, 5, 10
DEVELOPERS = ORGANISATIONS_OF * DEVELOPERS_EACH
SUBSCRIPTIONS_OF = ORGANISATIONS_OF * APPLICATIONS_EACH * SUBSCRIPTIONS_EACH
WAITING = 200
"""Subscriptions that wait for approval."""
CALLS, HOURS_OF = 100_000_000, 90 * 24
_STATUSES = {"200": 97, "404": 3}
"""Statuses and their percentages."""
_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Cookies of a developer and of a publisher, and an API token of the developer, with what the organisation has.

    `subscriptions` are their consumers.
    """

    developer: str
    publisher: str
    token: str
    application: str
    subscriptions: tuple[str, ...]


def write_gateway(folder: Path, port: int, portal: str) -> None:
    """Write a gateway with the APIs and the products. Envoy answers its routes itself, on a port."""
    folder.mkdir(parents=True)
    words = Words(random.Random(1))
    for number in range(APIS):
        (folder / f"api{number}.json").write_bytes(document(words, OPERATIONS))
    numbers = range(APIS)
    each = APIS // PRODUCTS_OF
    gateway = {
        "listeners": {"http": {"port": port, "address": "127.0.0.1"}},
        "plans": {"free": {}, "gold": {}},
        "policies": {"api_key": True},
        "routes": {f"api{one}": {"path": f"/api{one}", "respond": {"body": "x"}} for one in numbers},
        "catalog": {
            f"api{one}": {"routes": [f"api{one}"], "openapi": f"api{one}.json", "tags": [f"team-{one % 20}"]}
            for one in numbers
        },
        "products": {
            f"product{one}": {
                "title": f"Product {one}",
                "apis": [f"api{number}" for number in range(one * each, (one + 1) * each)],
                "plans": {"free": {}, "gold": {"approval": "manual"}},
            }
            for one in range(PRODUCTS_OF)
        },
        "portal": {"url": portal, "gateway": f"http://127.0.0.1:{port}"},
    }
    (folder / "gateway.yaml").write_text(json.dumps(gateway))


def products_of(marketplace: Marketplace) -> int:
    """Return how many products a store has."""
    with marketplace.read(COMMAND) as now:
        return int(now.connection.execute(select(func.count()).select_from(PRODUCTS)).scalar_one())


def fill(marketplace: Marketplace) -> People:
    """Fill a store that has the products of the gateway."""
    with marketplace.begin(COMMAND) as now:
        organisations = list(_organisations(now.now))
        _insert(now, ORGANISATIONS, organisations)
        users = list(_users(now.now))
        _insert(now, USERS, users)
        _insert(now, MEMBERS, _members(organisations, users, now.now))
        applications = list(_applications(organisations, now.now))
        _insert(now, APPLICATIONS, applications)
        rows = now.connection.execute(select(PRODUCTS.c.id, PRODUCTS.c.slug, PRODUCTS.c.apis)).mappings()
        subscriptions = list(_subscriptions(applications, [dict(row) for row in rows], now.now))
        _insert(now, SUBSCRIPTIONS, subscriptions)
        active = [one for one in subscriptions if one["state"] == "active"]
        _insert(now, KEYS, (_key(one, now.now) for one in active))
        _insert(now, SUBSCRIBERS, (_subscriber(one, number) for number, one in enumerate(active, 1)))
        counter = COUNTERS.update().where(COUNTERS.c.name == "subscribers")
        if now.connection.execute(counter.values(value=len(active))).rowcount == 0:
            now.connection.execute(COUNTERS.insert().values(name="subscribers", value=len(active)))
    return _people(marketplace, users, applications, active)


def fill_usage(usage: Store, consumers: Sequence[str], until: int) -> None:
    """Add the calls of consumers in the hours before one, which is in hours since 1970."""
    share, rest = divmod(CALLS, HOURS_OF * len(consumers) * 100)
    at = Position(0, 0)
    for day in range(until - HOURS_OF, until, 24):
        sums = {
            (hour, one, "free", f"api{number * 7 % APIS}", status): _sums(percent * share)
            for hour in range(day, day + 24)
            for number, one in enumerate(consumers)
            for status, percent in _STATUSES.items()
        }
        if day + 24 == until:
            sums[until - 1, consumers[0], "free", "api0", "200"][0] += rest
        end = Position(1, at.offset + 1)
        usage.add("benchmark", at, end, (), Counted(sums, 0, frozenset(), 0), until * 3600)
        at = end


def _sums(calls: int) -> list[int]:
    """Return the calls, with bytes received and sent and milliseconds: one half took 10 ms, one 30 ms."""
    buckets = [0] * len(latency.COLUMNS)
    buckets[latency.bucket(10)], buckets[latency.bucket(30)] = calls - calls // 2, calls // 2
    return [calls, calls * 500, calls * 2000, calls * 20, *buckets]


def _organisations(now: int) -> Iterator[dict[str, Any]]:
    for number in range(ORGANISATIONS_OF):
        yield {"id": names.new_id(), "slug": f"organisation-{number}", "name": f"Organisation {number}", "created": now, "version": 1}  # fmt: skip


def _users(now: int) -> Iterator[dict[str, Any]]:
    for number in range(DEVELOPERS):
        yield {"id": names.new_id(), "email": f"developer{number}@example.com", "name": f"Developer {number}", "role": "developer", "language": "en", "created": now, "version": 1}  # fmt: skip


def _members(
    organisations: list[dict[str, Any]], users: list[dict[str, Any]], now: int
) -> Iterator[dict[str, Any]]:
    for number, user in enumerate(users):
        where = organisations[number // DEVELOPERS_EACH]["id"]
        yield {"organisation": where, "user": user["id"], "role": "owner", "created": now}


def _applications(organisations: list[dict[str, Any]], now: int) -> Iterator[dict[str, Any]]:
    for organisation in organisations:
        for number in range(APPLICATIONS_EACH):
            yield {"id": names.new_id(), "organisation": organisation["id"], "slug": f"app-{number}", "name": f"App {number}", "description": "An application", "created": now, "version": 1, "of": organisation["slug"]}  # fmt: skip


def _subscriptions(
    applications: list[dict[str, Any]], products: list[dict[str, Any]], now: int
) -> Iterator[dict[str, Any]]:
    last = SUBSCRIPTIONS_OF - WAITING
    for at, application in enumerate(applications):
        for number in range(SUBSCRIPTIONS_EACH):
            product = products[(at + number) % len(products)]
            state = "active" if at * SUBSCRIPTIONS_EACH + number < last else "submitted"
            consumer = f"{application['of']}.{application['slug']}.{product['slug']}"
            yield {"id": names.new_id(), "application": application["id"], "product": product["id"], "plan": "free", "state": state, "consumer": consumer, "note": "", "requested": now, "started": now if state == "active" else None, "version": 1, "apis": product["apis"], "key": names.digest(consumer)}  # fmt: skip


def _key(one: dict[str, Any], now: int) -> dict[str, Any]:
    return {
        "subscription": one["id"],
        "slot": "secondary",
        "sha256": one["key"],
        "hint": "abcd",
        "created": now,
    }


def _subscriber(one: dict[str, Any], sequence: int) -> dict[str, Any]:
    return {"consumer": one["consumer"], "sequence": sequence, "plan": one["plan"], "apis": one["apis"], "keys": [[one["key"].hex(), 0]]}  # fmt: skip


def _people(
    marketplace: Marketplace,
    users: list[dict[str, Any]],
    applications: list[dict[str, Any]],
    active: list[dict[str, Any]],
) -> People:
    with marketplace.begin(COMMAND) as now:
        developer = people.user(now, users[0]["id"])
        publisher = people.add_user(now, "publisher@example.com", "Publisher", "publisher")
        actor = people.actor_of(now, developer)
    with marketplace.begin(actor) as now:
        _, token = logins.add_token(now, "benchmark", ("read", "write"))
    with marketplace.begin(VISITOR) as now:
        opened = [logins.open_session(now, one).token for one in (developer, publisher)]
    own = tuple(one["consumer"] for one in active[: APPLICATIONS_EACH * SUBSCRIPTIONS_EACH])
    return People(
        developer=opened[0],
        publisher=opened[1],
        token=token,
        application=applications[0]["id"],
        subscriptions=own,
    )


def _insert(now: Transaction, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    _insert_into(now.connection, table, (_only(one, table) for one in rows))


def _only(one: dict[str, Any], table: Table) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name in table.c}


def _insert_into(connection: Any, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    part: list[dict[str, Any]] = []
    for row in rows:
        part.append(row)
        if len(part) == _AT_ONCE:
            connection.execute(table.insert(), part)
            part = []
    if part:
        connection.execute(table.insert(), part)
