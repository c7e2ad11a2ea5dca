"""Limits beside API keys that the policy server looks up: the lookup decides both, and nobody can tell it from two calls."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.credential_stack import TOO_MANY_KEYS
from tests.support.identity_cases import sha256
from tests.support.policy_server import Stack, Stacks
from tests.support.wait import wait_for

Sent = Sequence[tuple[str, str | bytes]]
NAMES = ("acme", "beta", "old")
ME: Sent = [("x-api-key", "key-of-acme")]
OTHER: Sent = [("x-api-key", "key-of-beta")]
CASES: Mapping[str, tuple[str, Sequence[Sent], Sequence[int]]] = {
    "plan": ("", [ME] * 3 + [OTHER], [200, 200, 429, 200]),
    "route-and-plan": ("rate_limit: 1/day", [ME, ME, OTHER], [200, 429, 200]),
    "address": ('rate_limit: {requests: 3, per: day, by: "ip"}, plan_limits: off', [ME, OTHER, ME, ME], [200, 200, 200, 429]),
    "who-is-refused-takes-nothing": (
        "rate_limit: {requests: 1, per: day, by: route}, plan_limits: off, concurrency: 3",
        [[], [("x-api-key", "wrong")], [*ME, *OTHER], [*ME, *ME], [("x-api-key", "key-of-old")], [("x-api-key", "")], ME, ME],
        [401, 401, 401, 401, 401, 401, 200, 429],
    ),
    "quiet": ("limit_headers: [], rate_limit: 1/day, plan_limits: off", [ME, ME], [200, 429]),
    "slots": ("concurrency: 3, rate_limit: 9/day, plan_limits: off", [ME] * 3, [200] * 3),
    "grpc": ("rate_limit: 1/day, plan_limits: off", [[*ME, ("content-type", "application/grpc"), ("te", "trailers")]] * 2, [200] * 2),
}  # fmt: skip


def consumer(name: str) -> str:
    key = sha256(f"key-of-{name}")
    ended = ", not_after: 2020-01-01" if name == "old" else ""
    return f"  {name}: {{plan: free, api_keys: [{{sha256: {key}{ended}}}]}}\n"


EVERYBODY = "authorize: {consumers: [acme, beta, old]}, "
YAML = """
listeners: {http: {port: $port, access_log: true, trusted_proxies: 1}}
upstreams: {echo: {endpoints: [$echo]}}
plans: {free: {rate_limit: 2/day}}
errors: {quota_exceeded: {status: 402, body: {error: "no more"}}}
consumers:
${consumers}routes:
  calls: {path: /calls, upstream: echo, policies: {api_key: true, plan_limits: off, rate_limit: 1000/day}}
  calls-two: {path: /calls-two, upstream: echo, policies: {api_key: true, $everybody plan_limits: off, rate_limit: {requests: 1000, per: day, exact: true}}}
  held: {path: /held, upstream: echo, policies: {api_key: true, plan_limits: off, concurrency: 1}}
  errors: {path: /errors, upstream: echo, policies: {api_key: true, plan_limits: off, quota: {bytes: 1B, per: day, direction: out}}}
  errors-two: {path: /errors-two, upstream: echo, policies: {api_key: true, ${everybody}plan_limits: off, quota: {bytes: 1B, per: day, direction: out}}}
