"""Limits beside a policy in Python: one call decides both, and nobody can tell it from two."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.identity_cases import sha256
from tests.support.policy_server import Stack
from tests.support.valkey import Valkey
from tests.support.wait import wait_for

POLICY = """
import asyncio
import pathlib

from filters.ext_authz import Decision, Request, allow, deny

HERE = pathlib.Path("FOLDER")


async def check(request: Request) -> Decision:
    if "x-refuse" in request.headers:
        return deny(403)
    return allow({"x-set": "by the policy"}, remove=["x-gone"], response_headers={"RateLimit": "ours"},
                 metadata={"seen": True})


def plain(request: Request) -> Decision:
    return allow()


async def slow(request: Request) -> Decision:
    await asyncio.sleep(0.5)
    return allow()


def address(request: Request) -> Decision:
    return allow({"x-address": request.client_address})


async def waits(request: Request) -> Decision:
    number = request.headers["x-number"]
    (HERE / f"began-{number}").touch()
    try:
        while not (HERE / f"go-{number}").exists():
            await asyncio.sleep(0.005)
    finally:
        (HERE / f"ended-{number}").touch()
    return allow()
"""
ACME = "key-of-acme"
Sent = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Requests to a route with these policies: the headers of each, and the statuses that they get."""

    name: str
    policies: str
    requests: Sequence[Sent]
    statuses: Sequence[int]
    method: str = "GET"
    function: str = "check"
    body: bytes = field(default=b"", repr=False)
    taken: Sequence[int] = ()
    """What is counted after each request, where that is known at its end."""


def _bearer(**claims: Any) -> Sent:
    return [("authorization", f"Bearer {tokens.token(**claims)}")]


def _by(by: str, more: str = "") -> str:
    return f'{more}rate_limit: {{requests: 2, per: day, by: "{by}"}}'


def _claims(name: str, claim: str, *each: Mapping[str, Any], statuses: Sequence[int]) -> Case:
    requests = [_bearer(**one) for one in each]
    return Case(
        name=name, policies=_by(f"claim:{claim}", "jwt: corp, "), requests=requests, statuses=statuses
    )


