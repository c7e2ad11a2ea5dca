"""usage: where it makes no sense it is an error."""

from __future__ import annotations

import pytest

from filters.api_key import ApiKey
from filters.ext_authz.policy import ExtAuthzSettings
from filters.identity import Plan
from filters.limits import Limit
from filters.policy import Context
from filters.rate_limit.usage import Usage

PLANS = {"free": Plan(rate_limit=Limit(requests=5, per="day"))}
KEY = ApiKey.settings()


@pytest.mark.parametrize(
    ("beside", "plans", "said"),
    [
        ({}, PLANS, "nobody is identified here"),
        ({"api_key": KEY}, {}, "no limits of consumers apply here"),
        ({"api_key": KEY, "ext_authz": ExtAuthzSettings(grpc="a")}, PLANS, "'ext_authz' is answered"),
    ],
)
def test_mistakes(beside: dict[str, object], plans: dict[str, Plan], said: str) -> None:
    found = list(Usage().check(True, Context(plans=plans, route="a", beside=beside)))
    assert [one.message.startswith(said) for one in found] == [True]


def test_it_stands_beside_a_credential_and_a_plan() -> None:
    context = Context(plans=PLANS, route="a", beside={"api_key": KEY})
    assert not list(Usage().check(True, context))
    assert Usage().on_route(True, context).filter_configs
    assert not Usage().on_route(False, context).filter_configs
