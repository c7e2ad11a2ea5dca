"""Pages of usage and of statements."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from xds_server.billing.usage_counts import HOUR, of_actor
from xds_server.marketplace import products, statements, subscriptions
from xds_server.marketplace.actor import not_found
from xds_server.portal.api.schemas import as_json
from xds_server.portal.pages.visits import Visit
from xds_server.usage import latency
from xds_server.usage.store import SUMS, Store

DAYS = ("30", "90")
MONTHS = 24
"""Months on the page of revenue."""
_SHOWN = 200
"""Subscriptions on the page, those with the most calls. The CSV has all."""


class BillingPages:
    """Pages that read the usage store, None if there is none."""

    def __init__(self, usage: Store | None) -> None:
        self._usage = usage

    def usage(self, visit: Visit) -> Response:
        """Calls by day, API, plan, application and subscription."""
        days = _days(visit)
        if self._usage is None:
            return visit.page("usage.html", days=days, all_days=DAYS, known=False, by_day=[])
        by_day, by_consumer, by_route, by_plan = (
            self._rows(visit, days, (one, "status")) for one in ("day", "consumer", "route", "plan")
        )
        apis = {route: entry.title for entry in visit.gateway.entries.values() for route in entry.routes}
        return visit.page(
            "usage.html",
            days=days,
            all_days=DAYS,
            known=True,
            by_day=_summed(by_day, lambda row: _date(row["day"])),
            by_consumer=_most(_summed(by_consumer, lambda row: str(row["consumer"]))),
            by_plan=_summed(by_plan, lambda row: str(row["plan"])),
            by_application=_most(_summed(by_consumer, lambda row: _application(str(row["consumer"])))),
            by_api=_summed(by_route, lambda row: apis.get(row["route"], row["route"])),
        )

    def table(self, visit: Visit) -> Response:
        """The same as CSV (RFC 4180), by day, consumer, route and status. Publishers get the sums of all consumers."""
        if self._usage is None:
            raise not_found("usage store")
        out = io.StringIO()
        writer = csv.writer(out)
        groups = (
            ("day", "route", "status") if visit.actor.publishes else ("day", "consumer", "route", "status")
        )
        columns = (*groups[1:], *SUMS, *latency.QUANTILES)
        writer.writerow(("day", *columns))
        for row in self._rows(visit, _days(visit), groups):
            values = latency.summarized(row)
            writer.writerow((_date(row["day"]), *(values[one] for one in columns)))
        headers = {"content-disposition": 'attachment; filename="usage.csv"', "cache-control": "no-store"}
        return Response(out.getvalue(), media_type="text/csv", headers=headers)

    def _rows(self, visit: Visit, days: str, groups: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return the sums of the user's organisations, for a publisher those of all consumers."""
        assert self._usage is not None
        with visit.marketplace.read(visit.actor) as now:
            return of_actor(self._usage, now, int(days), groups, time.time())


def _days(visit: Visit) -> str:
    return visit.query.get("days", "30") if visit.query.get("days") in DAYS else "30"


def _date(hours: int) -> str:
    return datetime.fromtimestamp(hours * HOUR, UTC).strftime("%Y-%m-%d")


def _application(consumer: str) -> str:
    """Return the names of organisation and application in that of a consumer; a consumer of the YAML is none of these."""
    organisation, _, rest = consumer.partition(".")
    application, _, product = rest.partition(".")
    return f"{organisation}.{application}" if product else "-"


def _summed(rows: list[dict[str, Any]], name: Callable[[dict[str, Any]], str]) -> list[dict[str, Any]]:
    """Return calls, errors, bytes and quantiles of the times for each name, in the order of the names."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(name(row), []).append(row)
    sums = [_sum(one, of) for one, of in sorted(found.items())]
    most = max((one["calls"] for one in sums), default=1)
    return [{**one, "share": one["calls"] / most} for one in sums]


def _sum(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums of some rows under one name."""
    return {
        "name": name,
        "calls": sum(row["requests"] for row in rows),
        "errors": sum(row["requests"] for row in rows if row["status"] >= 400 or row["status"] == 0),
        "bytes": sum(row["bytes_received"] + row["bytes_sent"] for row in rows),
        **latency.quantiles([sum(row[bucket] for row in rows) for bucket in latency.COLUMNS]),
    }


def _most(sums: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those with the most calls, in the order of their names."""
    shown = sorted(sums, key=lambda one: -one["calls"])[:_SHOWN]
    return sorted(shown, key=lambda one: str(one["name"]))


def invoices(visit: Visit) -> Response:
    """The statements of the user's organisations."""
    with visit.marketplace.read(visit.actor) as now:
        found = statements.statements(now, wanted=visit.wanted)
        names = {one.subscription: subscriptions.subscription(now, one.subscription) for one in found.items}
    return visit.page("invoices.html", statements=found.items, next=found.next, subscriptions=names)


def revenue(visit: Visit) -> Response:
    """What the closed statements add up to, for publishers."""
    with visit.marketplace.read(visit.actor) as now:
        rows = statements.revenue(now, MONTHS)
    totals: dict[tuple[str, str], int] = {}
    for one in rows:
        key = one.period, one.currency
        totals[key] = totals.get(key, 0) + one.total
    return visit.page("revenue.html", rows=rows, totals=totals)


def invoice(visit: Visit) -> Response:
    """A statement as a page, as CSV or as JSON."""
    name, _, form = visit.path["statement"].partition(".")
    with visit.marketplace.read(visit.actor) as now:
        found = statements.statement(now, name)
        of = subscriptions.subscription(now, found.subscription)
        product = products.named(now, of.product)
    if form == "json":
        return JSONResponse(
            {**as_json(found), "consumer": of.consumer}, headers={"cache-control": "no-store"}
        )
    if form == "csv":
        return _as_csv(asdict(found))
    if form:
        raise not_found("form")
    return visit.page("invoice.html", statement=found, subscription=of, product=product)


def _as_csv(found: Mapping[str, Any]) -> Response:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("number", "period", "kind", "plan", "step", "of_period", "calls", "amount", "currency"))
    for line in found["lines"]:
        step = "" if line["step"] is None else line["step"]
        writer.writerow((found["number"], found["period"], line["kind"], line["plan"], step, line["period"], line["calls"], line["amount"], found["currency"]))  # fmt: skip
    writer.writerow(
        (found["number"], found["period"], "total", "", "", "", "", found["total"], found["currency"])
    )
    name = f"statement-{found['number']}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return Response(out.getvalue(), media_type="text/csv", headers=headers)
