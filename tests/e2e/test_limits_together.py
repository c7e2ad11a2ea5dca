"""Limits of the whole gateway, of a policy set, of the route and of the consumer's plan: all apply, together or not at all."""

from __future__ import annotations

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.identity_cases import sha256
from tests.support.policy_server import Stack, Stacks
from tests.support.wait import wait_for

KEYS = ("acme", "beta")


YAML = """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$echo]}}
plans: {free: {rate_limit: [7/day, {requests: 9, per: month, timezone: Pacific/Auckland}]}}
consumers:
$consumers
policies: {rate_limit: {requests: 11, per: month, by: [consumer, "header:x-region"]}}
policy_sets: {team: {rate_limit: {requests: 5, per: day, by: consumer}}}
routes:
  first: {path: /first, upstream: echo, use: [team], policies: {api_key: true, rate_limit: $route}}
  second: {path: /second, upstream: echo, use: [team], policies: {api_key: true}}
  plan: {path: /plan, upstream: echo, policies: {api_key: true}}
  gateway: {path: /gateway, upstream: echo, policies: {api_key: true, plan_limits: off}}
  free: {path: /free, upstream: echo, policies: {api_key: true, plan_limits: off, rate_limit: off}}
"""


def given(backend: Backend, route: str = "3/day") -> dict[str, str]:
    """The values for the names in the YAML."""
    consumers = "\n".join(f"  {one}: {{plan: free, api_keys: [{{sha256: {sha256(one)}}}]}}" for one in KEYS)
    return {"echo": backend.address, "consumers": consumers, "route": route}


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend) -> Stack:
    stack = stacks.start(YAML, **given(backend))
    wait_for(lambda: "ratelimit" in ask(stack, "/gateway", "beta", "probe").headers, "the first decision")
    return stack


def ask(stack: Stack, path: str, consumer: str, region: str = "eu") -> httpx.Response:
    return stack.get(path, headers={"x-api-key": consumer, "x-region": region})


def left(answer: httpx.Response) -> dict[str, int]:
    """What the answer says is left, by the name of the limit."""
    items = [one.split(";")[:2] for one in answer.headers["ratelimit"].split(", ")]
    return {name.strip('"'): int(rest.removeprefix("r=")) for name, rest in items}


def test_every_level_counts_and_a_rejection_counts_nowhere(stack: Stack) -> None:
    """A level counts each request that it covers."""
    first = [ask(stack, "/first", "acme") for _ in range(4)]
    assert [one.status_code for one in first] == [200, 200, 200, 429]
    assert left(first[0]) == {
        "gateway-requests-per-month-by-consumer-by-header-x-region": 10,
        "team-requests-per-day-by-consumer": 4,
        "requests-per-day": 2,
        "plan-requests-per-day": 6,
        "plan-requests-per-month": 8,
    }
    assert first[-1].json()["violated-policies"] == ["requests-per-day"]
    second = [ask(stack, "/second", "acme") for _ in range(3)]
    assert [one.status_code for one in second] == [200, 200, 429]
    assert second[-1].json()["violated-policies"] == ["team-requests-per-day-by-consumer"]
    planned = [ask(stack, "/plan", "acme") for _ in range(3)]
    assert [one.status_code for one in planned] == [200, 200, 429]
    assert planned[-1].json()["violated-policies"] == ["plan-requests-per-day"]
    outer = [ask(stack, "/gateway", "acme") for _ in range(5)]
    assert [one.status_code for one in outer] == [200, 200, 200, 200, 429]  # 11, of which 7 are used
    name = "gateway-requests-per-month-by-consumer-by-header-x-region"
    assert outer[-1].json()["violated-policies"] == [name]
    assert left(ask(stack, "/gateway", "acme", "us")) == {name: 10}  # another combination
    assert [ask(stack, "/free", "acme").status_code for _ in range(15)] == [200] * 15
    assert left(ask(stack, "/plan", "beta"))["plan-requests-per-day"] == 6  # another consumer


def test_the_plans_month_ends_with_the_month_of_its_zone(stack: Stack) -> None:
    """In Auckland it ends some hours before that of the gateway's limit, which is UTC's."""
    items = ask(stack, "/plan", "beta", "zone").headers["ratelimit"].split(", ")
    seconds = {one.split(";")[0].strip('"'): int(one.rpartition("t=")[2]) for one in items}
    ahead = (
        seconds["gateway-requests-per-month-by-consumer-by-header-x-region"]
        - seconds["plan-requests-per-month"]
    )
    month = range(28 * 86_400, 32 * 86_400)  # where Auckland's month has begun already
    assert ahead in (12 * 3600, 13 * 3600) or -ahead + 13 * 3600 in month or -ahead + 12 * 3600 in month


def test_a_changed_amount_keeps_the_count(stack: Stack, backend: Backend) -> None:
    """A changed window begins a new one."""
    used = ask(stack, "/first", "beta", "change")
    assert left(used)["requests-per-day"] == 2

    def change(route: str, name: str) -> dict[str, int]:
        stack.write(YAML, **given(backend, route))
        stack.publish()

        def changed() -> dict[str, int] | None:
            told = left(ask(stack, "/first", "beta", "change"))
            return told if told.get(name, 0) > 3 else None

        return wait_for(changed, f"the limit {route}", also=(KeyError,))

    assert 0 < change("100/day", "requests-per-day")["requests-per-day"] <= 98
    assert change("100/hour", "requests-per-hour")["requests-per-hour"] == 99
