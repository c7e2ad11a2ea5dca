"""The cost of limit decisions: the engine alone, the service, Redis, the owner process of several workers, and next
to a policy in Python.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import multiprocessing
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TypeAlias

import uvloop
from envoy.service.ratelimit.v3 import rls_pb2
from prometheus_client import CollectorRegistry

from benchmarks.load import cpu, get, measure
from filters.model.methods import MOST_KEYS
from filters.rate_limit.engine.algorithms import FixedWindow, Limit, SlidingWindow, TokenBucket
from filters.rate_limit.engine.decision import Hit, LimitDecision
from filters.rate_limit.engine.memory import Memory
from filters.rate_limit.limit_rules import LIMITS
from filters.rate_limit.server.service import RateLimits, microseconds
from filters.rate_limit.stores.owner_client import OwnerStore
from filters.rate_limit.stores.redis import RedisStore
from filters.rate_limit.stores.redis_client import connect
from protos import limits_pb2
from tests.support.folder import write
from tests.support.gateway import Gateway
from tests.support.owner import OwnerProcess
from tests.support.policy_server import Stack
from tests.support.ports import free_port
from tests.support.valkey import Valkey

COUNTS = (1, 3, 8)
LARGE = 10**9
Answers: TypeAlias = "multiprocessing.Queue[tuple[float, float, float]]"


def _limits(count: int) -> list[Limit]:
    kinds: tuple[Callable[[str], Limit], ...] = (
        lambda name: FixedWindow(name=name, amount=LARGE, per="hour"),
        lambda name: SlidingWindow(name=name, amount=LARGE, per="day"),
        lambda name: TokenBucket(name=name, amount=LARGE, per="hour", burst=LARGE),
    )
    return [kinds[number % 3](f"l{number}") for number in range(count)]


def _hits(count: int, client: int) -> tuple[Hit, ...]:
    return tuple(Hit(limit, f"{limit.name}|consumer={client}") for limit in _limits(count))


def _engine(count: int) -> float:
    """Return decisions per second of CPU time, over 1,000 clients."""
    memory, requests = Memory(), [_hits(count, client) for client in range(1000)]
    now, rounds = microseconds(), 200
    start = time.process_time()
    for number in range(rounds):
        for hits in requests:
            memory.decide(now + number, hits)
    return rounds * len(requests) / (time.process_time() - start)


def _service(count: int) -> float:
    """Return calls per second of CPU time, with parsing and serializing and without the network."""
    service = RateLimits(CollectorRegistry())
    rule = limits_pb2.Limits(name="rate_limit:route/r", place="route/r")
    for number in range(count):
        rule.limits.add(name=f"l{number}", algorithm="fixed_window", amount=LARGE, per="hour", unit="requests",
                        by=[f"header:{number}"])  # fmt: skip
    service.rules.replace({rule.name: rule.SerializeToString()}, ())
    assert service.rules.type is LIMITS
    request = rls_pb2.RateLimitRequest(domain="xds")
    entries = request.descriptors.add().entries
    for key, value in (
        ("rule", rule.name),
        ("style", "x-ratelimit"),
        ("style", "ietf"),
        ("consumer", "acme"),
    ):
        entries.add(key=key, value=value)
    body, method = request.SerializeToString(), service.service().methods[0]
    rounds = 20_000
    start = time.process_time()
    for _ in range(rounds):
        method.call(method.parse(body))
    return rounds / (time.process_time() - start)


async def _redis(url: str, count: int) -> tuple[float, float]:
    """Return decisions per second, 16 at a time, and the 99th percentile in milliseconds."""
    store, taken = RedisStore(connect(url), CollectorRegistry(), 5.0), list[float]()

    async def ask(client: int) -> None:
        for _ in range(200):
            start = time.perf_counter()
            await _decided(store, _hits(count, client))
            taken.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(ask(client) for client in range(16)))
    rate = len(taken) / (time.perf_counter() - start)
    await store.close()
    return rate, sorted(taken)[len(taken) * 99 // 100] * 1000


async def _ask_owner(path: Path, count: int, ready: Barrier, results: Answers) -> None:
    """Run one worker: turns of 16 decisions, like an Envoy with as many concurrent requests."""
    store, taken = OwnerStore(path, CollectorRegistry(), 30.0), list[float]()

    async def ask(client: int, times: int) -> None:
        hits = _hits(count, client)
        for _ in range(times):
            start = time.perf_counter()
            await _decided(store, hits)
            taken.append(time.perf_counter() - start)

    await ask(0, 1)
    ready.wait()  # all workers have loaded
    ready.wait()
    taken.clear()
    start, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(ask(client, 1000) for client in range(16)))
    rate = len(taken) / (time.perf_counter() - start)
    each = (time.process_time() - busy) / len(taken)
    await store.close()
    results.put((rate, sorted(taken)[len(taken) * 99 // 100], each))


async def _decided(store: OwnerStore | RedisStore, hits: tuple[Hit, ...]) -> None:
    decision = store.decide(microseconds(), hits)
    assert not isinstance(decision, LimitDecision)
    await decision


def _worker(path: Path, count: int, ready: Barrier, results: Answers) -> None:
    uvloop.run(_ask_owner(path, count, ready, results))


def _owner(folder: Path, workers: int, count: int) -> str:
    """Return a row: decisions per second of all workers, longest 99th percentile, CPU of a worker and the owner."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(workers + 1), context.Queue()
    with OwnerProcess(folder) as owner:
        processes = [
            context.Process(target=_worker, args=(owner.path, count, ready, results)) for _ in range(workers)
        ]
        for one in processes:
            one.start()
        ready.wait()
        before = owner.busy()
        ready.wait()
        found = [results.get(timeout=120) for _ in processes]
        busy = (owner.busy() - before) / (16_000 * workers)
        for one in processes:
            one.join()
    rate, slowest = sum(one[0] for one in found), max(one[1] for one in found)
    asking = sum(one[2] for one in found) / workers
    return f"{rate:,.0f} | {slowest * 1000:.1f} ms | {asking * 1e6:.1f} µs | {busy * 1e6:.1f} µs"


