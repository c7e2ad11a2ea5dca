"""Calls of Envoys that other people configure: counts, statuses and figures, by a clock of the test."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from prometheus_client import CollectorRegistry

from filters.rate_limit.descriptor_files.reader import read_all
from filters.rate_limit.engine.memory import Memory
from filters.rate_limit.server.service import RateLimits
from filters.rate_limit.stores.redis import RedisStore
from filters.rate_limit.stores.redis_client import connect
from filters.unary import RpcError
from tests.support.valkey import Valkey

FILE = b"""
domain: shop
descriptors:
  - {key: user, rate_limit: {unit: minute, requests_per_unit: 3, name: each-user}}
  - {key: user, value: guest, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: user, value: root, rate_limit: {unlimited: true}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: vip, rate_limit: {unit: minute, requests_per_unit: 5, replaces: [{name: each-user}]}}
  - {key: bot, value: "crawler-*", rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: tokens, rate_limit: {unit: day, requests_per_unit: 100}}
  - {key: wide, rate_limit: {unit: day, requests_per_unit: 1000}}
  - {key: quota, value: one, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: quota, value: two, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: never, rate_limit: {unit: hour, requests_per_unit: 0}}
"""
OK, OVER = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT
MINUTE = 60_000_000


def read(response: Any) -> rls_pb2.RateLimitResponse:
    assert isinstance(response, bytes)
    return rls_pb2.RateLimitResponse.FromString(response)


class Limits:
    """The service with a clock that stands, 15 seconds after a full minute."""

    def __init__(self) -> None:
        self.now = 1_000 * MINUTE + MINUTE // 4
        self.service = RateLimits(CollectorRegistry(), clock=lambda: self.now)
        self.service.domains = read_all({"f.yaml": FILE})[0]

    def ask(self, *descriptors: dict[str, str], domain: str = "shop", **fields: Any) -> Any:
        request = rls_pb2.RateLimitRequest(domain=domain, **fields)
        for entries in descriptors:
            added = request.descriptors.add()
            for key, value in entries.items():
                added.entries.add(key=key, value=value)
        return read(self.service.should_rate_limit(request))

    def codes(self, count: int, *descriptors: dict[str, str]) -> list[int]:
        return [self.ask(*descriptors).overall_code for _ in range(count)]


def test_a_window_admits_its_requests_and_tells_the_figures() -> None:
    limits = Limits()
    first = limits.ask({"user": "me"})
    status = first.statuses[0]
    assert (first.overall_code, status.code, status.limit_remaining) == (OK, OK, 2)
    assert status.duration_until_reset.seconds == 45
    assert status.current_limit.requests_per_unit == 3
    assert status.current_limit.unit == rls_pb2.RateLimitResponse.RateLimit.MINUTE
    assert limits.codes(3, {"user": "me"}) == [OK, OK, OVER]
    assert limits.codes(1, {"user": "you"}) == [OK]
    limits.now += MINUTE
    assert limits.codes(4, {"user": "me"}) == [OK, OK, OK, OVER]


def test_a_value_and_a_wildcard_have_their_own_limits() -> None:
    limits = Limits()
    assert limits.codes(2, {"user": "guest"}) == [OK, OVER]
    assert limits.codes(2, {"bot": "crawler-1"}) == [OK, OVER]
    assert limits.codes(2, {"bot": "crawler-2"}) == [OK, OVER]
    assert limits.codes(2, {"bot": "other"}) == [OK, OK]
    assert limits.codes(1, {"never": "x"}) == [OVER]


def test_unlimited_is_told_as_such_and_counts_nothing() -> None:
    limits = Limits()
    answers = [limits.ask({"user": "root"}) for _ in range(5)]
    assert {one.overall_code for one in answers} == {OK}
    assert answers[-1].statuses[0].limit_remaining == 2**32 - 1


def test_shadow_counts_and_never_rejects() -> None:
    limits = Limits()
    assert limits.codes(3, {"shadow": "x"}) == [OK, OK, OK]
    assert limits.ask({"shadow": "x"}).statuses[0].limit_remaining == 0


def test_a_limit_that_another_replaces_counts_nothing() -> None:
    limits = Limits()
    assert limits.codes(6, {"user": "me"}, {"vip": "me"}) == [OK] * 5 + [OVER]
    assert limits.ask({"user": "me"}).statuses[0].limit_remaining == 2


def test_each_descriptor_has_its_status_and_a_rejected_request_counts_for_none() -> None:
    limits = Limits()
    answers = [limits.ask({"user": "me"}, {"user": "guest"}, {"nobody": "x"}) for _ in range(2)]
    assert [[one.code for one in answer.statuses] for answer in answers] == [[OK, OK, OK], [OK, OVER, OK]]
    assert answers[1].statuses[0].limit_remaining == 2
    assert not answers[1].statuses[2].HasField("current_limit")


def test_the_same_descriptor_twice_counts_once() -> None:
    limits = Limits()
    answer = limits.ask({"user": "me"}, {"user": "me"})
    assert [one.limit_remaining for one in answer.statuses] == [2, 2]


def test_what_a_request_costs_is_what_envoy_says() -> None:
    limits = Limits()
    assert limits.ask({"user": "me"}, hits_addend=2).statuses[0].limit_remaining == 1
    request = rls_pb2.RateLimitRequest(domain="shop", hits_addend=1)
    descriptor = request.descriptors.add()
    descriptor.entries.add(key="user", value="me")
    descriptor.hits_addend.value = 0
    free: Any = read(limits.service.should_rate_limit(request))
    assert free.statuses[0].limit_remaining == 1
    descriptor.hits_addend.value = 2
    dear: Any = read(limits.service.should_rate_limit(request))
    assert dear.overall_code == OVER


def test_a_limit_that_envoy_sends_itself_is_counted() -> None:
    limits = Limits()
    request = rls_pb2.RateLimitRequest(domain="shop")
    descriptor = request.descriptors.add()
    descriptor.entries.add(key="anything", value="x")
    descriptor.limit.requests_per_unit = 2
    descriptor.limit.unit = 2
    answers: list[Any] = [read(limits.service.should_rate_limit(request)) for _ in range(3)]
    assert [one.overall_code for one in answers] == [OK, OK, OVER]


@pytest.mark.parametrize("unit", ["SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "YEAR"])
def test_a_limit_that_envoy_sends_itself_counts_with_every_unit(unit: str) -> None:
    limits = Limits()
    request = rls_pb2.RateLimitRequest(domain="shop")
    descriptor = request.descriptors.add()
    descriptor.entries.add(key="anything", value="x")
    descriptor.limit.requests_per_unit = 1
    number = rls_pb2.RateLimitResponse.RateLimit.Unit.Value(unit)
    descriptor.limit.unit = number  # type: ignore[assignment]
    answers: list[Any] = [read(limits.service.should_rate_limit(request)) for _ in range(2)]
    assert [one.overall_code for one in answers] == [OK, OVER]
    status = answers[1].statuses[0]
    assert (status.current_limit.unit, status.current_limit.name) == (number, "")
    assert 1 <= status.duration_until_reset.seconds <= 366 * 86_400


def costs(limits: Limits, *descriptors: tuple[dict[str, str], int | None]) -> Any:
    """One call with what Envoy says of each descriptor's cost."""
    request = rls_pb2.RateLimitRequest(domain="shop")
    for entries, cost in descriptors:
        added = request.descriptors.add()
        for key, value in entries.items():
            added.entries.add(key=key, value=value)
        if cost is not None:
            added.hits_addend.value = cost
    return read(limits.service.should_rate_limit(request))


