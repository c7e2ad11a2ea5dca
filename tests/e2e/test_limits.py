"""Limits through the real Envoy, counted by a policy server process that is fed by the real xDS server."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.credential_stack import TOO_MANY_KEYS
from tests.support.folder import filled, write
from tests.support.identity_cases import sha256
from tests.support.policy_server import Stack, Stacks
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.valkey import Valkey
from tests.support.wait import wait_for
from xds_server.cli.main import main

POLICY = """
from filters.ext_authz import Decision, Request, allow

async def check(request: Request) -> Decision:
    return allow()
"""
CHECKED = 'policies: {ext_authz: {python: "p.py:check", timeout: 5s}}'
KEYS = {name: f"key-of-{name}" for name in ("acme", "beta", "gamma", "vip")}


YAML = """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$echo]}}
$policies
plans:
  free: {rate_limit: 4/day, concurrency: 2}
  pro: {rate_limit: [100/day, 1000/month]}
consumers:
$consumers
policy_sets:
  each: {rate_limit: [{requests: 7, per: month, by: consumer}, {requests: 9, per: month, by: "header:x-other"}]}
  common: {rate_limit: {requests: 3, per: day, by: "header:x-team"}}
routes:
  free: {path: /free, upstream: echo}
  daily: {path: /daily, upstream: echo, policies: {rate_limit: 3/day}}
  two: {path: /two, upstream: echo, policies: {rate_limit: [2/day, 5/month]}}
  header: {path: /header, upstream: echo, policies: {rate_limit: {requests: 2, per: day, by: "header:x-tenant"}}}
  cost: {path: /cost, upstream: echo, policies: {rate_limit: {requests: 10, per: day, cost: "header:x-cost", by: route}}}
  failures: {path: /failures, upstream: echo, policies: {rate_limit: {requests: 2, per: day, count: [500], by: route}}}
  bucket: {path: /bucket, upstream: echo, policies: {rate_limit: {requests: 1, per: day, burst: 3}}}
  shadow: {path: /shadow, upstream: echo, policies: {rate_limit: {requests: 1, per: day, shadow: true}}}
  quiet: {path: /quiet, upstream: echo, policies: {rate_limit: 1/day, limit_headers: []}}
  ietf: {path: /ietf, upstream: echo, policies: {rate_limit: 9/day, limit_headers: [ietf]}}
  bytes-out: {path: /bytes-out, upstream: echo, policies: {quota: {bytes: 1000B, per: day, direction: out, by: route}}}
  bytes-in: {path: /bytes-in, upstream: echo, policies: {quota: {bytes: 1000B, per: day, direction: in, by: route}}}
  slots: {path: /slots, upstream: echo, policies: {concurrency: 2}}
  planned: {path: /planned, upstream: echo, policies: {api_key: true}}
  also-planned: {path: /also-planned, upstream: echo, policies: {api_key: true, rate_limit: 3/day}}
  exempt: {path: /exempt, upstream: echo, policies: {api_key: true, plan_limits: off}}
  usage: {path: /usage, use: [each], policies: {api_key: {optional: true}, usage: true, ext_authz: off}}
  used: {path: /used, upstream: echo, use: [each], policies: {api_key: true}}
  mixed: {path: /mixed, upstream: echo, policies: {rate_limit: [{requests: 2, per: day, by: route, scope: local}, {requests: 9, per: day, by: route}]}}
  team-a: {path: /team/a, upstream: echo, use: [common], policies: {rate_limit: 2/day}}
  team-b: {path: /team/b, upstream: echo, use: [common]}
  changing: {path: /changing, upstream: echo, policies: {rate_limit: $changing}}
