"""Where one Check may decide limits too, and what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from filters.authorization import authorize
from filters.decompression import policy as decompression
from filters.decompression.policy import Decompression
from filters.ext_authz.settings import ExtAuthzSettings, PythonFunction
from filters.identity import key_lookup, password_lookup, script
from filters.identity.api_key import ApiKey
from filters.identity.basic_auth import BasicAuth
from filters.model.identity import ApiKey as KeyHash
from filters.model.identity import Consumer, Plan
from filters.model.limits import ConcurrencyLimit, Limit
from filters.model.methods import MOST_KEYS
from filters.pipeline import POLICIES
from filters.policy import Context, Levels
from filters.policy_server import BODY_FILTER, FILTER, LENIENT_BODY_FILTER, LENIENT_FILTER, NARROW_FILTER
from filters.rate_limit import one_call
from filters.rate_limit.envoy import leases, local, local_headers
from filters.rate_limit.policy import FILTER as LIMITS_FILTER
from filters.rate_limit.policy import PlanLimits

PYTHON = PythonFunction(file="p.py", function="check")
POLICY = ExtAuthzSettings(python=PYTHON)
DAILY = Levels((("route/r", Limit(requests=1, per="day")),))
PLANS = {"free": Plan(rate_limit=Limit(requests=5, per="day", by="header:x-team", on_error="deny"))}


def here(*, forwards: bool = True, plans: dict[str, Plan] | None = None, **more: Any) -> Context:
    return Context(plans=plans or {}).on_route("r", more, forwards=forwards)


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
    assert one_call.decides(context) is expected


def test_between_the_policy_and_the_limits_only_local_limits_reject() -> None:
    names = [one.name for policy in POLICIES for one in policy.http_filters((), Context())]
    between = names[names.index(FILTER) + 1 : names.index(LIMITS_FILTER)]
    others = [LENIENT_FILTER, BODY_FILTER, LENIENT_BODY_FILTER]  # a route uses one of them
    assert between == [*others, local_headers.FILTER, local.FILTER, leases.FILTER]


KEYS = {"a": Consumer(api_keys=tuple(KeyHash(sha256=f"{n:064x}") for n in range(MOST_KEYS + 1)))}


def keys(plans: dict[str, Plan] | None = None, **more: Any) -> Context:
    everything = {"api_key": ApiKey.settings(), "rate_limit": DAILY, **more}
    return Context(consumers=KEYS, plans=plans or {}).on_route("r", everything, forwards=True)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (keys(), True),
        (keys(api_key=ApiKey.settings(header="x-team")), True),
        (keys(plans=PLANS), False),
        (keys(api_key=ApiKey.settings(query="key")), False),
        (keys(api_key=ApiKey.settings(header="x-key", cookie="key")), False),
        (keys(api_key=ApiKey.settings(optional=True)), False),
        (keys(basic_auth=BasicAuth.settings()), False),
        (keys(authorize=authorize.Rule(consumers=("a",))), False),
        (keys(decompression=Decompression.settings()), False),
        (keys(ext_authz=ExtAuthzSettings(grpc="a")), False),
        (keys(rate_limit=Levels((("route/r", Limit(requests=1, per="day", by="header:X-Consumer")),))), False),
        (keys(rate_limit=Levels((("route/r", Limit(requests=1, per="day", scope="local")),))), False),
        (here(api_key=ApiKey.settings(), rate_limit=DAILY), False),
    ],
    ids=["a key", "in another header", "a plan counts by a header", "query", "header or cookie", "optional", "passwords too", "authorize", "decompression",
         "a service of one's own", "by a header", "local limits", "few keys"],
)  # fmt: skip
def test_a_lookup_decides_where_the_script_refuses_what_the_lookup_does(
    context: Context, expected: bool
) -> None:
    assert one_call.key_decides(context) is expected
    assert one_call.policy_decides(context) is False


def test_nothing_stands_between_the_lookup_and_the_limits() -> None:
    """No other filter of such a route does. Leases only admit."""
    names = [one.name for policy in POLICIES for one in policy.http_filters((), Context())]
    between = names[names.index(key_lookup.FILTER) + 1 : names.index(LIMITS_FILTER)]
    assert between[:3] == [password_lookup.FILTER, script.FILTER, authorize.FILTER]
    policies = [NARROW_FILTER, FILTER, LENIENT_FILTER, BODY_FILTER, LENIENT_BODY_FILTER]
    assert between[3:9] == [decompression.FILTER, *policies]
    assert between[9:] == [local_headers.FILTER, local.FILTER, leases.FILTER]


def test_what_is_said_is_read() -> None:
    slots = Levels((("route/r", ConcurrencyLimit(requests=3)),))
    context = here(
        ext_authz=POLICY,
        api_key=ApiKey.settings(),
        concurrency=slots,
        limit_headers=("ietf",),
        plans=PLANS,
    )
    assert one_call.decode(one_call.encode(context)) == one_call.LimitsQuestion(
        rules=("concurrency:route/r",),
        plans=True,
        styles=("ietf",),
        inputs=("header:x-team",),
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
