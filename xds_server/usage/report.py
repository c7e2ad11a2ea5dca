"""Reports of usage as tables, CSV, JSON and CloudEvents. It does no IO and reads no clock."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from xds_server.usage.latency import QUANTILES

Row = Mapping[str, Any]
"""Groups first, then sums. The groups `hour` and `day` are hours since 1970 in UTC."""

EVENT_TYPE = "xds.gateway.usage"
"""The type of our CloudEvents. It is stable; another meaning of `data` would get another type."""
_TIMES = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_NUMBERS = ("status", "requests", "bytes_received", "bytes_sent", "duration_ms", *QUANTILES)


def readable(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows with times as texts (RFC 3339)."""
    return [
        {name: _time(value).isoformat() if name in _TIMES else value for name, value in row.items()}
        for row in rows
    ]


def table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return aligned columns with a head."""
    cells = [list(columns)]
    cells += [["-" if value is None else str(value) for value in row.values()] for row in readable(rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(columns, line, widths, strict=True)
        ).rstrip()
        for line in cells
    )


def comma_separated(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return CSV with a head (RFC 4180)."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows(row.values() for row in readable(rows))
    return out.getvalue()


def cloud_events(rows: Sequence[Row], source: str, since: int, until: int) -> list[dict[str, Any]]:
    """Return a CloudEvent (1.0.2, JSON format) for each row: a batch.

    The identifier of an event depends on its source, its groups, its times and its sums. So the same report has the
    same events, and a report whose sums have grown has others. `since` and `until` are in hours since 1970.
    """
    return [_event(row, source, since, until) for row in rows]


def _event(row: Row, source: str, since: int, until: int) -> dict[str, Any]:
    name = next((one for one in _TIMES if one in row), None)
    begin = _time(since if name is None else row[name])
    end = _time(until) if name is None else begin + _TIMES[name]
    data = {
        **{key: value for key, value in row.items() if key not in _TIMES},
        "from": begin.isoformat(),
        "until": end.isoformat(),
    }
    consumer = {"subject": row["consumer"]} if "consumer" in row else {}
    identity = hashlib.sha256(json.dumps([source, data], sort_keys=True).encode()).hexdigest()[:32]
    return {
        "specversion": "1.0",
        "id": identity,
        "source": source,
        "type": EVENT_TYPE,
        **consumer,
        "time": end.isoformat(),
        "datacontenttype": "application/json",
        "data": data,
    }


def _time(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * 3600, UTC)
