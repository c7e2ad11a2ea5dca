"""Counts of requests by how long they took: their quantiles, also after a sum."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xds_server.usage import latency

DURATIONS = st.lists(st.integers(0, 20_000), min_size=1, max_size=200)


def counts(durations: list[int]) -> list[int]:
    found = [0] * len(latency.COLUMNS)
    for one in durations:
        found[latency.bucket(one)] += 1
    return found


def test_a_duration_is_in_the_first_bucket_whose_bound_it_does_not_exceed() -> None:
    assert [latency.bucket(one) for one in (0, 1, 2, 3, 10_000, 10_001)] == [0, 0, 1, 2, 12, 13]


def test_quantiles_are_interpolated_and_absent_without_counts() -> None:
    assert latency.quantiles(counts([15] * 100)) == {"p50_ms": 15, "p99_ms": 20}
    assert latency.quantiles(counts([60_000])) == {"p50_ms": 10_000, "p99_ms": 10_000}
    assert latency.quantiles(counts([])) == {"p50_ms": None, "p99_ms": None}


@given(DURATIONS, st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_in_the_bucket_of_the_true_one(durations: list[int], share: float) -> None:
    ranked = sorted(durations)
    true = ranked[max(0, -int(-share * len(ranked) // 1) - 1)]
    found = latency.quantile(counts(durations), share)
    assert found is not None
    bucket = latency.bucket(true)
    if bucket == len(latency.BOUNDS):
        assert found == latency.BOUNDS[-1]
    else:
        assert (latency.BOUNDS[bucket - 1] if bucket else 0) <= found <= latency.BOUNDS[bucket]


@given(DURATIONS, DURATIONS)
def test_sums_of_counts_are_the_counts_of_all(one: list[int], other: list[int]) -> None:
    assert [*map(sum, zip(counts(one), counts(other), strict=True))] == counts(one + other)
