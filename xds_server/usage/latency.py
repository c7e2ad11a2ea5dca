"""How long requests took: counts in buckets, which add up over hours and servers as averages and quantiles do not."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""The upper bounds of the buckets in milliseconds. The last bucket, behind them, has none."""
COLUMNS = (*(f"to_{bound}ms" for bound in BOUNDS), "over_10000ms")
"""The columns of the store, one for each bucket: the requests that are in no bucket before it."""
QUANTILES = {"p50_ms": 0.5, "p99_ms": 0.99}
"""The quantiles of reports, by their names."""


def bucket(milliseconds: int) -> int:
    """Return the number of the bucket of a duration."""
    return bisect_left(BOUNDS, milliseconds)


def quantile(counts: Sequence[int], share: float) -> int | None:
    """Return the milliseconds within which a share of the requests ended, or None if no duration was counted.

    It is interpolated within its bucket, as histogram_quantile of Prometheus does. The answer for the last bucket is its
    lower bound.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, before = share * total, 0
    for at, count in enumerate(counts[:-1]):
        if count and before + count >= wanted:
            lower = BOUNDS[at - 1] if at else 0
            return round(lower + (BOUNDS[at] - lower) * (wanted - before) / count)
        before += count
    return BOUNDS[-1]


def quantiles(counts: Sequence[int]) -> dict[str, int | None]:
    """Return the quantiles of reports."""
    return {name: quantile(counts, share) for name, share in QUANTILES.items()}


def summarized(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the store with quantiles in the place of its buckets."""
    rest = {name: value for name, value in row.items() if name not in COLUMNS}
    return {**rest, **quantiles([row[name] for name in COLUMNS])}