NONE: Sent = []
CASES = (
    Case(name="address", policies=_by("ip"), requests=[NONE] * 4, statuses=[200, 200, 429, 429]),
    Case(name="plain", policies=_by("ip"), requests=[NONE] * 3, statuses=[200, 200, 429], function="plain"),
    Case(
        name="addresses-behind-a-proxy",
        policies=_by("ip"),
        requests=[[("x-forwarded-for", one)] for one in ("2001:db8::1", "2001:db8::2", "2001:db8:0:0:3::", "2001:db8:1::", "9.9.9.9")],
        statuses=[200, 200, 429, 200, 200],
    ),
    Case(
        name="an-address-that-a-client-makes-up",
        policies=_by("ip"),
        requests=[[("x-envoy-external-address", f"9.9.9.{one}")] for one in range(3)],
        statuses=[200, 200, 429],
    ),
    Case(name="route", policies=_by("route"), requests=[NONE] * 3, statuses=[200, 200, 429], method="HEAD"),
    Case(
        name="header",
        policies=_by("header:X-Team"),
        requests=[[("x-team", one)] for one in ("a", "a", "a", "b", "", "a|b", "a%7Cb")] + [NONE],
        statuses=[200, 200, 429, 200, 200, 200, 200, 200],
    ),
    Case(
        name="several-headers-of-one-name",
        policies=_by("header:x-team"),
        requests=[[("x-team", "a"), ("x-team", "b")], [("x-team", "a,b")], [("x-team", "a")], [("x-team", "a,b")]],
        statuses=[200, 200, 200, 429],
    ),
    Case(
        name="a-header-that-is-no-text",
        policies=_by("header:x-team"),
        requests=[[("x-team", one)] for one in (b"\xff", b"\xff", b"\xff", b"a\xe2\x82b", b"\xe2\x82\xac")],
        statuses=[200, 200, 429, 200, 200],
    ),
    Case(
        name="a-header-that-the-policy-sets",
        policies=_by("header:x-set"),
        requests=[[("x-set", str(one))] for one in range(3)],
        statuses=[200, 200, 429],
    ),
    Case(
        name="a-header-that-the-policy-removes",
        policies=_by("header:x-gone"),
        requests=[[("x-gone", str(one))] for one in range(3)],
        statuses=[200, 200, 429],
    ),
    Case(
        name="host",
        policies=_by("header:host"),
        requests=[[("host", one)] for one in ("a.test", "a.test", "b.test", "a.test")],
        statuses=[200, 200, 200, 429],
    ),
    Case(
        name="cost",
        policies='rate_limit: {requests: 10, per: day, by: route, cost: "header:x-cost"}',
        requests=[[("x-cost", one)] for one in ("7", "7", "3", "1")],
        statuses=[200, 429, 200, 429],
    ),
    Case(
        name="shadow",
        policies="rate_limit: {requests: 1, per: day, by: route, shadow: true}",
        requests=[NONE] * 3,
        statuses=[200] * 3,
    ),
    Case(
        name="no-headers",
        policies="limit_headers: [], rate_limit: 1/day",
        requests=[NONE] * 2,
        statuses=[200, 429],
    ),
    Case(
        name="several-windows-and-a-bucket",
        policies="rate_limit: [{requests: 3, per: day, burst: 3}, 2/month], quota: 5GB/day, concurrency: 9",
        requests=[NONE] * 3,
        statuses=[200, 200, 429],
    ),
    Case(
        name="plan",
        policies="api_key: {optional: true}, rate_limit: 3/day",
        requests=[[("x-api-key", ACME)]] * 3 + [NONE] * 4,
        statuses=[200, 200, 429, 200, 200, 200, 429],
    ),
    Case(
        name="exempt-from-plans",
        policies="api_key: true, plan_limits: off, rate_limit: 3/day",
        requests=[[("x-api-key", ACME)]] * 4 + [NONE],
        statuses=[200, 200, 200, 429, 401],
    ),
    Case(
        name="what-the-policy-refuses-takes-nothing",
        policies="rate_limit: 1/day, concurrency: 3",
        requests=[[("x-refuse", "1")]] * 4 + [NONE] * 2,
        statuses=[403, 403, 403, 403, 200, 429],
    ),
    Case(
        name="grpc",
        policies="rate_limit: 1/day",
        requests=[[("content-type", "application/grpc"), ("te", "trailers")]] * 2,
        statuses=[200, 200],
        method="POST",
    ),
    Case(
        name="bytes",
        policies="quota: {bytes: 10B, per: day, direction: in, by: route}",
        requests=[NONE] * 3,
        statuses=[200, 200, 429],
        method="POST",
        body=b"x" * 7,
        taken=[7, 14, 14],
    ),
    Case(
        name="statuses",
        policies="rate_limit: {requests: 1, per: day, by: route, count: [500]}",
        requests=[NONE, [("x-echo-status", "500")], NONE],
        statuses=[200, 500, 429],
        taken=[0, 1, 1],
    ),
    _claims("claim", "sub", {"sub": "a"}, {"sub": "a"}, {"sub": "b"}, {"sub": "a"}, statuses=[200, 200, 200, 429]),
    _claims("claim-nested", "a.b", {"a": {"b": "x"}}, {"a": {"b": "x"}}, {"a.b": "x"}, {}, statuses=[200, 200, 429, 200]),
    _claims("claim-dotted", "k.io.ns", *({"k.io": {"ns": one}} for one in "xxyx"), statuses=[200, 200, 200, 429]),
    _claims("claim-escaped", r"a.k\\.io", *({"a": {"k.io": one, "k": {"io": "z"}}} for one in "xxyx"), statuses=[200, 200, 200, 429]),
    _claims("claim-quoted", "o'neill.a", *({"o'neill": {"a": one}} for one in "xxyx"), statuses=[200, 200, 200, 429]),
    _claims("claim-number", "n", {"n": 5}, {"n": 5.5}, {"n": 5}, {"n": "5"}, statuses=[200, 200, 200, 429]),
    _claims("claim-large", "n", {"n": 1234567}, {"n": -3}, {"n": 10**12}, {"n": 1e300}, statuses=[200] * 4),
    _claims("claim-ids", "n", *({"n": one} for one in (1234567, 1234567, 1234567, 1234568, 9007199254740991, 9007199254740990)), statuses=[200, 200, 429, 200, 200, 200]),
    _claims("claim-digits", "n", *({"n": one} for one in (1.1234567890123, 1.1234567890123, 1.1234567890124, 1.1234567890123, 0.1)), statuses=[200, 200, 200, 429, 200]),
    _claims("claim-lists", "n", *({"n": one} for one in (["a"], ["a", "b"], ["a"], ["b", "a"], ["a"], [1234567], [1234568])), statuses=[200, 200, 200, 200, 429, 200, 200]),
    _claims("claim-nulls", "n", *({"n": one} for one in (["a"], ["a"], ["a", None, "b"], ["a"])), statuses=[200, 200, 200, 429]),
    _claims("claim-mappings", "n", {"n": {"a": 1}}, {"n": {"b": 2}}, {"n": {}}, {}, {}, {}, {"n": "\tunusable"}, {"n": "unusable"}, statuses=[200, 200, 429, 200, 200, 429, 429, 200]),
    _claims("claim-others", "n", {"n": True}, {"n": ["a"]}, {"n": {"a": 1}}, {"n": False}, {"n": ""}, statuses=[200] * 5),
)  # fmt: skip


