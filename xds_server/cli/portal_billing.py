"""xds portal billing: closes months, lists statements, and exports calls."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from xds_server.billing import months
from xds_server.billing.closing import SETTLED, Prices, close_month, counted_calls, prices_of
from xds_server.billing.export import ExportFailed, Target, export
from xds_server.billing.targets import CloudEventsTarget, LagoTarget, StripeTarget
from xds_server.billing.usage_counts import HOUR, by_hour, counted_by
from xds_server.errors import EnvironmentFailed, WrongUsage
from xds_server.marketplace import products, statements, subscriptions
from xds_server.marketplace.actor import COMMAND
from xds_server.marketplace.errors import NotFound
from xds_server.marketplace.pages import every
from xds_server.marketplace.store import Marketplace
from xds_server.usage.store import Store

_EXPORTED = 35 * 24
"""Hours that are exported if no month is named: Stripe takes no older events."""


def run(marketplace: Marketplace, arguments: argparse.Namespace) -> Any:
    """Run a command. Returns what is shown. Raises EnvironmentFailed, WrongUsage, MarketplaceError, DatabaseFailed."""
    period = months.checked(arguments.period) if arguments.period else None
    if arguments.action == "list":
        with marketplace.read(COMMAND) as now:
            return every(lambda wanted: statements.statements(now, period=period, wanted=wanted))
    with closing(Store(arguments.usage_store, reads=True)) as usage:
        if arguments.action == "close":
            wanted = period or months.before(months.of(time.time()))
            done = close_month(marketplace, counted_by(usage), wanted, time.time())
            if done.failed:
                raise EnvironmentFailed(
                    f"{len(done.failed)} of {len(done.failed) + len(done.statements)} statements could not be closed; "
                    f"{done.failed[0]}"
                )
            return done.statements
        target = _target(arguments)
        try:
            sent = export(marketplace, target, lambda: _settled(marketplace, usage, period))
        except ExportFailed as failure:
            raise EnvironmentFailed(f"{failure}; run the command again, nothing is counted twice") from None
    return {"target": target.name, "calls": sent}


def _target(arguments: argparse.Namespace) -> Target:
    if arguments.to is None or not arguments.url:
        raise WrongUsage("name the system with --to and --url")
    token = _text(arguments.token_file) if arguments.token_file is not None else ""
    if arguments.to == "cloudevents":
        return CloudEventsTarget(arguments.url, token)
    if not token:
        raise WrongUsage(f"{arguments.to} needs --token-file")
    if arguments.to == "lago":
        return LagoTarget(arguments.url, token)
    customers = yaml.safe_load(_text(arguments.customers)) if arguments.customers is not None else None
    if not isinstance(customers, dict):
        raise WrongUsage("stripe needs --customers: a YAML file with lines such as acme.mobile.shop: cus_123")
    return StripeTarget(arguments.url, token, {str(key): str(value) for key, value in customers.items()})


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"{file} cannot be read: {error}") from None


def _settled(
    marketplace: Marketplace, usage: Store, period: str | None
) -> Iterator[tuple[str, str, int, int]]:
    """Yield consumer, plan, hour and counted calls of the hours of which no more entries are expected."""
    latest = int(time.time() - SETTLED) // HOUR
    since = months.begin(period) // HOUR if period else latest - _EXPORTED
    until = min(months.end(period) // HOUR, latest) if period else latest
    sums: dict[tuple[str, int], dict[tuple[str, int], int]] = {}
    for row in by_hour(usage, since, until):
        counts = sums.setdefault((row["consumer"], row["hour"]), {})
        counts[row["plan"], row["status"]] = row["requests"]
    offers: dict[tuple[str, str], Prices] = {}
    for (consumer, hour), counts in sorted(sums.items()):
        month = months.of(hour * HOUR)
        if (consumer, month) not in offers:
            offers[consumer, month] = _offered(marketplace, consumer, month)
        for plan, calls in sorted(counted_calls(offers[consumer, month], counts).items()):
            yield consumer, plan, hour, calls


def _offered(marketplace: Marketplace, consumer: str, month: str) -> Prices:
    """Return the prices of a subscription in a month, nothing for a consumer of the gateway's files.

    Those of a closed month are those of its statement, so that a later change exports no call again.
    """
    with marketplace.read(COMMAND) as now:
        try:
            found = subscriptions.subscription(now, consumer)
        except NotFound:
            return {}
        for one in statements.statements(now, subscription=found.id, period=month).items:
            if one.prices:
                return one.prices
        product = products.named(now, found.product)
        return prices_of(product) if product is not None else {}
