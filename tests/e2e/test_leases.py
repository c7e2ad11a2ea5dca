"""Leases through the real Envoy: busy callers are admitted without calls, and never more than a limit allows."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.envoy import Envoy
from tests.support.identity_cases import sha256
from tests.support.policy_server import Stack, Stacks
from tests.support.valkey import Valkey
from tests.support.wait import wait_for
from tests.support.xds import bootstrap

YAML = """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$echo]}}
plans:
  pro: {rate_limit: 4000/day}
consumers:
  acme: {plan: pro, api_keys: [{sha256: $acme}]}
routes:
  large: {path: /large, upstream: echo, policies: {rate_limit: 100000/day}}
  used-up: {path: /used-up, upstream: echo, policies: {rate_limit: 700/day}}
  two: {path: /two, upstream: echo, policies: {rate_limit: [{requests: 500, per: day, by: "header:x-team"}, {requests: 550, per: month, by: route}]}}
  planned: {path: /planned, upstream: echo, policies: {api_key: true}}
  dear: {path: /dear, upstream: echo, policies: {rate_limit: {requests: 5000, per: day, cost: 5}}}
  team: {path: /team, upstream: echo, policies: {rate_limit: {requests: 500, per: day, by: "header:x-team"}}}
  reset: {path: /reset, upstream: echo, policies: {rate_limit: 8000/month}}
  exact: {path: /exact, upstream: echo, policies: {rate_limit: {requests: 100000, per: day, exact: true}}}
"""

TEAM_A, TEAM_B = {"x-team": "a"}, {"x-team": "b"}


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend) -> Stack:
    stack = stacks.start(YAML, echo=backend.address, acme=sha256("key-of-acme"))
    wait_for(lambda: "ratelimit" in stack.get("/exact").headers, "the first decision")
    return stack


def many(stack: Stack, path: str, count: int, **headers: str) -> list[httpx.Response]:
    """Responses to so many requests, some at the same time."""
    with (
        ThreadPoolExecutor(8) as pool,
        httpx.Client(base_url=stack.url, headers=headers, timeout=30) as client,
    ):
        return list(pool.map(lambda _: client.get(path), range(count)))


def metric(stack: Stack, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)", stack.policy_server.metrics(), re.MULTILINE)
    return float(found[1]) if found is not None else 0.0


def granted(stack: Stack) -> float:
    return metric(stack, 'xds_rate_limit_leased_requests_total{state="granted"}')


def asked(stack: Stack) -> float:
    return metric(stack, 'xds_rate_limit_decisions_total{outcome="admitted"}')


RETURNED = 'xds_rate_limit_leased_requests_total{state="returned"}'


def used(stack: Stack, prefix: str) -> int:
    shown = httpx.get(f"http://{stack.policy_server.admin}/limits").json()["counters"]
    return sum(one["used"] for one in shown if one["key"].startswith(prefix))


def test_a_busy_caller_is_admitted_by_leases(stack: Stack) -> None:
    leased, calls = granted(stack), asked(stack)
    answers = many(stack, "/large", 1000)
    assert {one.status_code for one in answers} == {200}
    assert granted(stack) > leased
    assert asked(stack) - calls < 1000
    left = [int(one.headers["x-ratelimit-remaining"]) for one in answers]
    assert max(left) == 99_999
    assert min(left) >= 100_000 - used(stack, "route/large")
    assert {one.headers["x-ratelimit-limit"] for one in answers} == {"100000"}
    assert all(re.fullmatch(r'"requests-per-day";r=\d+;t=\d+', one.headers["ratelimit"]) for one in answers)


def test_never_more_pass_than_the_limit_allows(stack: Stack) -> None:
    answers = many(stack, "/used-up", 900)
    # On a busy machine a call for a lease may be given up.
    assert 600 < sum(one.status_code == 200 for one in answers) <= 700
    rejected = [one for one in answers if one.status_code == 429]
    assert {one.headers["x-gateway-reason"] for one in rejected} == {"rate_limited"}
    assert all("retry-after" in one.headers for one in rejected)
    assert granted(stack) > 0


def test_a_request_takes_one_from_each_limit(stack: Stack) -> None:
    a, b = many(stack, "/two", 600, **TEAM_A), many(stack, "/two", 100, **TEAM_B)
    passed = [sum(one.status_code == 200 for one in answers) for answers in (a, b)]
    assert 400 < passed[0] <= 500
    assert 450 < sum(passed) <= 550


def test_limits_of_plans_are_leased_too(stack: Stack) -> None:
    leased = granted(stack)
    answers = many(stack, "/planned", 400, **{"x-api-key": "key-of-acme"})
    assert {one.status_code for one in answers} == {200}
    assert granted(stack) > leased
    left = [int(one.headers["x-ratelimit-remaining"]) for one in answers]
    assert (max(left), min(left) >= 4000 - used(stack, "plan/pro")) == (3999, True)


def test_a_request_costs_what_the_limit_says(stack: Stack) -> None:
    left = [int(one.headers["x-ratelimit-remaining"]) for one in many(stack, "/dear", 300)]
    assert max(left) == 4995
    assert {one % 5 for one in left} == {0}
    assert 1500 <= used(stack, "route/dear") <= 1500 + 5 * 2 * (5000 // 5 // 16)


def test_long_values_of_clients_have_no_leases(stack: Stack) -> None:
    """The script would keep them, so clients could fill the memory of Envoy."""
    leased = granted(stack)
    assert {one.status_code for one in many(stack, "/team", 100, **{"x-team": "t" * 129})} == {200}
    assert granted(stack) == leased
    assert {one.status_code for one in many(stack, "/team", 100, **{"x-team": "t" * 128})} == {200}
    assert granted(stack) > leased


def test_exact_asks_about_each_request(stack: Stack) -> None:
    leased, calls = granted(stack), asked(stack)
    assert {one.status_code for one in many(stack, "/exact", 300)} == {200}
    assert granted(stack) == leased
    assert asked(stack) - calls == 300


def test_requests_count_again_after_a_reset(stack: Stack) -> None:
    """A lease of before the reset admits requests until it ends, and its rest does not go into the new counter."""
    assert {one.status_code for one in many(stack, "/reset", 300)} == {200}
    url = f"http://{stack.policy_server.admin}/limits/reset"
    assert httpx.post(url, content="route/reset").json() == {"reset": 1}
    returned = metric(stack, RETURNED)

    def is_returned() -> bool:
        assert stack.get("/reset").status_code == 200
        return metric(stack, RETURNED) > returned

    wait_for(is_returned, "the rest of the lease, with a later request")
    assert {one.status_code for one in many(stack, "/reset", 100)} == {200}
    assert used(stack, "route/reset") > 100


class Clients:
    """Clients that send requests until `stop`, and count the responses by status. Lost connections do not count."""

    def __init__(self, url: str) -> None:
        self.statuses: Counter[int] = Counter()
        self._url = url
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(6)]
        for one in self._threads:
            one.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(httpx.HTTPError), httpx.Client(timeout=30) as client:
                for _ in range(50):
                    self.statuses[client.get(self._url).status_code] += 1

    def stop(self) -> None:
        self._ended.set()
        for one in self._threads:
            one.join()


KILLED = """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$echo]}}
routes:
  all: {path: /all, upstream: echo, policies: {rate_limit: {requests: 2000, per: month, on_error: deny}}}
