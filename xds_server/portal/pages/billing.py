"""Pages of usage and of statements."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from xds_server.billing.usage_counts import HOUR, by_day
from xds_server.errors import EnvironmentFailed
from xds_server.marketplace import products, statements, subscriptions
from xds_server.marketplace.actor import not_found
from xds_server.marketplace.pages import MOST, Wanted
from xds_server.portal.api.schemas import as_json
from xds_server.portal.pages.visits import Visit
from xds_server.usage.store import Store

DAYS = ("30", "90")
_WIDE = Wanted(None, MOST)
_SUMS = ("requests", "bytes_received", "bytes_sent", "duration_ms")


class BillingPages:
    """Pages that read the usage store, None if there is none."""

    def __init__(self, usage: Store | None) -> None:
        self._usage = usage

    def usage(self, visit: Visit) -> Response:
        """Calls by day, API and subscription."""
        days = _days(visit)
        if self._usage is None:
            return visit.page(
                "usage.html", days=days, all_days=DAYS, known=False, by_day=[], by_consumer=[], by_api=[]
            )
        rows = self._rows(visit, days)
        apis = {route: entry.title for entry in visit.gateway.entries.values() for route in entry.routes}
        return visit.page(
            "usage.html",
            days=days,
            all_days=DAYS,
            known=True,
            by_day=_summed(rows, lambda row: _date(row["day"])),
            by_consumer=_summed(rows, lambda row: str(row["consumer"])),
            by_api=_summed(rows, lambda row: apis.get(row["route"], row["route"])),
        )

    def table(self, visit: Visit) -> Response:
        """The same as CSV (RFC 4180), by day, consumer, route and status."""
        if self._usage is None:
            raise not_found("usage store")
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(("day", "consumer", "route", "status", *_SUMS))
        for row in self._rows(visit, _days(visit)):
            writer.writerow(
                (
                    _date(row["day"]),
                    row["consumer"],
                    row["route"],
                    row["status"],
                    *(row[one] for one in _SUMS),
                )
            )
        headers = {"content-disposition": 'attachment; filename="usage.csv"', "cache-control": "no-store"}
        return Response(out.getvalue(), media_type="text/csv", headers=headers)

    def _rows(self, visit: Visit, days: str) -> list[dict[str, Any]]:
        """Return the rows of the subscriptions of the user's organisations."""
        assert self._usage is not None
        with visit.marketplace.read(visit.actor) as now:
            consumers = list(_consumers(visit, now))
        until = int(time.time()) // HOUR + 1
        since = until // 24 * 24 - (int(days) - 1) * 24
        try:
            return by_day(self._usage, consumers, since, until)
        except EnvironmentFailed:  # the usage server has counted nothing yet
            return []


def _consumers(visit: Visit, now: Any) -> Iterator[str]:
    wanted: Wanted = _WIDE
    while True:
        found = subscriptions.subscriptions(now, wanted=wanted)
        for one in found.items:
            if visit.actor.publishes or subscriptions.application(now, one.application):
                yield one.consumer
        if found.next is None:
            return
        wanted = Wanted(found.next, MOST)


def _days(visit: Visit) -> str:
    return visit.query.get("days", "30") if visit.query.get("days") in DAYS else "30"


def _date(hours: int) -> str:
    return datetime.fromtimestamp(hours * HOUR, UTC).strftime("%Y-%m-%d")


def _summed(rows: list[dict[str, Any]], name: Any) -> list[dict[str, Any]]:
    """Return calls, errors, bytes and the average time for each name, in the order of the names."""
    sums: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = sums.setdefault(name(row), {"name": name(row), "calls": 0, "errors": 0, "bytes": 0, "time": 0})
        one["calls"] += row["requests"]
        one["errors"] += row["requests"] if row["status"] >= 400 or row["status"] == 0 else 0
        one["bytes"] += row["bytes_received"] + row["bytes_sent"]
        one["time"] += row["duration_ms"]
    most = max((one["calls"] for one in sums.values()), default=1)
    return [
        {**one, "average": round(one["time"] / one["calls"]), "share": one["calls"] / most}
        for _, one in sorted(sums.items())
    ]


def invoices(visit: Visit) -> Response:
    """The statements of the user's organisations."""
    with visit.marketplace.read(visit.actor) as now:
        found = statements.statements(now, wanted=Wanted(visit.query.get("after") or None, 50))
        names = {one.subscription: subscriptions.subscription(now, one.subscription) for one in found.items}
    return visit.page("invoices.html", statements=found.items, next=found.next, subscriptions=names)


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