def test_what_is_reported_counts_beyond_the_limit_and_the_next_is_rejected() -> None:
    limits = Limits()
    answers = [costs(limits, ({"tokens": "me"}, cost)) for cost in (0, 90, 0, 500, 0)]
    assert [one.overall_code for one in answers] == [OK, OK, OK, OVER, OVER]
    assert [one.statuses[0].limit_remaining for one in answers] == [100, 10, 10, 0, 0]


def test_what_is_reported_counts_in_shadow_too() -> None:
    limits = Limits()
    answers = [costs(limits, ({"shadow": "me"}, cost)) for cost in (0, 5, 0)]
    assert [one.overall_code for one in answers] == [OK, OK, OK]
    assert [one.statuses[0].limit_remaining for one in answers] == [1, 0, 0]


def test_what_is_reported_for_one_descriptor_counts_though_another_rejects() -> None:
    limits = Limits()
    answer = costs(limits, ({"tokens": "me"}, 500), ({"wide": "me"}, 500), ({"user": "me"}, None))
    assert [one.code for one in answer.statuses] == [OVER, OK, OK]
    assert [one.limit_remaining for one in answer.statuses] == [0, 500, 3]
    assert costs(limits, ({"wide": "me"}, 0)).statuses[0].limit_remaining == 500
    assert costs(limits, ({"user": "me"}, None)).statuses[0].limit_remaining == 2