"""


def test_kills_admit_nothing_twice(stacks: Stacks, backend: Backend, tmp_path: Path) -> None:
    """Four Envoys behind one port, two policy servers behind another, and one Redis. All of them fail in turn."""
    with ExitStack() as started:
        valkey = started.enter_context(Valkey(tmp_path))
        stack = stacks.start(KILLED, echo=backend.address, tcp=True, arguments=("--counters", valkey.url))
        second = started.enter_context(stack.server())
        more = []
        for name in ("b", "c", "d"):
            (tmp_path / name).mkdir()
            envoy = started.enter_context(Envoy(bootstrap(stack.control.port), tmp_path / name))
            envoy.ready()
            more.append(envoy)
        wait_for(lambda: stack.get("/all").status_code == 200, "the first decision")
        clients = Clients(f"{stack.url}/all")
        passed = lambda: clients.statuses[200]  # noqa: E731
        try:
            wait_for(lambda: passed() > 300, "requests that pass")
            second.stop(signal.SIGKILL)
            wait_for(lambda: passed() > 600, "requests that pass with one policy server")
            second.start()
            valkey.signal(signal.SIGSTOP)
            refused = clients.statuses[503]
            wait_for(lambda: clients.statuses[503] > refused + 10, "requests that cannot be counted")
            valkey.signal(signal.SIGCONT)
            more[0].process.kill()
            wait_for(lambda: passed() > 1000, "requests that pass with fewer Envoys")
            stack.policy_server.stop(signal.SIGKILL)
            stack.policy_server.start()
            wait_for(lambda: clients.statuses[429] > 200, "the end of the limit")
        finally:
            clients.stop()
        assert passed() + 1 <= 2000
        assert set(clients.statuses) <= {200, 429, 503}
