"""Health from load reports: rates count from a number of requests on, and an Envoy that is silent is named."""

from __future__ import annotations

from xds_server.control_plane.rollout_health import Counts, LoadHealth, together, verdict
from xds_server.control_plane.rollout_steps import Verdict
from xds_server.gateway.model.rollout import threshold

LIMIT = threshold("> 2% and > 2 × before", of_time=False)


def health(*, candidate: Counts, stable: Counts) -> LoadHealth:
    made = LoadHealth(interval=1.0)
    made.begin(100, anew=True)
    made.report("a", True, candidate, 1.0, 102)
    made.report("b", False, stable, 1.0, 102)
    return made


def judged(made: LoadHealth, chosen: list[str], now: float) -> Verdict:
    return verdict(LIMIT, 20, [made.figures(chosen, now)])


def test_an_error_rate_counts_against_both_bounds() -> None:
    bad = judged(health(candidate=Counts(100, 10), stable=Counts(100, 1)), ["a"], 103)
    assert bad.violation == "error rate 10.0% of 100 requests; before 1.0% of 100 requests"
    assert not judged(health(candidate=Counts(100, 10), stable=Counts(100, 6)), ["a"], 103).violation
    assert not judged(health(candidate=Counts(100, 2), stable=Counts(100, 0)), ["a"], 103).violation


def test_few_requests_are_no_rate_and_without_before_the_absolute_bound_decides() -> None:
    assert not judged(health(candidate=Counts(19, 19), stable=Counts(100, 0)), ["a"], 103).violation
    assert judged(health(candidate=Counts(100, 10), stable=Counts(0, 0)), ["a"], 103).violation


def test_at_the_last_step_before_is_the_time_before() -> None:
    made = health(candidate=Counts(100, 0), stable=Counts(100, 8))
    made.begin(110, anew=False)
    made.report("a", True, Counts(100, 20), 1.0, 112)
    assert together([made.figures(["a"], 112)], 20)[1] == Counts(100, 8)
    assert not judged(made, ["a"], 112).violation


def test_a_report_about_the_time_before_the_step_does_not_count() -> None:
    made = LoadHealth(interval=2.0)
    made.begin(100, anew=True)
    made.report("a", True, Counts(100, 100), 2.0, 100.5)
    assert made.candidate == Counts(0, 0)


def test_an_envoy_without_reports_is_named() -> None:
    made = health(candidate=Counts(100, 0), stable=Counts(100, 0))
    assert not judged(made, ["a"], 106).silence
    assert judged(made, ["a"], 108).silence == "no load report in 5 s from a"
    assert judged(made, ["a", "c"], 103).silence


def test_the_figures_of_several_replicas_count_together() -> None:
    first = health(candidate=Counts(15, 2), stable=Counts(5, 0)).figures(["a"], 103)
    second = health(candidate=Counts(15, 2), stable=Counts(95, 1)).figures(["a", "c"], 103)
    assert not verdict(LIMIT, 20, [first]).violation
    found = verdict(LIMIT, 20, [first, second])
    assert found.violation == "error rate 13.3% of 30 requests; before 1.0% of 100 requests"
    assert verdict(LIMIT, 100, [first, second]).silence