def _bytes_per_key(keys: int = 100_000) -> float:
    memory, limit, now = Memory(), _limits(1)[0], microseconds()
    tracemalloc.start()
    for number in range(keys):
        memory.decide(now, (Hit(limit, f"route/users|requests|fixed_window|hour|consumer={number}"),))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / keys


POLICY = """
from filters.ext_authz import LimitDecision, Request, allow

async def check(request: Request) -> LimitDecision:
    return allow()
"""
ROUNDS = 3
WAYS = {
    "/policy": "a policy in Python alone",
    "/limit": "the limit alone",
    "/one": "policy and limit by one call",
    "/two": "policy and limit by two calls",
    "/key-one": "looked-up key and limit by one call",
    "/key-two": "looked-up key and limit by two calls",
}
KEY = "a-key"


def _write(stack: Stack, backend: int) -> None:
    (stack.folder / "p.py").write_text(POLICY)
    checked = 'ext_authz: {python: "p.py:check"'
    keys = [f"{{sha256: {number:064x}}}" for number in range(MOST_KEYS)]
    keys.append(f"{{sha256: {hashlib.sha256(KEY.encode()).hexdigest()}}}")
    (stack.folder / "keys.yaml").write_text(f"consumers: {{acme: {{api_keys: [{', '.join(keys)}]}}}}")
    (stack.folder / "gateway.yaml").write_text(f"""
listeners: {{http: {{port: {stack.listener}}}}}
upstreams: {{echo: {{endpoints: ["127.0.0.1:{backend}"]}}}}
routes:
  policy: {{path: /policy, upstream: echo, policies: {{{checked}}}}}}}
  limit: {{path: /limit, upstream: echo, policies: {{rate_limit: 1000000000/day}}}}
  one: {{path: /one, upstream: echo, policies: {{rate_limit: 1000000000/day, {checked}}}}}}}
  key-one: {{path: /key-one, upstream: echo, policies: {{api_key: true, rate_limit: 1000000000/day}}}}
  key-two:
    path: /key-two
    upstream: echo
    policies: {{api_key: true, authorize: {{consumers: [acme]}}, rate_limit: 1000000000/day}}
  two: {{path: /two, upstream: echo, policies: {{rate_limit: 1000000000/day, {checked}, on_error: allow}}}}}}
""")


def _through_envoy() -> None:
    """Print requests per second and CPU time. The ways take turns, and each has its best rate and its least time."""
    port = free_port()
    upstream = {
        "listeners": {"http": {"port": port}},
        "routes": {"r": {"path": "/*", "respond": {"body": "ok"}}},
    }
    with (
        tempfile.TemporaryDirectory() as name,
        Gateway(write(Path(name) / "up", gateway=json.dumps(upstream)), Path(name)),
    ):
        folder = Path(name) / "down"
        folder.mkdir()
        stack = Stack(folder)
        _write(stack, port)
        with stack:
            assert stack.envoy.process is not None
            assert stack.policy_server.process is not None
            envoy, server = stack.envoy.process.pid, stack.policy_server.process.pid
            found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
            for _ in range(ROUNDS):
                for way, results in found.items():
                    spent, start = cpu(server), time.perf_counter()
                    one = measure(stack.listener, [get(way, x_api_key=KEY)], envoy)
                    answers = one.rate * (time.perf_counter() - start)
                    results.append((one.rate, one.cpu_microseconds, (cpu(server) - spent) / answers * 1e6))
    print("\n| through Envoy, one worker | requests/s | CPU of Envoy each | CPU of the policy server each |")
    print("|---|---|---|---|")
    for way, results in found.items():
        rates, envoys, servers = zip(*results, strict=True)
        print(f"| {WAYS[way]} | {max(rates):,.0f} | {min(envoys):.0f} µs | {min(servers):.0f} µs |")


def main() -> None:
    """Print the tables."""
    print(
        "| limits of a request | engine, decisions/s | service, calls/s | Redis, decisions/s | Redis, p99 |"
    )
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder)) as valkey:
        for count in COUNTS:
            rate, slowest = asyncio.run(_redis(valkey.url, count))
            print(
                f"| {count} | {_engine(count):,.0f} | {_service(count):,.0f} | {rate:,.0f} | {slowest:.1f} ms |"
            )
    print("\n| limits | workers | owner, decisions/s | p99 | CPU of a worker | CPU of the owner |")
    print("|---|---|---|---|---|---|")
    for count in COUNTS:
        for workers in (1, 2, 3):
            with tempfile.TemporaryDirectory() as name:
                print(f"| {count} | {workers} | {_owner(Path(name), workers, count)} |")
    print(f"\nMemory of a key, its name included: {_bytes_per_key():.0f} bytes.")
    _through_envoy()


if __name__ == "__main__":
    main()