"""


def given(backend: Backend, policies: str, changing: str = "5/day") -> dict[str, str]:
    """The values for the names in the YAML."""
    consumers = "\n".join(
        f"  {name}: {{plan: {'pro' if name == 'vip' else 'free'}, api_keys: [{{sha256: {sha256(key)}}}]}}"
        for name, key in KEYS.items()
    )
    return {"echo": backend.address, "policies": policies, "consumers": consumers, "changing": changing}


@pytest.fixture(scope="module", params=["rate limit call", "check", "lookup of keys"])
def way(request: pytest.FixtureRequest) -> str:
    """By which call limits are decided."""
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def policies(way: str) -> str:
    """What stands on all routes: a policy in Python, whose Check then decides limits too, or nothing."""
    return CHECKED if way == "check" else ""


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend, policies: str, way: str) -> Stack:
    files = {"p.py": POLICY, "many.yaml": TOO_MANY_KEYS if way == "lookup of keys" else ""}
    stack = stacks.start(YAML, files=files, **given(backend, policies))
    # Envoy connects to the policy server with the first request that is limited.
    wait_for(lambda: "ratelimit" in stack.get("/ietf").headers, "the first decision")
    return stack


def statuses(stack: Stack, path: str, count: int, **headers: str) -> list[int]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return [stack.get(path, headers=sent).status_code for _ in range(count)]


def counted(stack: Stack, prefix: str) -> int:
    """What the policy server says is used under the only key with this prefix."""
    shown = httpx.get(f"http://{stack.policy_server.admin}/limits").json()["counters"]
    return sum(one["used"] for one in shown if one["key"].startswith(prefix))


def as_consumer(name: str) -> dict[str, str]:
    return {"x_api_key": KEYS[name]}


def test_exactly_so_many_pass_and_the_figures_are_told(stack: Stack) -> None:
    before = int(time.time())
    answers = [stack.get("/daily") for _ in range(5)]
    assert [one.status_code for one in answers] == [200, 200, 200, 429, 429]
    assert [one.headers["x-ratelimit-remaining"] for one in answers] == ["2", "1", "0", "0", "0"]
    first, last = answers[0], answers[-1]
    midnight = before - before % 86400 + 86400
    assert first.headers["x-ratelimit-limit"] == "3"
    assert first.headers["x-ratelimit-reset"] == str(midnight)
    assert first.headers["ratelimit-policy"] == '"requests-per-day";q=3;w=86400'
    assert first.headers["ratelimit"].startswith('"requests-per-day";r=2;t=')
    assert "retry-after" not in first.headers
    assert abs(int(last.headers["retry-after"]) - (midnight - time.time())) < 60
    assert last.headers["content-type"] == "application/problem+json"
    assert last.headers["x-gateway-reason"] == "rate_limited"
    body = last.json()
    assert body["violated-policies"] == ["requests-per-day"]
    assert (body["status"], body["reason"]) == (429, "rate_limited")
    assert body["request_id"]


def test_two_windows_apply_together_and_the_strictest_is_told(stack: Stack) -> None:
    answers = [stack.get("/two") for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert [one.headers["x-ratelimit-limit"] for one in answers] == ["2", "2", "2"]
    assert answers[-1].headers["ratelimit-policy"].count("q=") == 2
    assert '"requests-per-month";r=3' in answers[-1].headers["ratelimit"]  # a rejection took nothing


def test_values_of_a_header_count_apart_and_absence_is_one_of_them(stack: Stack) -> None:
    assert statuses(stack, "/header", 3, x_tenant="a") == [200, 200, 429]
    assert statuses(stack, "/header", 3, x_tenant="b") == [200, 200, 429]
    assert statuses(stack, "/header", 3) == [200, 200, 429]


def test_the_cost_stands_in_a_header(stack: Stack) -> None:
    assert statuses(stack, "/cost", 2, x_cost="4") == [200, 200]
    assert statuses(stack, "/cost", 1, x_cost="4") == [429]
    assert statuses(stack, "/cost", 3, x_cost="1") == [200, 200, 429]


def test_only_some_statuses_count(stack: Stack) -> None:
    assert statuses(stack, "/failures", 4) == [200] * 4
    assert statuses(stack, "/failures", 2, x_echo_status="500") == [500, 500]
    wait_for(lambda: stack.get("/failures").status_code == 429, "the two failures to count")


def test_a_bucket_holds_its_burst(stack: Stack) -> None:
    answers = [stack.get("/bucket") for _ in range(4)]
    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    assert answers[0].headers["x-ratelimit-limit"] == "3"
    assert int(answers[-1].headers["retry-after"]) > 80000


def test_shadow_never_rejects_nor_tells(stack: Stack) -> None:
    answers = [stack.get("/shadow") for _ in range(3)]
    assert [one.status_code for one in answers] == [200] * 3
    assert not any(name.startswith("ratelimit") or "x-ratelimit" in name for name in answers[0].headers)


def test_headers_are_chosen(stack: Stack) -> None:
    quiet = [stack.get("/quiet") for _ in range(2)]
    assert [one.status_code for one in quiet] == [200, 429]
    assert not any("ratelimit" in name for one in quiet for name in one.headers)
    assert "retry-after" in quiet[1].headers
    ietf = stack.get("/ietf").headers
    assert "ratelimit" in ietf
    assert "x-ratelimit-limit" not in ietf


def test_the_upstreams_own_copies_are_removed(stack: Stack, backend: Backend) -> None:
    backend.headers = {"x-ratelimit-limit": "77", "RateLimit": '"theirs";r=1'}
    try:
        answer = stack.get("/ietf")
        assert "theirs" not in answer.headers["ratelimit"]
        assert "x-ratelimit-limit" not in answer.headers
        assert stack.get("/free").headers["x-ratelimit-limit"] == "77"
    finally:
        backend.headers = {}


def test_sent_bytes_count_exactly(stack: Stack, backend: Backend) -> None:
    backend.body = b"x" * 300
    try:
        for number in (1, 2, 3, 4):
            assert stack.get("/bytes-out").status_code == 200
            wait_for(lambda number=number: counted(stack, "route/bytes-out") == 300 * number, "the bytes")
        rejected = stack.get("/bytes-out")
        assert rejected.status_code == 429
        assert rejected.json()["reason"] == "quota_exceeded"
        assert rejected.headers["x-gateway-reason"] == "quota_exceeded"
        assert (
            rejected.headers["ratelimit-policy"]
            == '"bytes-out-per-day-by-route";q=1000;qu="content-bytes";w=86400'
        )
        assert counted(stack, "route/bytes-out") == 1200
    finally:
        backend.body = None


def test_received_bytes_count_exactly(stack: Stack) -> None:
    for number in (1, 2):
        assert httpx.post(stack.url + "/bytes-in", content=b"y" * 400).status_code == 200
        wait_for(lambda number=number: counted(stack, "route/bytes-in") == 400 * number, "the bytes to count")
    assert httpx.post(stack.url + "/bytes-in", content=b"y" * 400).status_code == 200
    wait_for(lambda: counted(stack, "route/bytes-in") == 1200, "the bytes to count")
    assert httpx.post(stack.url + "/bytes-in", content=b"y").status_code == 429


def test_slots_are_taken_and_given_back(stack: Stack, backend: Backend) -> None:
    backend.release = threading.Event()
    before = len(backend.seen)
    try:
        with ThreadPoolExecutor(2) as pool:
            held = [pool.submit(stack.get, "/slots") for _ in range(2)]
            wait_for(lambda: len(backend.seen) == before + 2, "two requests to be under way")
            rejected = stack.get("/slots")
            backend.release.set()
            assert [one.result().status_code for one in held] == [200, 200]
    finally:
        backend.release = None
    assert rejected.status_code == 429
    assert rejected.json()["reason"] == "concurrency_exceeded"
    assert rejected.headers["ratelimit-policy"] == '"concurrent-requests";q=2;qu="concurrent-requests"'
    assert rejected.headers["retry-after"] == "1"
    wait_for(lambda: counted(stack, "route/slots") == 0, "the slots to be given back")
    assert statuses(stack, "/slots", 1) == [200]


def test_a_plan_counts_across_routes_beside_their_own_limits(stack: Stack) -> None:
    assert statuses(stack, "/planned", 1, **as_consumer("acme")) == [200]
    assert statuses(stack, "/also-planned", 4, **as_consumer("acme")) == [200, 200, 200, 429]
    answer = stack.get("/also-planned", headers={"x-api-key": KEYS["acme"]})
    assert answer.json()["violated-policies"] == ["requests-per-day", "plan-requests-per-day"]
    assert statuses(stack, "/planned", 1, **as_consumer("acme")) == [429]
    assert statuses(stack, "/exempt", 6, **as_consumer("acme")) == [200] * 6
    assert statuses(stack, "/planned", 5, **as_consumer("beta")) == [200, 200, 200, 200, 429]
    assert statuses(stack, "/planned", 6, **as_consumer("vip")) == [200] * 6
    assert statuses(stack, "/planned", 1) == [401]


def test_all_levels_apply_and_a_set_counts_across_its_routes(stack: Stack) -> None:
    assert statuses(stack, "/team/a", 3, x_team="x") == [200, 200, 429]
    assert statuses(stack, "/team/b", 2, x_team="x") == [200, 429]
    assert statuses(stack, "/team/b", 1, x_team="y") == [200]


def test_requests_at_the_same_time_never_exceed_the_limit(stack: Stack) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda _: stack.get("/header", headers={"x-tenant": "busy"}).status_code, range(24))
        )
    assert sorted(set(found)) == [200, 429]
    assert found.count(200) == 2


def test_a_changed_limit_is_effective_at_once_and_keeps_its_count(
    stack: Stack, backend: Backend, policies: str
) -> None:
    def change(limit: str) -> None:
        stack.write(YAML, **given(backend, policies, limit))

    assert statuses(stack, "/changing", 4) == [200] * 4
    change("4/day")
    stack.publish()
    wait_for(
        lambda: stack.get("/changing").headers["x-ratelimit-limit"] == "4",
        "the smaller limit",
        also=(KeyError,),
    )
    assert statuses(stack, "/changing", 1) == [429]
    change("50/day")
    stack.publish()
    wait_for(lambda: stack.get("/changing").status_code == 200, "the larger limit")
    assert int(stack.get("/changing").headers["x-ratelimit-remaining"]) <= 50 - 6


def test_what_a_proxy_rejects_itself_is_neither_asked_for_nor_counted(stack: Stack) -> None:
    answers = [stack.get("/mixed") for _ in range(4)]
    assert [one.status_code for one in answers] == [200, 200, 429, 429]
    assert [one.headers.get("x-ratelimit-limit") for one in answers] == ["9", "9", None, None]
    assert counted(stack, "route/mixed") == 2


def test_a_consumer_reads_what_it_has_left_which_counts_nothing(stack: Stack) -> None:
    gamma = {"x-api-key": KEYS["gamma"]}

    def told(key: str) -> list[int]:
        answer = stack.get("/usage", headers=gamma)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        return [one[key] for one in answer.json()["limits"]]

    answer = stack.get("/usage", headers=gamma).json()
    assert (answer["consumer"], answer["plan"]) == ("gamma", "free")
    assert told("name") == [
        "each-requests-per-month-by-consumer",
        "plan-requests-per-day",
        "plan-concurrent-requests",
    ]
    assert told("unit") == ["requests", "requests", "concurrent-requests"]
    assert told("limit") == [7, 4, 2]
    assert told("remaining") == [7, 4, 2]
    assert statuses(stack, "/used", 3, **as_consumer("gamma")) == [200, 200, 200]
    wait_for(lambda: told("remaining")[2] == 2, "the slot to be given back")
    assert told("remaining") == [4, 1, 2]
    assert statuses(stack, "/used", 2, **as_consumer("gamma")) == [200, 429]
    assert told("remaining")[:2] == [3, 0]
    midnight = int(time.time()) // 86400 * 86400 + 86400
    assert answer["limits"][1]["reset"] == midnight


def test_usage_is_told_to_consumers_alone(stack: Stack) -> None:
    assert stack.get("/usage", headers={"x-api-key": "wrong"}).status_code == 401
    answer = stack.get("/usage")
    assert (answer.status_code, answer.json()["reason"]) == (403, "ext_authz_denied")


def test_an_operator_sees_and_resets_counters(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    admin = ("--admin", stack.policy_server.admin)
    tenant = {"x_tenant": "operated"}
    assert statuses(stack, "/header", 3, **tenant) == [200, 200, 429]
    key = "route/header|requests|fixed_window|day|header:x-tenant=operated"
    assert main(["limits", key, *admin]) == 0
    assert (
        f"{key}  requests-per-day-by-header-x-tenant: 2 of 2 used, 0 left, until 20"
        in capsys.readouterr().out
    )
    assert main(["limits", key, "--reset", "--output", "json", *admin]) == 0
    assert json.loads(capsys.readouterr().out) == {"reset": 1}
    assert main(["limits", key, "--output", "json", *admin]) == 0
    assert json.loads(capsys.readouterr().out)["counters"] == []
    assert statuses(stack, "/header", 3, **tenant) == [200, 200, 429]
    assert main(["limits", "--reset", *admin]) == 2
    assert "--all" in capsys.readouterr().err


def test_xds_run_tells_where_the_policy_server_beside_it_counts(
    tmp_path: Path, backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    port, folder = free_port(), tmp_path / "gateway"
    text = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {echo: {endpoints: [$backend]}}
routes: {a: {path: /a, upstream: echo, policies: {rate_limit: {requests: 1, per: day, by: route}}}}
"""
    write(folder, gateway=filled(text, port=port, backend=backend.address))
    with Running(folder, tmp_path) as running:
        admin = ("--admin", running.admin)
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/a").status_code == 429, "the limit")
        assert main(["limits", *admin]) == 0
        assert "1 counter in memory" in capsys.readouterr().out
        assert main(["limits", "--reset", "--all", *admin]) == 0
        assert "1 counter reset" in capsys.readouterr().out
        assert httpx.get(f"http://127.0.0.1:{port}/a").status_code == 200