YAML = """
listeners: {http: {port: $port, access_log: true, trusted_proxies: 1}}
upstreams: {echo: {endpoints: [$echo]}}
identity: {corp: {issuer: $issuer, audiences: [shop], jwks: {file: jwks.json}}}
plans: {free: {rate_limit: 2/day, concurrency: 5}}
consumers: {acme: {plan: free, api_keys: [{sha256: $digest}]}}
routes:
  waits:
    path: /waits
    upstream: echo
    policies: {ext_authz: {python: "p.py:waits", timeout: 20s}, rate_limit: 10/day, concurrency: 10}
  calls: {path: /calls, upstream: echo, policies: {ext_authz: {python: "p.py:plain", timeout: 20s}, rate_limit: 1000/day}}
  calls-and-end:
    path: /calls-and-end
    upstream: echo
    policies: {ext_authz: {python: "p.py:plain", timeout: 20s}, rate_limit: 1000/day, concurrency: 9}
  calls-two: {path: /calls-two, upstream: echo, policies: {ext_authz: {python: "p.py:plain", timeout: 20s, on_error: allow}, rate_limit: {requests: 1000, per: day, exact: true}}}
  seen: {path: /seen, upstream: echo, policies: {ext_authz: {python: "p.py:address", timeout: 20s}}}
  seen-little: {path: /seen-little, upstream: echo, policies: {ext_authz: {python: "p.py:address", timeout: 20s, headers: [x-a]}}}
  answers: {path: /answers, respond: {body: ok}, policies: {ext_authz: {python: "p.py:plain", timeout: 20s}, api_key: true}}
$routes"""


