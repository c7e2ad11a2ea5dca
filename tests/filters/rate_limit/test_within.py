"""Where one Check may decide limits too, and what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from filters import POLICIES
from filters.api_key import ApiKey
from filters.ext_authz.names import FILTER
from filters.ext_authz.policy import ExtAuthzSettings, PythonFunction
from filters.identity import Plan
from filters.limits import ConcurrencyLimit, Limit
from filters.policy import Context, Levels
from filters.rate_limit import local, local_headers, within
from filters.rate_limit.policy import FILTER as LIMITS_FILTER
from filters.rate_limit.policy import PlanLimits

PYTHON = PythonFunction(file="p.py", function="check")
POLICY = ExtAuthzSettings(python=PYTHON)
DAILY = Levels((("route/r", Limit(requests=1, per="day")),))
PLANS = {"free": Plan(rate_limit=Limit(requests=5, per="day", by="header:x-team", on_error="deny"))}


def here(*, forwards: bool = True, plans: dict[str, Plan] | None = None, **beside: Any) -> Context:
    return Context(plans=plans or {}).on_route("r", beside, forwards=forwards)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (here(ext_authz=POLICY, rate_limit=DAILY), True),
        (here(ext_authz=POLICY, api_key=ApiKey.settings(), plans=PLANS), True),
        (here(ext_authz=POLICY, plans=PLANS), False),
        (here(ext_authz=POLICY), False),
        (here(rate_limit=DAILY), False),
        (here(ext_authz=POLICY, rate_limit=DAILY, forwards=False), False),
        (here(ext_authz=ExtAuthzSettings(grpc="a"), rate_limit=DAILY), False),
        (here(ext_authz=ExtAuthzSettings(python=PYTHON, on_error="allow"), rate_limit=DAILY), False),
        (
            here(
                ext_authz=POLICY,
                rate_limit=Levels((*DAILY.places, ("route/r", Limit(requests=1, per="day", scope="local")))),
            ),
            False,
        ),
    ],
    ids=["limits", "plans", "plans of nobody", "no limits", "no policy", "no upstream", "a service of one's own", "open on error", "local limits"],
)  # fmt: skip
def test_a_check_decides_where_nothing_refuses_behind_it(context: Context, expected: bool) -> None:
    assert within.decides(context) is expected


def test_between_the_policy_and_the_limits_only_local_limits_stand() -> None:
    names = [one.name for policy in POLICIES for one in policy.http_filters((), Context())]
    between = names[names.index(FILTER) + 1 : names.index(LIMITS_FILTER)]
    assert between == ["xds.ext_authz.on_error_allow", local_headers.FILTER, local.FILTER]


def test_what_is_said_is_read() -> None:
    slots = Levels((("route/r", ConcurrencyLimit(requests=3)),))
    context = here(
        ext_authz=POLICY,
        api_key=ApiKey.settings(),
        concurrency=slots,
        limit_headers=("ietf",),
        plans=PLANS,
    )
    assert within.read(within.said(context)) == within.Asked(
        rules=("concurrency:route/r",),
        plans=True,
        styles=("ietf",),
        looks_at=("header:x-team",),
        lease=True,
        strict=True,
    )


def test_only_what_the_end_tells_is_left_of_the_rate_limit_call() -> None:
    asked = PlanLimits().off_route(here(ext_authz=POLICY, rate_limit=DAILY))
    assert not asked.filter_configs
    slots = Levels((("route/r", ConcurrencyLimit(requests=3)),))
    part = PlanLimits().off_route(here(ext_authz=POLICY, concurrency=slots))
    config: Any = part.filter_configs[LIMITS_FILTER]
    assert [one.apply_on_stream_done for one in config.rate_limits] == [True]
