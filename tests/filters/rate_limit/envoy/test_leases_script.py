"""The script of leases beside the real service: workers, clocks, crashes and lost answers, drawn by hypothesis.

The script runs in LuaJIT as it does in Envoy. Only the few functions that Envoy gives to scripts are replaced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lupa import luajit21
from prometheus_client import CollectorRegistry

from filters.model.limits import Limit
from filters.rate_limit.client_headers import LimitAnswer
from filters.rate_limit.effective import EffectiveLimits
from filters.rate_limit.envoy import descriptors, leases
from filters.rate_limit.limit_rules import LIMITS
from filters.rate_limit.server.leases import Leases
from filters.rate_limit.server.service import RateLimits
from filters.unary import Undoable
from protos import limits_pb2 as pb

START = 1_792_890_000_000
"""Milliseconds, at the beginning of a minute."""
RULE = "rate_limit:route/r"

ENVOY = """
return function(rule, now)
  local own, sent = {}, {}
  local metadata = {
    get = function(_, name) return name == "xds.leases" and own or nil end,
    set = function(_, _, key, value) own[key] = value end,
  }
  local info = {
    dynamicMetadata = function() return metadata end,
    downstreamRemoteAddress = function() return "192.0.2.7:4711" end,
  }
  return {
    filterContext = function() return { get = function() return rule end } end,
    streamInfo = function() return info end,
    timestamp = function() return tostring(now()) end,
    httpCall = function(_, _, _, body) return coroutine.yield(body) end,
    logErr = function(_, text) error(text) end,
    headers = function() return { add = function(_, name, value) sent[name] = value end } end,
    own = own, sent = sent,
  }
end
"""


@dataclass(slots=True)
class Server:
    """A policy server with one rule. Its clock is ahead of the true time by `ahead` milliseconds."""

    amount: int
    per: str
    ahead: int
    now: Callable[[], int]
    limits: RateLimits = field(init=False)
    leases: Leases = field(init=False)

    def __post_init__(self) -> None:
        registry = CollectorRegistry()
        self.limits = RateLimits(registry, clock=lambda: (self.now() + self.ahead) * 1000)
        self.leases = Leases(self.limits, registry)
        rule = LIMITS.build(RULE, Limit(requests=self.amount, per=self.per, by="ip"))  # type: ignore[arg-type]
        assert self.limits.rules.replace({RULE: rule.SerializeToString()}, ()) == {}

    def lease(self, body: bytes) -> Any:
        assert int.from_bytes(body[1:5], "big") == len(body) - 5
        answer = self.leases.take(pb.LeaseRequest.FromString(body[5:]))
        assert isinstance(answer, pb.LeaseResponse | Undoable)
        return answer

    def admits(self) -> bool:
        """The decision on one request, as Envoy's rate limit filter asks for it."""
        answer = self.limits.before([RULE], (), {descriptors.ADDRESS: "192.0.2.7/32"})
        assert isinstance(answer, LimitAnswer)
        return answer.admitted

    def used(self) -> int:
        return sum(one["used"] for one in self.limits.shown()["counters"])