def routes() -> str:
    """Two routes for each case: its limits decided in the Check, and in a call of their own."""
    return "".join(
        f"  {way}-{case.name}:\n    path: /{way}/{case.name}\n    upstream: echo\n    policies: {{{case.policies}, "
        f'ext_authz: {{python: "p.py:{case.function}", timeout: 20s, on_error: {on_error}}}}}\n'
        for case in CASES
        for way, on_error in (("one", "deny"), ("two", "allow"))
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"))
    stack.write(
        YAML,
        {"jwks.json": tokens.jwks(), "p.py": POLICY.replace("FOLDER", str(stack.folder))},
        echo=backend.address,
        issuer=tokens.ISSUER,
        digest=sha256(ACME),
        routes=routes(),
    )
    with stack:
        for path in ("/calls", "/calls-two"):
            wait_for(lambda path=path: "x-ratelimit-limit" in stack.get(path).headers, "the first decision")
        yield stack


def counters(stack: Stack, prefix: str = "route/") -> dict[str, int]:
    shown = httpx.get(f"http://{stack.policy_server.admin}/limits").json()["counters"]
    return {one["key"]: one["used"] for one in shown if one["key"].startswith(prefix)}


def settled(stack: Stack, way: str, name: str) -> dict[str, int]:
    """The counters of a route, less the ways' names. The plan's, which both ways share, belong to the test."""
    prefix = f"route/{way}-{name}|"
    return {
        key.removeprefix(prefix).replace(f"route={way}-", "route="): used
        for key, used in counters(stack, prefix).items()
    }


def told(answer: httpx.Response) -> tuple[int, Mapping[str, str], str]:
    """What the gateway says, less what differs from one request to the next anyway."""
    varies = ("date", "content-length", "connection")  # the last where a body was not read to its end
    found = {name: value for name, value in answer.headers.items() if name not in varies}
    body = "" if answer.headers["content-type"] == "application/json" else answer.text
    for pattern in (r'"request_id":"[^"]+"', r";t=\d+", r'(?<=concurrent-requests");r=\d+'):
        found = {name: re.sub(pattern, "", value) for name, value in found.items()}
        body = re.sub(pattern, "", body)
    if "retry-after" in found:
        assert int(found.pop("retry-after")) > 0
    return answer.status_code, found, body


def run(stack: Stack, case: Case, way: str) -> list[tuple[int, Mapping[str, str], str]]:
    """The answers, one after the other, each when what the one before took at its end is counted."""
    answers = []
    with httpx.Client(headers={"user-agent": "test"}) as client:
        for number, sent in enumerate(case.requests):
            url = f"{stack.url}/{way}/{case.name}"
            answer = client.request(case.method, url, headers=list(sent), content=case.body or None)
            answers.append(told(answer))
            if case.taken:
                wait_for(
                    lambda number=number: sum(settled(stack, way, case.name).values()) == case.taken[number],
                    "what the end took",
                )
    return answers


def forget(stack: Stack, prefix: str = "") -> None:
    """Begin counting anew, whatever other tests have taken."""
    httpx.post(f"http://{stack.policy_server.admin}/limits/reset", content=prefix.encode())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_call_is_as_two(stack: Stack, case: Case) -> None:
    found = {}
    forget(stack)
    for way in ("one", "two"):
        forget(stack, "plan/free|requests")
        found[way] = run(stack, case, way)
    assert [one[0] for one in found["one"]] == list(case.statuses)
    assert found["one"] == found["two"]
    slots = "concurrent-requests"
    wait_for(
        lambda: (
            not any(
                used
                for way in ("one", "two")
                for key, used in settled(stack, way, case.name).items()
                if slots in key
            )
        ),
        "the slots to be given back",
    )
    assert settled(stack, "one", case.name) == settled(stack, "two", case.name)


def calls(stack: Stack) -> int:
    """What Envoy has asked the policy server so far."""
    name = "cluster.xds/policy-server.upstream_rq_total"
    return stack.envoy.stats(f"^{name}$")[name]


def decisions(stack: Stack) -> list[float]:
    """What the policy server has decided so far: by policies, and on limits."""
    metrics = stack.policy_server.metrics()
    return [
        sum(float(one) for one in re.findall(rf"^{name}_total{{.*}} (\S+)$", metrics, re.MULTILINE))
        for name in ("xds_policy_decisions", "xds_rate_limit_decisions")
    ]


@pytest.mark.parametrize(("path", "each"), [("/calls", 1), ("/calls-and-end", 2), ("/calls-two", 2)])
def test_one_request_is_one_call_and_one_at_its_end_only_where_that_is_counted(
    stack: Stack, path: str, each: int
) -> None:
    before, decided = calls(stack), decisions(stack)
    assert [stack.get(path).status_code for _ in range(20)] == [200] * 20
    wait_for(lambda: calls(stack) == before + 20 * each, "the calls of 20 requests")
    assert decisions(stack) == [one + 20 for one in decided]


@pytest.mark.parametrize("path", ["/seen", "/seen-little"])
def test_a_policy_sees_the_clients_address_and_not_the_proxys(stack: Stack, path: str) -> None:
    answer = stack.get(path, headers={"x-forwarded-for": "9.9.9.9", "x-envoy-external-address": "8.8.8.8"})
    assert answer.json()["headers"]["x-address"] == "9.9.9.9"


def test_where_the_gateway_answers_itself_nothing_is_limited(stack: Stack) -> None:
    before = counters(stack, "")
    answers = [stack.get("/answers", headers={"x-api-key": ACME}) for _ in range(3)]
    assert [one.status_code for one in answers] == [200] * 3
    assert counters(stack, "") == before


def _send(stack: Stack, number: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", stack.listener))
    connection.sendall(f"GET /waits HTTP/1.1\r\nhost: a\r\nx-number: {number}\r\n\r\n".encode())
    wait_for((stack.folder / f"began-{number}").exists, "the policy to be asked")
    return connection


def test_a_client_that_leaves_while_the_policy_decides_has_taken_nothing(stack: Stack) -> None:
    forget(stack)
    _send(stack, 1).close()
    wait_for((stack.folder / "ended-1").exists, "the policy to be told")
    assert counters(stack, "route/waits|") == {}


def test_a_client_that_leaves_later_gives_its_slot_back(stack: Stack, backend: Backend) -> None:
    forget(stack)
    backend.release = threading.Event()
    try:
        connection = _send(stack, 2)
        (stack.folder / "go-2").touch()
        wait_for(lambda: len(counters(stack, "route/waits|")) == 2, "the request to be counted")
        assert set(counters(stack, "route/waits|").values()) == {1}
        connection.close()
        wait_for(
            lambda: sorted(counters(stack, "route/waits|").values()) in ([1], [0, 1]),
            "the slot to be given back",
        )
    finally:
        backend.release.set()
        backend.release = None


def test_slots_hold_exactly_so_many_requests(stack: Stack, backend: Backend) -> None:
    backend.release = threading.Event()
    before = len(backend.seen)
    try:
        with ThreadPoolExecutor(12) as pool:
            held = [pool.submit(stack.get, "/calls-and-end") for _ in range(9)]
            wait_for(lambda: len(backend.seen) == before + 9, "nine requests to be under way")
            assert stack.get("/calls-and-end").json()["reason"] == "concurrency_exceeded"
            backend.release.set()
            assert [one.result().status_code for one in held] == [200] * 9
    finally:
        backend.release = None
    wait_for(lambda: stack.get("/calls-and-end").status_code == 200, "a slot")


def test_a_rejection_is_told_in_the_access_log_as_one_of_a_limit(stack: Stack) -> None:
    wait_for(lambda: stack.get("/one/address").status_code == 429, "the limit to be reached")

    def line() -> dict[str, Any]:
        lines = stack.envoy.access_log()
        return next((one for one in lines if (one["path"], one["status"]) == ("/one/address", 429)), {})

    wait_for(line, "Envoy to write its log")
    assert (line()["reason"], line()["route"]) == ("rate_limited", "one-address")
    assert (line()["details"], line()["flags"]) == ("ext_authz_denied", "UAEX")


@pytest.mark.parametrize("on_error", ["deny", "allow"], ids=["one call", "two calls"])
def test_where_nobody_counts_the_limits_say_what_happens_and_not_the_policy(
    tmp_path: Path, backend: Backend, on_error: str
) -> None:
    with Valkey(tmp_path) as valkey:
        stack = Stack(tmp_path, arguments=("--counters", valkey.url))
        stack.write(
            """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$backend]}}
policies: {ext_authz: {python: "p.py:slow", timeout: 2s, on_error: $on_error}}
routes:
  open: {path: /open, upstream: echo, policies: {rate_limit: 1/day, concurrency: 5}}
  closed: {path: /closed, upstream: echo, policies: {rate_limit: {requests: 100, per: day, on_error: deny}}}
""",
            {"p.py": POLICY},
            backend=backend.address,
            on_error=on_error,
        )
        with stack:
            wait_for(lambda: "x-ratelimit-limit" in stack.get("/open").headers, "the first decision")
            assert stack.get("/open").status_code == 429
            assert stack.get("/closed").status_code == 200
            valkey.kill()
            assert [stack.get("/open").status_code for _ in range(3)] == [200] * 3
            answer = stack.get("/closed")
            assert (answer.status_code, answer.json()["reason"]) == (503, "rate_limit_unavailable")
