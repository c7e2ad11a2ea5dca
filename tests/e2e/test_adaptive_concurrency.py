"""adaptive_concurrency and priority through the real Envoy: what is shed in an overload, and what is not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.wait import wait_for

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams:
  one: {endpoints: ["$slow"], adaptive_concurrency: {latency: 1ms, min: 1, max: 1}}
  learned: {endpoints: ["$learned"], adaptive_concurrency: {latency: 300ms, min: 2, max: 50, interval: 50ms}}
  broken: {endpoints: ["$slow"], circuit_breaker: {max_requests: 1, max_connections: 1, max_pending: 1}}
  other: {endpoints: ["$other"]}
routes:
  normal: {path: /normal, upstream: one}
  high: {path: /high, upstream: one, priority: high}
  other: {path: /other, upstream: other}
  split: {path: /split, split: [{upstream: one, weight: 1}, {upstream: other, weight: 0}]}
  learned: {path: /learned, upstream: learned}
  usual: {path: /usual, upstream: broken}
  urgent: {path: /urgent, upstream: broken, priority: high}
"""


@pytest.fixture
def slow() -> Iterator[Backend]:
    with Backend("slow") as running:
        yield running


@pytest.fixture
def learned() -> Iterator[Backend]:
    with Backend("learned") as running:
        yield running


@pytest.fixture
def gateway(gateways: Gateways, backend: Backend, slow: Backend, learned: Backend) -> Gateway:
    return gateways.start(YAML, slow=slow.address, learned=learned.address, other=backend.address)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def stat(gateway: Gateway, name: str) -> int:
    """The value of the statistic whose name ends so; of clusters, that of the upstream `broken`."""
    found = gateway.envoy.stats(rf"^(cluster\.broken|http)\..*{name}$")
    (value,) = found.values()
    return value


def held(
    threads: ThreadPoolExecutor, gateway: Gateway, slow: Backend, path: str, seen: int
) -> Future[httpx.Response]:
    """A request that the backend has received and does not answer until it is released."""
    request = threads.submit(gateway.get, path)
    wait_for(lambda: len(slow.seen) == seen, f"{path} at the backend")
    return request


def test_normal_requests_are_shed_and_those_of_a_high_priority_and_of_others_are_served(
    gateway: Gateway, slow: Backend, threads: ThreadPoolExecutor
) -> None:
    slow.release = threading.Event()
    try:
        first = held(threads, gateway, slow, "/normal", 1)
        for path in ("/normal", "/split"):
            shed = gateway.get(path)
            assert (shed.status_code, shed.headers["retry-after"]) == (503, "1")
            assert shed.headers["x-gateway-reason"] == shed.json()["reason"] == "upstream_overloaded"
        assert gateway.get("/other").status_code == 200
        urgent = held(threads, gateway, slow, "/high", 2)
        assert gateway.get("/normal").status_code == 503
    finally:
        slow.release.set()
    assert (first.result().status_code, urgent.result().status_code) == (200, 200)
    gateway.until("/normal", 200)
    gateway.until("/split", 200)


def test_a_high_priority_has_the_limits_of_the_circuit_breaker_for_itself(
    gateway: Gateway, slow: Backend, threads: ThreadPoolExecutor
) -> None:
    slow.release = threading.Event()
    try:
        first = held(threads, gateway, slow, "/usual", 1)
        waiting = threads.submit(gateway.get, "/usual")  # for the one connection
        wait_for(lambda: stat(gateway, "upstream_rq_pending_active") == 1, "the waiting request")
        shed = gateway.get("/usual")
        assert shed.status_code == 503
        assert shed.headers["x-gateway-reason"] == "upstream_overflow"
        assert shed.headers["retry-after"] == "1"
        urgent = held(threads, gateway, slow, "/urgent", 2)
    finally:
        slow.release.set()
    assert {one.result().status_code for one in (first, waiting, urgent)} == {200}


def test_the_limit_rises_with_fast_responses_and_falls_with_slow_ones(
    gateway: Gateway, learned: Backend, threads: ThreadPoolExecutor
) -> None:
    def limit() -> int:
        return stat(gateway, "gradient_controller.concurrency_limit")

    def risen() -> bool:
        assert gateway.get("/learned").status_code == 200
        return limit() >= 20

    wait_for(risen, "a higher limit")
    high = limit()

    def fallen() -> bool:
        learned.release = threading.Event()
        requests = [threads.submit(gateway.get, "/learned") for _ in range(4)]
        learned.release.wait(1)  # what makes the responses slow
        learned.release.set()
        assert {one.result().status_code for one in requests} <= {200, 503}
        return limit() < high / 2

    wait_for(fallen, "a lower limit")