def test_routes_without_limits_ask_nobody(stack: Stack) -> None:
    answer = stack.get("/free")
    assert answer.status_code == 200
    assert not any("ratelimit" in name for name in answer.headers)


def test_where_nobody_counts_each_limit_says_what_happens(tmp_path: Path, backend: Backend) -> None:
    stack = Stack(tmp_path)
    stack.write(
        """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$backend]}}
routes:
  open: {path: /open, upstream: echo, policies: {rate_limit: 1/day}}
  closed: {path: /closed, upstream: echo, policies: {rate_limit: {requests: 1, per: day, on_error: deny}}}
  usage: {path: /usage, policies: {api_key: true, usage: true}}
plans: {free: {rate_limit: 6/day}}
consumers:
  acme: {plan: free, api_keys: [{sha256: $digest}]}
""",
        backend=backend.address,
        digest=sha256(KEYS["acme"]),
    )
    with stack:
        assert statuses(stack, "/open", 2) == [200, 429]
        assert stack.get("/usage", headers={"x-api-key": KEYS["acme"]}).status_code == 200
        stack.policy_server.stop()
        assert statuses(stack, "/open", 3) == [200] * 3
        answer = stack.get("/closed")
        assert answer.status_code == 503
        assert answer.json()["reason"] == "rate_limit_unavailable"
        answer = stack.get("/usage", headers={"x-api-key": KEYS["acme"]})
        assert (answer.status_code, answer.json()["reason"]) == (503, "ext_authz_unavailable")
        assert stack.get("/usage").status_code == 401
        # Envoy itself says how often nobody answered.
        stats = stack.envoy.stats(r"cluster\.echo\.ratelimit\.")
        assert stats["cluster.echo.ratelimit.failure_mode_allowed"] >= 3
        assert stats["cluster.echo.ratelimit.error"] >= 4


