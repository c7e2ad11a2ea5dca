"""Local limits: what a proxy alone cannot do exactly is an error."""

from __future__ import annotations

from typing import Any

import pytest

from filters.model.identity import Plan
from filters.model.limits import Limit, repeated_windows
from filters.policy import Levels
from filters.rate_limit.envoy import local, local_headers
from filters.rate_limit.policy import RateLimit


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ({"algorithm": "sliding_window"}, ("algorithm",)),
        ({"count": (500,)}, ("count",)),
        ({"cost": 2}, ("cost",)),
        ({"cost": "header:x-cost"}, ("cost",)),
        ({"shadow": True}, ("shadow",)),
        ({"align": "rolling"}, ("align",)),
        ({"timezone": "Europe/Berlin"}, ("timezone",)),
        ({"by": ("ip", "claim:sub")}, ("by",)),
        ({"by": "claim:sub"}, ("by",)),
    ],
)
def test_what_needs_the_policy_server_is_refused(written: dict[str, Any], path: tuple[str, ...]) -> None:
    assert [one.path for one in Limit(requests=5, per="day", scope="local", **written).check()] == [path]
    assert not list(Limit(requests=5, per="day", **written).check())


def test_what_envoy_can_count_is_accepted() -> None:
    for by in (None, "ip", "consumer", "route", ("consumer", "header:x-a")):
        one = Limit(requests=5, per="day", scope="local", by=by, burst=9, algorithm="token_bucket")
        assert not list(one.check())


def test_plans_promise_one_count_and_have_no_local_limits() -> None:
    plan = Plan(rate_limit=(Limit(requests=5, per="day"), Limit(requests=5, per="hour", scope="local")))
    assert [one.path for one in plan.check()] == [("rate_limit",)]


def test_a_local_and_a_global_limit_may_have_the_same_window() -> None:
    both = (Limit(requests=5, per="day"), Limit(requests=9, per="day", scope="local"))
    assert not list(repeated_windows("", both))
    assert len(list(repeated_windows("", (*both, both[1])))) == 1


def test_whoever_waits_has_waited_long_enough_for_each_limit() -> None:
    limits = [Limit(requests=7, per="hour", scope="local"), Limit(requests=9, per="second", scope="local")]
    config: Any = local.on_route("a", [("route/a", one) for one in limits], ())[local.FILTER]
    assert config.response_headers_to_add[0].header.value == "515"  # 514.3 seconds
    names = [one.entries[0].value for one in config.descriptors]
    assert names == ["a/0/consumer", "a/0/address", "a/1/consumer", "a/1/address"]


@pytest.mark.parametrize(
    ("identified", "names"),
    [(True, ["a/0/consumer"]), (False, ["a/0/address"]), (None, ["a/0/consumer", "a/0/address"])],
)
def test_a_route_has_only_the_buckets_that_its_callers_need(
    identified: bool | None, names: list[str]
) -> None:
    places = [("route/a", Limit(requests=7, per="hour", scope="local"))]
    config: Any = local.on_route("a", places, (), identified=identified)[local.FILTER]
    assert [one.entries[0].value for one in config.descriptors] == names
    assert len(config.rate_limits) == len(names)


def test_figures_are_told_by_names_that_formats_and_expressions_can_hold() -> None:
    plain = Limit(requests=7, per="hour", scope="local")
    odd = Limit(requests=9, per="hour", scope="local", by="header:x-%'")
    for limits, told in (([plain], True), ([plain, odd], False)):
        config = local_headers.on_route([("route/a", one) for one in limits], ("ietf",))
        values = {
            one.append.header.key: one.append.header.value for one in config.mutations.response_mutations
        }
        assert ("ratelimit" in values) is told
        assert "x-%'" not in values["ratelimit-policy"]  # a percent sign is doubled


def test_what_holds_without_an_upstream_is_what_envoy_counts() -> None:
    own, asked = Limit(requests=1, per="day", scope="local"), Limit(requests=1, per="day")
    policy = RateLimit()
    assert (policy.for_local_answers(own), policy.for_local_answers(asked)) == (own, None)
    assert policy.for_local_answers((own, asked)) == (own,)
    levels = Levels((("gateway", asked), ("route/a", (own, asked))))
    assert policy.for_local_answers(levels) == Levels((("route/a", (own,)),))
    assert policy.for_local_answers(Levels((("gateway", asked),))) is None