def test_a_counter_that_is_exactly_used_up_admits_what_costs_nothing() -> None:
    limits = Limits()
    assert costs(limits, ({"tokens": "me"}, 100)).overall_code == OK
    assert costs(limits, ({"tokens": "me"}, 0)).overall_code == OK
    assert costs(limits, ({"tokens": "me"}, 1)).overall_code == OVER
    assert (
        costs(limits, ({"tokens": "me"}, 0)).overall_code == OVER
    )  # what was rejected was reported and counts


def test_the_reset_is_rounded_up_and_never_0() -> None:
    limits = Limits()
    limits.now = 1_001 * MINUTE - 1
    answer = limits.ask({"user": "me"})
    duration = answer.statuses[0].duration_until_reset
    assert (duration.seconds, duration.nanos) == (1, 0)


def test_a_limit_has_the_name_of_its_file_or_none() -> None:
    limits = Limits()
    answer = limits.ask({"user": "me"}, {"user": "guest"})
    assert [one.current_limit.name for one in answer.statuses] == ["each-user", ""]
    assert [one["limit"] for one in limits.service.shown()["counters"]] == ["user=guest", "each-user"]


def test_quotas_reject_when_all_of_them_are_over() -> None:
    limits = Limits()
    one, two = {"quota": "one"}, {"quota": "two"}
    answers = [limits.ask(one, two) for _ in range(3)]
    assert [answer.overall_code for answer in answers] == [OK, OK, OVER]
    assert [[status.code for status in answer.statuses] for answer in answers] == [
        [OK, OK],
        [OVER, OK],
        [OVER, OVER],
    ]
    assert limits.codes(1, one) == [OVER]


async def asked(service: RateLimits, request: rls_pb2.RateLimitRequest) -> Any:
    found: Any = service.should_rate_limit(request)
    return found if isinstance(found, bytes) else await found


@pytest.mark.parametrize("on", ["memory", "redis"])
async def test_where_nobody_can_count_envoy_is_told_so(tmp_path: Path, on: str) -> None:
    registry = CollectorRegistry()
    if on == "redis":
        redis = RedisStore(connect("redis://127.0.0.1:1"), registry, 5.0)
        service = RateLimits(registry, redis)
    else:
        service = RateLimits(registry, Memory(capacity=0))
    service.domains = read_all({"f.yaml": FILE})[0]
    request = rls_pb2.RateLimitRequest(domain="shop")
    request.descriptors.add().entries.add(key="user", value="me")
    with pytest.raises(RpcError) as raised:
        await asked(service, request)
    assert raised.value.code == 14
    outcomes = {
        one: registry.get_sample_value("xds_rate_limit_decisions_total", {"outcome": one})
        for one in ("admitted", "uncounted")
    }
    assert outcomes == {"admitted": 0, "uncounted": 1}
    if on == "redis":
        name = "xds_rate_limit_store_failures_total"
        assert registry.get_sample_value(name, {"store": "redis", "outcome": "failed"}) == 1
        assert registry.get_sample_value(name, {"store": "redis", "outcome": "allowed"}) is None
        await redis.close()