$routes"""


def routes() -> str:
    """Two routes for each case: its limits decided with the lookup of the key, and in a call of their own."""
    return "".join(
        f"  {way}-{name}: {{path: /{way}/{name}, upstream: echo, policies: {{api_key: true, {more}{policies}}}}}\n"
        for name, (policies, _, _) in CASES.items()
        for way, more in (("one", ""), ("two", EVERYBODY))
    ).replace(", }", "}")


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend) -> Stack:
    stack = stacks.start(
        YAML,
        files={"many.yaml": TOO_MANY_KEYS},
        echo=backend.address,
        consumers="".join(map(consumer, NAMES)),
        everybody=EVERYBODY,
        routes=routes(),
    )
    for path in ("/calls", "/calls-two"):
        wait_for(lambda path=path: "x-ratelimit-limit" in get(stack, path).headers, "the first decision")
    return stack


def get(stack: Stack, path: str) -> httpx.Response:
    return stack.get(path, headers=dict(ME))


def counters(stack: Stack, prefix: str) -> dict[str, int]:
    shown = httpx.get(f"http://{stack.policy_server.admin}/limits").json()["counters"]
    return {one["key"].removeprefix(prefix): one["used"] for one in shown if one["key"].startswith(prefix)}


def told(answer: httpx.Response) -> tuple[int, Mapping[str, str], str]:
    """What the gateway says, less what differs from one request to the next anyway."""
    found = {name: value for name, value in answer.headers.items() if name not in ("date", "content-length")}
    body = "" if answer.headers["content-type"] == "application/json" else answer.text
    for pattern in (r'"request_id":"[^"]+"', r";t=\d+", r'(?<=concurrent-requests");r=\d+'):
        found = {name: re.sub(pattern, "", value) for name, value in found.items()}
        body = re.sub(pattern, "", body)
    if "retry-after" in found:
        assert int(found.pop("retry-after")) > 0
    return answer.status_code, found, body


@pytest.mark.parametrize("name", CASES)
def test_one_call_is_as_two(stack: Stack, name: str) -> None:
    _, requests, statuses = CASES[name]
    found = {}
    for way in ("one", "two"):
        httpx.post(f"http://{stack.policy_server.admin}/limits/reset", content=b"plan/free|")
        with httpx.Client(headers={"user-agent": "test"}) as client:
            answers = [client.get(f"{stack.url}/{way}/{name}", headers=list(sent)) for sent in requests]
        found[way] = [told(one) for one in answers], counters(stack, "plan/free|")
    assert [one[0] for one in found["one"][0]] == list(statuses)
    assert found["one"] == found["two"]

    def settled(way: str) -> dict[str, int]:
        text = counters(stack, f"route/{way}-{name}|").items()
        return {key.replace(f"{way}-", ""): used for key, used in text if used}

    wait_for(
        lambda: not any("concurrent" in key for way in ("one", "two") for key in settled(way)),
        "the slots to be given back",
    )
    assert settled("one") == settled("two")


def calls(stack: Stack) -> int:
    name = "cluster.xds/policy-server.upstream_rq_total"
    return stack.envoy.stats(f"^{name}$")[name]


@pytest.mark.parametrize(("path", "each"), [("/calls", 1), ("/calls-two", 2)])
def test_one_request_is_one_call(stack: Stack, path: str, each: int) -> None:
    before = calls(stack)
    assert [get(stack, path).status_code for _ in range(20)] == [200] * 20
    wait_for(lambda: calls(stack) == before + 20 * each, "the calls of 20 requests")


def test_a_slot_is_held_until_the_end(stack: Stack, backend: Backend) -> None:
    backend.release = threading.Event()
    before, answers = len(backend.seen), list[httpx.Response]()
    holding = threading.Thread(target=lambda: answers.append(get(stack, "/held")))
    try:
        holding.start()
        wait_for(lambda: len(backend.seen) == before + 1, "a request to be under way")
        assert get(stack, "/held").json()["reason"] == "concurrency_exceeded"
    finally:
        backend.release.set()
        holding.join()
        backend.release = None
    assert answers[0].status_code == 200
    wait_for(lambda: get(stack, "/held").status_code == 200, "the slot to be given back")


@pytest.mark.parametrize("path", ["/errors", "/errors-two"])
def test_an_answer_of_ones_own_takes_the_place_of_the_problem(stack: Stack, path: str) -> None:
    assert get(stack, path).status_code == 200
    wait_for(lambda: get(stack, path).status_code == 402, "the bytes to be counted")
    answer = get(stack, path)
    assert answer.json() == {"error": "no more"}
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-gateway-reason"] == "quota_exceeded"
    assert "ratelimit-policy" in answer.headers


def test_a_rejection_is_told_in_the_access_log_with_the_consumer(stack: Stack) -> None:
    answers = [get(stack, "/one/quiet").status_code for _ in range(2)]
    assert answers[-1] == 429

    def line() -> dict[str, Any]:
        lines = stack.envoy.access_log()
        return next((one for one in lines if (one["path"], one["status"]) == ("/one/quiet", 429)), {})

    wait_for(line, "Envoy to write its log")
    assert (line()["reason"], line()["consumer"], line()["plan"]) == ("rate_limited", "acme", "free")
    assert line()["details"] == "lua_response"


def test_without_the_policy_server_nobody_passes(stack: Stack) -> None:
    stack.policy_server.stop()
    answer = get(stack, "/calls")
    assert (answer.status_code, answer.json()["reason"]) == (503, "identity_unavailable")
    stack.policy_server.start()
    wait_for(lambda: "x-ratelimit-limit" in get(stack, "/calls").headers, "the policy server")