class Worker:
    """A worker of an Envoy, whose clock is ahead of the true time by `ahead` milliseconds."""

    def __init__(self, now: Callable[[], int], ahead: int) -> None:
        self._lua = luajit21.LuaRuntime(encoding=None, unpack_returned_tuples=True)
        code = leases.http_filter().config.default_source_code.inline_string  # type: ignore[attr-defined]
        self._lua.execute(code.encode())
        found = EffectiveLimits(
            rules=(RULE,), written=(Limit(requests=1000, per="day", by="ip"),), plans=False
        )
        self._rule = leases.on_route("r", found, ("x-ratelimit",)).filter_context["rule"].encode()
        self._handle = self._lua.execute(ENVOY.encode())
        self._begin = self._lua.globals()[b"envoy_on_request"]
        self._end = self._lua.globals()[b"envoy_on_response"]
        self._now = lambda: now() + ahead

    def begin(self) -> tuple[Any, Any, bytes | None]:
        """A request: its handle, its coroutine, and the body of the call that it waits for, or None."""
        handle = self._handle(self._rule, self._now)
        running = self._begin.coroutine(handle)
        try:
            return handle, running, running.send(None)
        except StopIteration:
            return handle, running, None

    def resume(self, running: Any, answer: pb.LeaseResponse | None) -> None:
        """The response to a call, or its failure."""
        headers = self._lua.table_from({b":status": b"200" if answer is not None else b"503"})
        data = answer.SerializeToString() if answer is not None else b""
        body = b"\0" + len(data).to_bytes(4, "big") + data if answer is not None else None
        try:
            running.send((headers, body))
        except StopIteration:
            return
        raise AssertionError("one request made two calls")

    def admitted(self, handle: Any) -> bool:
        return handle[b"own"][b"ask"] is None

    def headers(self, handle: Any) -> dict[bytes, bytes]:
        self._end(handle)
        return dict(handle[b"sent"])


@dataclass(slots=True)
class World:
    """Workers and a server. For each window of the server: the requests that passed, and those that were debited."""

    server: Server
    workers: list[Worker] = field(default_factory=list)
    now: int = START
    passed: Counter[int] = field(default_factory=Counter)
    debited: Counter[int] = field(default_factory=Counter)
    singles: Counter[int] = field(default_factory=Counter)
    """Requests about which Envoy asked, in each window."""
    lost: int = 0
    """Requests of leases that no worker knows."""
    waiting: list[tuple[Worker, Any, Any, pb.LeaseResponse | None, int]] = field(default_factory=list)

    def window(self, microseconds: int | None = None) -> int:
        moment = microseconds // 1000 if microseconds is not None else self.now + self.server.ahead
        return moment // LENGTHS[self.server.per]

    def request(self, worker: Worker, *, lose: str = "") -> None:
        """One request. `lose` is ``call`` or ``answer`` if its call for a lease fails there."""
        handle, running, body = worker.begin()
        if body is None:
            self.decide(worker, handle, self.window())
            return
        answer = None if lose == "call" else self.lease(body)
        if lose == "call":
            returned = pb.LeaseRequest.FromString(body[5:]).returned
            self.lost += sum(one.requests for one in returned)
        elif lose == "answer" and answer is not None:
            self.lost += answer.requests
            answer = None
        self.waiting.append((worker, handle, running, answer, self.window()))

    def lease(self, body: bytes) -> pb.LeaseResponse:
        for one in pb.LeaseRequest.FromString(body[5:]).returned:
            self.debited[self.window(pb.LeaseReceipt.FromString(one.receipt).since)] -= one.requests
        found = self.server.lease(body)
        answer: pb.LeaseResponse = found.response if isinstance(found, Undoable) else found
        assert answer.requests <= max(1, self.server.amount // leases.SHARE_OF_LIMIT)
        self.debited[self.window()] += answer.requests
        return answer

    def answer(self) -> None:
        """All calls that wait get their responses."""
        waiting, self.waiting = self.waiting, []
        for worker, handle, running, answer, window in waiting:
            worker.resume(running, answer)
            self.decide(worker, handle, window)

    def decide(self, worker: Worker, handle: Any, asked_in: int) -> None:
        """Count a request that passes. If its own call admitted it, it counts in the window of the call."""
        if worker.admitted(handle):
            self.passed[asked_in] += 1
            assert 0 <= int(worker.headers(handle)[b"x-ratelimit-remaining"]) < self.server.amount
            assert self.passed[asked_in] <= self.debited[asked_in]
        else:
            self.decide_alone()
        assert self.debited[self.window()] == self.server.used() <= self.server.amount

    def decide_alone(self) -> None:
        """Count a request that Envoy asks about."""
        self.singles[self.window()] += 1
        if self.server.admits():
            self.passed[self.window()] += 1
            self.debited[self.window()] += 1
        else:
            self.rejected()

    def rejected(self) -> None:
        """A rejection is right if nothing was left but what the workers may hold."""
        held = 2 * (self.server.amount // leases.SHARE_OF_LIMIT) * len(self.workers) + self.lost
        assert self.server.amount - self.passed[self.window()] <= held

    def crash(self, number: int, new: Worker) -> None:
        self.waiting = [one for one in self.waiting if one[0] is not self.workers[number]]
        self.lost += 2 * (self.server.amount // leases.SHARE_OF_LIMIT) + 1
        self.workers[number] = new


LENGTHS = {"second": 1000, "minute": 60_000, "month": 10**15}
WORKERS = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(st.just("requests"), WORKERS, st.integers(1, 60)),
    st.tuples(st.just("requests"), WORKERS, st.integers(16, 60)),
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 200, 240, 260, 700, 990, 1000, 1010]), st.just(0)),
    st.tuples(st.just("answer"), st.just(0), st.just(0)),
    st.tuples(st.just("answer"), st.just(0), st.just(0)),
    st.tuples(st.sampled_from(["lose call", "lose answer"]), WORKERS, st.integers(1, 40)),
    st.tuples(st.just("crash"), WORKERS, st.just(0)),
)
AHEAD = st.lists(st.integers(-5000, 5000), min_size=4, max_size=4)


