"""Limits as people write them: what nobody could count, or what would have no effect, is an error with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from filters.model.identity import Plan
from filters.model.limits import ConcurrencyLimit, Limit, Quota
from filters.rate_limit.limit_rules import build, load
from tests.support.folder import compiled, write
from xds_server.errors import InvalidGateway


def problems(folder: Path, policies: str, plan: str = "{}") -> list[str]:
    text = f"""
listeners: {{http: {{port: 8080}}}}
upstreams: {{a: {{endpoints: ["127.0.0.1:1"]}}}}
plans: {{p: {plan}}}
routes: {{r: {{path: /r, upstream: a, policies: {{{policies}}}}}}}
"""
    try:
        compiled(write(folder, gateway=text))
    except InvalidGateway as invalid:
        return [str(one) for one in invalid.problems]
    return []


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("rate_limit: 0/day", "a limit of nothing would reject everything"),
        ("rate_limit: -1/day", "write a rate such as 1000/hour"),
        ("rate_limit: 4294967296/day", "at most 4294967295 requests can be counted"),
        ("rate_limit: {requests: 0, per: day}", "expected a value from 1 to 4294967295"),
        ("rate_limit: {requests: 4294967296, per: day}", "expected a value from 1 to 4294967295"),
        ("rate_limit: {requests: 1, per: day, burst: 4294967296}", "expected a value from 1 to 4294967295"),
        ("rate_limit: {requests: 1, per: week}", "expected one of second, minute, hour, day, month"),
        ("rate_limit: {requests: 5, per: day, cost: 0}", "no request could cost this"),
        ("rate_limit: {requests: 5, per: day, cost: 6}", "no request could cost this"),
        ("rate_limit: {requests: 50, per: day, burst: 5, cost: 6}", "no request could cost this"),
        ("rate_limit: {requests: 5, per: day, by: [ip, ip]}", "'ip' is listed twice"),
        ("rate_limit: {requests: 5, per: day, count: [999]}", "not a status"),
        ("rate_limit: {requests: 5, per: day, timezone: Mars/Phobos}", "unknown time zone"),
        ("rate_limit: {requests: 5, per: day, timezone: ../../etc/passwd}", "unknown time zone"),
        (
            "rate_limit: {requests: 5, per: day, align: rolling, timezone: Europe/Berlin}",
            "only windows of the calendar have a time zone",
        ),
        (
            "rate_limit: {requests: 5, per: day, algorithm: sliding_window, timezone: Europe/Berlin}",
            "only windows of the calendar have a time zone",
        ),
        ("rate_limit: {requests: 5, per: day, burst: 9, align: rolling}", "only fixed windows are aligned"),
        ("rate_limit: [5/day, 9/day]", "a second limit per day on the same count"),
        ("rate_limit: [5/day, {requests: 9, per: day, by: consumer}]", "a second limit per day"),
        (
            "rate_limit: [{requests: 5, per: day, by: [ip, route]}, {requests: 9, per: day, by: [route, ip]}]",
            "a second limit per day on the same count",
        ),
        ("quota: 0B/day", "a limit of nothing would reject everything"),
        ("quota: 99999999999999999999TB/day", "at most 9007199254740992 bytes can be counted"),
        ("quota: {bytes: 9007199254740994, per: day}", "expected a value from 1 to 9007199254740992"),
        ("concurrency: 0", "not a number of requests"),
        ("concurrency: 4294967296", "not a number of requests"),
        ("concurrency: {requests: 5, lease: 1ms}", "expected a value at least 1"),
        ("concurrency: {requests: 5, lease: 99999999d}", "a duration is at most 3650d"),
    ],
)
def test_what_nobody_can_count_is_one_error_with_its_place(tmp_path: Path, written: str, said: str) -> None:
    found = problems(tmp_path, written)
    assert len(found) == 1
    assert found[0].startswith("gateway.yaml:5:")
    assert said in found[0]


def test_a_plan_has_the_same_bounds(tmp_path: Path) -> None:
    assert "at most 9007199254740992 bytes" in problems(tmp_path, "", "{quota: 9999999TB/day}")[0]
    twice = "{rate_limit: [5/day, {requests: 6, per: day, by: consumer}]}"
    assert "a second limit per day" in problems(tmp_path, "", twice)[0]


@pytest.mark.parametrize(
    "written",
    [
        "rate_limit: 4294967295/day",
        "rate_limit: {requests: 1, per: month, burst: 4294967295, cost: 4294967295}",
        "rate_limit: [100/day, {requests: 5, per: day, count: [401, 403]}, {requests: 9, per: day, by: ip}]",
        "quota: [{bytes: 1GB, per: day, direction: in}, {bytes: 5GB, per: day, direction: out}, 6GB/day]",
        "quota: 9007199254740992B/month",
        "concurrency: {requests: 2147483648, lease: 3650d}",
        "rate_limit: {requests: 4294967295, per: second, scope: local}",
        "rate_limit: {requests: 1, per: month, scope: local}",
    ],
)
def test_the_largest_and_what_differs_is_taken(tmp_path: Path, written: str) -> None:
    assert problems(tmp_path, written) == []


def test_limits_of_a_place_have_keys_and_names_of_their_own() -> None:
    plan = Plan(
        rate_limit=(
            Limit(requests=5, per="day"),
            Limit(requests=5, per="day", count=(403, 401)),
            Limit(requests=5, per="day", by="ip"),
        ),
        quota=(
            Quota(bytes=5, per="day"),  # type: ignore[arg-type]
            Quota(bytes=5, per="day", direction="in"),  # type: ignore[arg-type]
        ),
        concurrency=ConcurrencyLimit(requests=5).requests,
    )
    found = load(build("plan:plan/p", plan))
    assert [one.limit.name for one in found] == [
        "plan-requests-per-day",
        "plan-requests-per-day-of-401-403",
        "plan-requests-per-day-by-ip",
        "plan-bytes-per-day",
        "plan-bytes-in-per-day",
        "plan-concurrent-requests",
    ]
    assert len({(one.base, one.by) for one in found}) == len(found)