async def test_redis_and_memory_agree_on_what_is_reported(tmp_path: Path) -> None:
    with Valkey(tmp_path) as valkey:
        redis = RedisStore(connect(valkey.url), CollectorRegistry(), 5.0)
        service = RateLimits(CollectorRegistry(), redis)
        service.domains = read_all({"f.yaml": FILE})[0]
        answers = []
        for cost in (0, 90, 0, 500, 0, 0):
            request = rls_pb2.RateLimitRequest(domain="shop")
            descriptor = request.descriptors.add()
            descriptor.entries.add(key="tokens", value="me")
            descriptor.hits_addend.value = cost
            call: Any = service.should_rate_limit(request)
            answers.append(read(await call))
        await redis.close()
    assert [one.overall_code for one in answers] == [OK, OK, OK, OVER, OVER, OVER]
    assert [one.statuses[0].limit_remaining for one in answers] == [100, 10, 10, 0, 0, 0]


def test_a_limit_of_a_unit_that_is_not_known_counts_nothing() -> None:
    limits = Limits()
    request = rls_pb2.RateLimitRequest(domain="shop")
    descriptor = request.descriptors.add()
    descriptor.entries.add(key="anything", value="x")
    descriptor.limit.requests_per_unit = 1
    for unit in (0, 8, 99):
        descriptor.limit.unit = unit  # type: ignore[assignment]
        answers: list[Any] = [read(limits.service.should_rate_limit(request)) for _ in range(2)]
        assert [one.overall_code for one in answers] == [OK, OK]


def test_a_domain_that_nobody_gives_is_let_pass() -> None:
    answer = Limits().ask({"user": "me"}, domain="other")
    assert (answer.overall_code, len(answer.statuses)) == (OK, 1)


def test_a_changed_amount_keeps_what_was_counted() -> None:
    limits = Limits()
    assert limits.codes(3, {"user": "me"}) == [OK, OK, OK]
    more = FILE.replace(b"requests_per_unit: 3", b"requests_per_unit: 4")
    limits.service.domains = read_all({"f.yaml": more})[0]
    assert limits.codes(2, {"user": "me"}) == [OK, OVER]


def test_counters_are_shown_and_forgotten_for_operators() -> None:
    limits = Limits()
    limits.codes(2, {"user": "a|b=c%"})
    shown = limits.service.shown()["counters"]
    assert [(one["limit"], one["used"], one["remaining"]) for one in shown] == [("each-user", 2, 1)]
    assert limits.service.reset("domain/shop|") == {"reset": 1}
    assert limits.ask({"user": "a|b=c%"}).statuses[0].limit_remaining == 2


async def test_two_servers_count_together_in_redis_and_tell_the_same_figures(tmp_path: Path) -> None:
    more = b"\n  - {key: day, rate_limit: {unit: day, requests_per_unit: 10}}"
    request = rls_pb2.RateLimitRequest(domain="shop")
    request.descriptors.add().entries.add(key="user", value="root")
    request.descriptors.add().entries.add(key="day", value="x")
    with Valkey(tmp_path) as valkey:
        stores = [RedisStore(connect(valkey.url), CollectorRegistry(), 5.0) for _ in range(2)]
        servers = [RateLimits(CollectorRegistry(), one) for one in stores]
        for server in servers:
            server.domains = read_all({"f.yaml": FILE + more})[0]
        calls: list[Any] = [server.should_rate_limit(request) for server in servers * 8]
        answers = [read(one) for one in await asyncio.gather(*calls)]
        for one in stores:
            await one.close()
    assert sorted(one.overall_code for one in answers) == [OK] * 10 + [OVER] * 6
    admitted = [one for one in answers if one.overall_code == OK]
    assert sorted(one.statuses[1].limit_remaining for one in admitted) == list(range(10))
    assert {one.statuses[0].limit_remaining for one in answers} == {2**32 - 1}