def test_a_second_policy_server_goes_on_counting_in_redis(
    tmp_path: Path, backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    with Valkey(tmp_path) as valkey:
        stack = Stack(tmp_path, tcp=True, arguments=("--counters", valkey.url))
        stack.write(
            """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$backend]}}
routes:
  a: {path: /a, upstream: echo, policies: {rate_limit: 5/day}}
  closed: {path: /closed, upstream: echo, policies: {rate_limit: {requests: 5, per: day, on_error: deny}}}
  usage: {path: /usage, policies: {api_key: true, usage: true}}
plans: {free: {rate_limit: 6/day, concurrency: 3}}
consumers:
  acme: {plan: free, api_keys: [{sha256: $digest}]}
""",
            backend=backend.address,
            digest=sha256(KEYS["acme"]),
        )
        with stack:
            assert statuses(stack, "/a", 3) == [200] * 3
            # The counters outlive the process that counted.
            stack.policy_server.stop()
            answers: list[httpx.Response] = []

            def counted_again() -> bool:
                answers.append(stack.get("/a"))
                return "x-ratelimit-limit" in answers[-1].headers

            with stack.server() as second:
                wait_for(counted_again, "the second policy server")
                answers += [stack.get("/a") for _ in range(3)]
                told = [one.status_code for one in answers if "x-ratelimit-limit" in one.headers]
                assert told.count(200) <= 2
                assert told[-1] == 429
                told = stack.get("/usage", headers={"x-api-key": KEYS["acme"]}).json()["limits"]
                assert [(one["limit"], one["remaining"]) for one in told] == [(6, 6), (3, 3)]
                assert main(["limits", "--admin", second.admin]) == 0
                assert "this command cannot list them" in capsys.readouterr().out
                assert main(["limits", "route/a|", "--reset", "--admin", second.admin]) == 0
                assert "1 counter reset" in capsys.readouterr().out
                assert stack.get("/a").status_code == 200
                assert stack.get("/closed").status_code == 200
                valkey.kill()
                wait_for(lambda: stack.get("/closed").status_code == 503, "Redis to be missed")
                refused = stack.get("/closed")
                assert (refused.status_code, refused.json()["reason"]) == (503, "rate_limit_unavailable")
                assert statuses(stack, "/a", 6) == [200] * 6
                answer = stack.get("/usage", headers={"x-api-key": KEYS["acme"]})
                assert (answer.status_code, answer.json()["reason"]) == (503, "ext_authz_failed")
                second.says("redis does not answer")
                metrics = second.metrics()
                for outcome in ("allowed", "denied"):
                    assert (
                        f'xds_rate_limit_store_failures_total{{outcome="{outcome}",store="redis"}}' in metrics
                    )
                assert 'xds_rate_limit_decisions_total{outcome="uncounted"}' in metrics
