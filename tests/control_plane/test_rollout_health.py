"""Health from load reports: rates count from a number of requests on, and an Envoy that is silent is named."""

from __future__ import annotations

from xds_server.control_plane.rollout_health import Counts, LoadHealth
from xds_server.gateway.model.rollout import threshold

LIMIT = threshold("> 2% and > 2 × before", of_time=False)


def health(*, candidate: Counts, stable: Counts) -> LoadHealth:
    made = LoadHealth(interval=1.0)
    made.begin(100, anew=True)
    made.report("a", True, candidate, 1.0, 102)
    made.report("b", False, stable, 1.0, 102)
    return made


def test_an_error_rate_counts_against_both_bounds() -> None:
    bad = health(candidate=Counts(100, 10), stable=Counts(100, 1)).verdict(LIMIT, ["a"], 103)
    assert bad.violation == "error rate 10.0% of 100 requests; before 1.0% of 100 requests"
    assert not health(candidate=Counts(100, 10), stable=Counts(100, 6)).verdict(LIMIT, ["a"], 103).violation
    assert not health(candidate=Counts(100, 2), stable=Counts(100, 0)).verdict(LIMIT, ["a"], 103).violation


def test_few_requests_are_no_rate_and_without_before_the_absolute_bound_decides() -> None:
    assert not health(candidate=Counts(19, 19), stable=Counts(100, 0)).verdict(LIMIT, ["a"], 103).violation
    assert health(candidate=Counts(100, 10), stable=Counts(0, 0)).verdict(LIMIT, ["a"], 103).violation


def test_at_the_last_step_before_is_the_time_before() -> None:
    made = health(candidate=Counts(100, 0), stable=Counts(100, 8))
    made.begin(110, anew=False)
    made.report("a", True, Counts(100, 20), 1.0, 112)
    assert made.before == Counts(100, 8)
    assert not made.verdict(LIMIT, ["a"], 112).violation


def test_a_report_about_the_time_before_the_step_does_not_count() -> None:
    made = LoadHealth(interval=2.0)
    made.begin(100, anew=True)
    made.report("a", True, Counts(100, 100), 2.0, 100.5)
    assert made.candidate == Counts(0, 0)


def test_an_envoy_without_reports_is_named() -> None:
    made = health(candidate=Counts(100, 0), stable=Counts(100, 0))
    assert not made.verdict(LIMIT, ["a"], 106).silence
    assert made.verdict(LIMIT, ["a"], 108).silence == "no load report in 5 s from a"
    assert made.verdict(LIMIT, ["a", "c"], 103).silence