def world_of(amount: int, per: str, ahead: list[int]) -> tuple[World, list[Callable[[], Worker]]]:
    world = World(Server(amount, per, ahead[3], lambda: world.now))
    make = [partial(Worker, lambda: world.now, one) for one in ahead[:3]]
    world.workers = [one() for one in make]
    return world, make


@settings(deadline=None)
@given(
    amount=st.integers(32, 600),
    per=st.sampled_from(["second", "minute"]),
    ahead=AHEAD,
    steps=st.lists(STEPS, min_size=5, max_size=40),
)
def test_never_too_many_and_hardly_too_few(
    amount: int, per: str, ahead: list[int], steps: list[tuple[str, int, int]]
) -> None:
    world, make = world_of(amount, per, ahead)
    for kind, number, count in steps:
        if kind == "wait":
            world.now += number
        elif kind == "answer":
            world.answer()
        elif kind == "crash":
            world.crash(number, make[number]())
        else:
            for _ in range(count):
                world.request(world.workers[number], lose=kind[5:] if kind.startswith("lose") else "")
    world.answer()


@settings(deadline=None)
@given(
    amount=st.integers(400, 20_000),
    ahead=AHEAD,
    steps=st.lists(st.tuples(WORKERS, st.integers(1, 60), st.sampled_from([0, 10, 200, 1000])), max_size=20),
)
def test_what_ended_leases_did_not_admit_goes_back(
    amount: int, ahead: list[int], steps: list[tuple[int, int, int]]
) -> None:
    world, _ = world_of(amount, "month", ahead)
    for number, count, wait in steps:
        for _ in range(count):
            world.request(world.workers[number])
            world.answer()
        world.now += wait
    world.now += 1001
    for worker in world.workers:
        for _ in range(len(steps) + 2):
            world.request(worker)
            world.answer()
            world.now += 501
    assert world.server.used() == sum(world.passed.values())


def test_a_busy_worker_makes_few_calls() -> None:
    world, _ = world_of(100_000, "month", [0, 0, 0, 0])
    calls = 0
    for _ in range(5000):
        world.request(world.workers[0])
        calls += len(world.waiting)
        world.answer()
    assert sum(world.passed.values()) == 5000
    assert calls < 30


@pytest.mark.parametrize("exhausted", [False, True], ids=["no time left", "nothing left"])
def test_the_end_of_a_window_delays_no_lease_of_the_next_one(*, exhausted: bool) -> None:
    world, _ = world_of(1600, "second", [0, 0, 0, 0])
    world.now += 900 if exhausted else 995
    for _ in range(1700 if exhausted else 40):
        world.request(world.workers[0])
        world.answer()
    world.now = START + 1001
    for _ in range(200):
        world.request(world.workers[0])
        world.answer()
    assert world.singles[world.window()] == 0
