"""Counters in a real Valkey: exact with several processes, and safe when it is killed, paused, flushed or read-only."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from filters.rate_limit.client_headers import retry_after
from filters.rate_limit.engine.algorithms import Concurrency, FixedWindow, Limit, SlidingWindow, TokenBucket
from filters.rate_limit.engine.decision import Hit, LimitDecision, Taken
from filters.rate_limit.engine.memory import Memory
from filters.rate_limit.engine.windows import SECOND
from filters.rate_limit.stores.circuit_breaker import FAILURES
from filters.rate_limit.stores.redis import AT_ONCE, DEADLINE, MOST_WAITING, UNDER_WAY, RedisStore
from filters.rate_limit.stores.redis_client import connect
from tests.support.valkey import Cluster, SentinelServer, Valkey
from tests.support.wait import eventually
from xds_server.policy_server.server import PolicyServer
from xds_server.policy_server.services import services

LIMITS_PAGE = Path(__file__).parents[4] / "docs" / "reference" / "limits.md"
CLIENTS = count()
DAY = FixedWindow(name="day", amount=5, per="day")
STRICT = FixedWindow(name="strict", amount=5, per="day", allow_on_error=False)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


class Asked(RedisStore):
    """A store whose decisions and other operations can all be awaited."""

    async def decide(self, now: int, hits: Sequence[Hit]) -> LimitDecision:
        found = super().decide(now, hits)
        return found if isinstance(found, LimitDecision) else await found


@asynccontextmanager
async def store(url: str, deadline: float = 5.0) -> AsyncIterator[Asked]:
    opened = Asked(connect(url), CollectorRegistry(), deadline)
    try:
        yield opened
    finally:
        await opened.close()


async def done(work: Awaitable[None] | None) -> None:
    assert work is not None
    await work


def now() -> int:
    return time.time_ns() // 1000


@pytest.mark.parametrize(
    "limit",
    [
        DAY,
        FixedWindow(name="month", amount=3, per="month"),
        FixedWindow(name="zone", amount=3, per="day", zone="Europe/Berlin"),
        FixedWindow(name="rolling", amount=3, per="hour", rolling=True),
        SlidingWindow(name="sliding", amount=4, per="month"),
        TokenBucket(name="bucket", amount=1, per="day", burst=4),
        Concurrency(name="slots", amount=3),
    ],
    ids=lambda limit: limit.name,
)
async def test_each_algorithm_is_that_of_the_memory(valkey: Valkey, limit: Limit) -> None:
    memory, key = Memory(), f"each|{limit.name}|consumer=a"
    async with store(valkey.url) as redis:
        for number in range(8):
            cost = (1, 2, 0, 1)[number % 4] if limit.kind != "concurrency" else 1
            hit = Hit(limit, key, cost, f"request{number}")
            found = await redis.decide(now(), [hit])
            expected = memory.decide(found.now, [hit])
            assert found.admitted == expected.admitted
            ours, theirs = expected.figures[0], found.figures[0]
            assert (ours.remaining, ours.short) == (theirs.remaining, theirs.short)
            assert abs(ours.reset - theirs.reset) < 2 * SECOND


async def test_several_limits_take_all_or_nothing(valkey: Valkey) -> None:
    async with store(valkey.url) as redis:
        hits = [Hit(DAY, "all|consumer=a"), Hit(FixedWindow(name="two", amount=2, per="day"), "two|ip=1")]
        assert [(await redis.decide(now(), hits)).admitted for _ in range(4)] == [True, True, False, False]
        alone = await redis.decide(now(), [Hit(DAY, "all|consumer=a", 0)])
        assert alone.figures[0].remaining == 3


OPERATIONS = st.lists(st.tuples(st.booleans(), st.integers(1, 5), st.integers(1, 4)), max_size=25)
SLOW: tuple[Limit, ...] = (
    FixedWindow(name="fixed", amount=9, per="month"),
    FixedWindow(name="zone", amount=9, per="month", zone="Asia/Tokyo"),
    FixedWindow(name="rolling", amount=9, per="day", rolling=True),
    SlidingWindow(name="sliding", amount=9, per="month"),
    TokenBucket(name="bucket", amount=1, per="day", burst=9),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(OPERATIONS, min_size=1, max_size=3))
def test_giving_back_is_that_of_the_memory(valkey: Valkey, runs: list[list[tuple[bool, int, int]]]) -> None:
    """Several at once on all limits: their decisions are in the order of the calls, also where they travel together."""

    async def compare() -> None:
        async with store(valkey.url) as redis:
            for given_steps in runs:
                await same(redis, given_steps)

    async def same(redis: Asked, given_steps: list[tuple[bool, int, int]]) -> None:
        memory, client = Memory(), next(CLIENTS)
        taken: list[tuple[Taken, Taken]] = []
        for takes, cost, width in given_steps:
            hits = [Hit(limit, f"back|{limit.name}|ip={client}", cost) for limit in SLOW[: width + 1]]
            redis._exhausted.clear()  # or its decisions have figures of the exhausted limits only
            if takes:
                found = await redis.decide(now(), hits)
                expected = memory.decide(found.now, hits)
                assert found.admitted == expected.admitted
                assert [(one.remaining, one.short) for one in found.figures] == [
                    (one.remaining, one.short) for one in expected.figures
                ]
                if found.admitted:
                    taken += [
                        (
                            Taken(*hit[:3], found.now, theirs.reset),
                            Taken(*hit[:3], expected.now, ours.reset),
                        )
                        for hit, theirs, ours in zip(hits, found.figures, expected.figures, strict=True)
                    ]
            elif taken:
                theirs, ours = taken.pop(cost % len(taken))
                count = min(cost, ours.cost)
                giving = redis.give_back(now(), [theirs._replace(cost=count)])
                again = asyncio.ensure_future(redis.decide(now(), [Hit(ours.limit, ours.key, 0)]))
                await done(giving)
                found = await again
                memory.give_back(found.now, [ours._replace(cost=count)])
                expected = memory.decide(found.now, [Hit(ours.limit, ours.key, 0)])
                assert found.figures[0].remaining == expected.figures[0].remaining

    asyncio.run(compare())


async def test_nothing_is_given_back_to_another_window_or_a_counter_that_began_later(valkey: Valkey) -> None:
    async with store(valkey.url) as redis:
        hit = Hit(DAY, "later|consumer=a", 3)
        first = await redis.decide(now(), [hit])
        taken = Taken(DAY, hit.key, 2, first.now, first.figures[0].reset)
        await done(redis.give_back(now(), [taken._replace(until=taken.until - 86_400 * SECOND)]))
        assert (await redis.decide(now(), [hit._replace(cost=0)])).figures[0].remaining == 2
        await asyncio.to_thread(redis.reset, "later|")
        await redis.decide(now(), [hit])
        await done(redis.give_back(now(), [taken]))
        assert (await redis.decide(now(), [hit._replace(cost=0)])).figures[0].remaining == 2


async def test_one_operation_that_fails_spoils_no_other_of_its_command(valkey: Valkey) -> None:
    async with store(valkey.url) as redis:
        await redis.decide(now(), [Hit(DAY, "together|ip=1")])
        valkey.ask("HSET", "xds:2:{ip=2}together|ip=2", "no", "counter")
        found = await asyncio.gather(
            *(redis.decide(now(), [Hit(DAY, f"together|ip={one}")]) for one in (1, 2, 1, 3))
        )
        assert [one.uncounted for one in found] == [False, True, False, False]
        assert [one.figures[0].remaining for one in found if one.figures] == [3, 2, 4]


async def test_slots_are_given_back(valkey: Valkey) -> None:
    limit = Concurrency(name="slots", amount=1)
    async with store(valkey.url) as redis:
        first, second = (Hit(limit, "slots|consumer=a", 1, name) for name in ("first", "second"))
        assert (await redis.decide(now(), [first])).admitted
        assert not (await redis.decide(now(), [second])).admitted
        await done(redis.release([second]))
        assert not (await redis.decide(now(), [second])).admitted
        await done(redis.release([first]))
        assert (await redis.decide(now(), [second])).admitted


async def test_bytes_are_charged_beyond_the_limit_and_keys_expire(valkey: Valkey) -> None:
    quota = FixedWindow(name="quota", amount=100, per="day", unit="content-bytes")
    async with store(valkey.url) as redis:
        await done(redis.charge(now(), [Hit(quota, "quota|consumer=a", 5_000_000_000)]))
        decision = await redis.decide(now(), [Hit(quota, "quota|consumer=a", 0)])
        assert (decision.admitted, decision.figures[0].remaining) == (False, 0)
    ttl = valkey.ask("PTTL", "xds:2:{consumer=a}quota|consumer=a")
    assert isinstance(ttl, int)
    assert 0 < ttl <= 86_400_000


async def test_an_exhausted_key_is_answered_without_redis(valkey: Valkey) -> None:
    async with store(valkey.url) as redis:
        hit = Hit(FixedWindow(name="l", amount=1, per="day"), "cached|consumer=a")
        at = now()
        assert [(await redis.decide(at, [hit])).admitted for _ in range(2)] == [True, False]
        before = valkey.ask("INFO", "commandstats")
        cached = await redis.decide(at, [hit])
        after = valkey.ask("INFO", "commandstats")
        assert not cached.admitted
        assert cached.figures[0].reset > at
        assert before["cmdstat_evalsha"]["calls"] == after["cmdstat_evalsha"]["calls"]  # type: ignore[index]


BURST_DEADLINE = 10 * DEADLINE
"""A busy machine may keep Redis from its processors for longer than the deadline of the product. Ten thousand decisions
take longer than this one, so that they show if it begins with the question instead of with the silence."""


def _ask(url: str, count: int, deadline: float, ready: Barrier, results: multiprocessing.Queue[int]) -> None:
    """Ask `count` times at once, by a process that has never asked before."""

    async def ask() -> int:
        async with store(url, deadline) as redis:
            hits = [
                Hit(FixedWindow(name="many", amount=100, per="day"), "many|consumer=a"),
                Hit(TokenBucket(name="wide", amount=1, per="day", burst=100), "wide|ip=1"),
            ]
            ready.wait()
            found = await asyncio.gather(*(redis.decide(now(), hits) for _ in range(count)))
            assert not any(one.uncounted for one in found)
            return sum(one.admitted for one in found)

    results.put(asyncio.run(ask()))


def admitted_by_processes(
    url: str, count: int = 2, each: int = 10_000, deadline: float = BURST_DEADLINE
) -> int:
    """How many requests several processes admit together, which ask `each` times at once."""
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = context.Queue()
    ready = context.Barrier(count)
    processes = [
        context.Process(target=_ask, args=(url, each, deadline, ready, results)) for _ in range(count)
    ]
    for one in processes:
        one.start()
    total = sum(results.get(timeout=60) for _ in processes)
    for one in processes:
        one.join(30)
    return total


@pytest.mark.parametrize("processes", [1, 2])
def test_ten_thousand_at_once_admit_exactly_the_limit(tmp_path: Path, processes: int) -> None:
    with Valkey(tmp_path) as server:
        assert admitted_by_processes(server.url, processes) == 100


def test_a_cluster_admits_exactly_the_limit(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        # the nodes of a cluster share the processors, so one of them may be silent for longer
        assert admitted_by_processes(cluster.url, deadline=10 * BURST_DEADLINE) == 100


def test_a_master_of_sentinels_admits_exactly_the_limit(tmp_path: Path) -> None:
    with Valkey(tmp_path) as master, SentinelServer(tmp_path, master) as sentinel:
        assert admitted_by_processes(sentinel.url) == 100


@pytest.mark.parametrize("count", [32, 128, 256, 512, 2000])
async def test_a_burst_at_an_idle_server_passes_no_limit(valkey: Valkey, count: int) -> None:
    limit = FixedWindow(name="hour", amount=10, per="month")
    async with store(valkey.url, BURST_DEADLINE) as redis:
        for expected in (10, 0):
            asked = (redis.decide(now(), [Hit(limit, f"burst{count}|ip=1")]) for _ in range(count))
            found = await asyncio.gather(*asked)
            assert sum(one.admitted for one in found) == expected
            assert not any(one.uncounted for one in found)


async def test_what_holds_this_process_up_is_no_fault_of_redis(valkey: Valkey) -> None:
    async with store(valkey.url, 0.01) as redis:
        await redis.decide(now(), [Hit(DAY, "held up|ip=1")])
        asking = [asyncio.ensure_future(redis.decide(now(), [Hit(DAY, "held up|ip=1")])) for _ in range(3)]
        for _ in range(3):
            await asyncio.sleep(0)
            time.sleep(0.1)  # noqa: ASYNC251 - longer than the deadline, as a long turn of the loop is
        found = await asyncio.gather(*asking)
        assert [one.uncounted for one in found] == [False] * 3


async def test_decisions_of_a_turn_travel_together(valkey: Valkey) -> None:
    async with store(valkey.url) as redis:
        await redis.decide(now(), [Hit(DAY, "turn|ip=0")])
        connections = clients(valkey)
        before = valkey.ask("INFO", "stats")
        await asyncio.gather(*(redis.decide(now(), [Hit(DAY, f"turn|ip={one}")]) for one in range(50)))
        after = valkey.ask("INFO", "stats")
        assert clients(valkey) <= connections - 1 + UNDER_WAY
        assert after["total_reads_processed"] - before["total_reads_processed"] < 30  # type: ignore[index]


async def test_a_crowd_is_rejected_by_its_limits_whatever_on_error_says(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    registry, shadow = CollectorRegistry(), FixedWindow(name="shadow", amount=1, per="day", shadow=True)
    redis, waiting = Asked(connect(valkey.url), registry, 5.0), list[asyncio.Future[LimitDecision]]()
    valkey.signal(signal.SIGSTOP)
    try:
        for turn, count in enumerate([MOST_WAITING] + [AT_ONCE] * UNDER_WAY):  # each pipeline makes room
            for number in range(count):
                hit = Hit(DAY, f"crowd|ip={turn}/{number}")
                waiting.append(asyncio.ensure_future(redis.decide(now(), [hit])))
            for _ in range(3):
                await asyncio.sleep(0)
        shed = await redis.decide(now(), [Hit(DAY, "crowd|ip=a")])
        assert (shed.admitted, shed.uncounted) == (False, False)
        assert retry_after(shed) == 1
        assert (await redis.decide(now(), [Hit(shadow, "crowd|ip=b")])).admitted
    finally:
        valkey.signal(signal.SIGCONT)
    labels = {"store": "redis", "outcome": "shed"}
    assert (registry.get_sample_value("xds_rate_limit_store_failures_total", labels) or 0) >= 2
    assert [one for one in caplog.messages if one.startswith("redis has more waiting requests")]
    for one in waiting:
        one.cancel()
    await redis.close()


async def test_a_killed_server_lets_pass_what_may_and_comes_back(tmp_path: Path) -> None:
    with Valkey(tmp_path) as server:
        async with store(server.url, 0.5) as redis:
            assert (await redis.decide(now(), [Hit(DAY, "k|ip=1")])).figures
            server.kill()
            for _ in range(FAILURES + 1):
                passed = await redis.decide(now(), [Hit(DAY, "k|ip=1")])
                assert (passed.admitted, passed.uncounted) == (True, True)
            assert not (await redis.decide(now(), [Hit(STRICT, "s|ip=1")])).admitted
            server.start()

            async def counted() -> bool:
                return bool((await redis.decide(now(), [Hit(DAY, "k|ip=1", 0)])).figures)

            await eventually(counted, "Redis to be asked again")


async def test_a_paused_server_costs_no_more_than_the_deadline_and_then_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Valkey(tmp_path) as server:
        async with store(server.url, 0.05) as redis:
            server.signal(signal.SIGSTOP)
            answers = [await redis.decide(now(), [Hit(DAY, "k|ip=1")]) for _ in range(200)]
            assert all(one.admitted and one.uncounted for one in answers)
            assert redis._circuit.is_open
            assert caplog.messages[0].startswith("redis does not answer; ")
            assert caplog.messages[0].endswith(" error=TimeoutError")
            server.signal(signal.SIGCONT)

            async def counted() -> bool:
                return bool((await redis.decide(now(), [Hit(DAY, "k|ip=1", 0)])).figures)

            await eventually(counted, "Redis to be asked again")


async def test_a_flushed_server_counts_from_nothing(tmp_path: Path) -> None:
    with Valkey(tmp_path) as server:
        async with store(server.url) as redis:
            await redis.decide(now(), [Hit(DAY, "k|ip=1", 4)])
            server.ask("FLUSHALL")
            server.ask("SCRIPT", "FLUSH")
            assert (await redis.decide(now(), [Hit(DAY, "k|ip=1")])).figures[0].remaining == 4


async def test_a_server_that_cannot_be_written_is_as_one_that_is_away(tmp_path: Path) -> None:
    exhausted = Hit(DAY, "full|ip=1", 5)
    with Valkey(tmp_path) as server:
        async with store(server.url) as redis:
            await redis.decide(now(), [exhausted])
            server.ask("REPLICAOF", "127.0.0.1", server.port)
            found = await asyncio.gather(
                *(redis.decide(now(), [one]) for one in (Hit(DAY, "k|ip=1"), exhausted))
            )
            assert [(one.uncounted, one.admitted) for one in found] == [(True, True), (False, False)]
            server.ask("REPLICAOF", "NO", "ONE")
            assert (await redis.decide(now(), [Hit(DAY, "k|ip=1")])).figures[0].remaining == 4


async def test_a_full_server_forgives_nobody_and_counts_no_new_client_until_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slots = Concurrency(name="slots", amount=5)
    exhausted, some, slot = Hit(DAY, "full|consumer=a"), Hit(DAY, "k|consumer=a"), "slots|consumer=a"
    with Valkey(tmp_path, "--maxmemory-policy", "noeviction") as server:
        async with store(server.url) as redis:
            await redis.decide(now(), [exhausted._replace(cost=5)])
            assert (await redis.decide(now(), [Hit(slots, slot, 1, "first")])).admitted
            server.ask("CONFIG", "SET", "maxmemory", "100kb")  # far less than it has
            for _ in range(2 * FAILURES):  # it is not left alone
                assert (await redis.decide(now(), [some])).uncounted
                assert not (await redis.decide(now(), [Hit(STRICT, "s|consumer=a")])).admitted
                redis._exhausted.clear()
                decision = await redis.decide(now(), [exhausted])
                assert (decision.admitted, decision.uncounted) == (False, False)
            await done(redis.release([Hit(slots, slot, 1, "first")]))
            assert server.ask("EXISTS", f"xds:2:{{consumer=a}}{slot}") == 0
            server.ask("CONFIG", "SET", "maxmemory", "0")
            assert (await redis.decide(now(), [some])).figures[0].remaining == 4
    assert [one.message.partition(";")[0] for one in caplog.records] == ["redis cannot count"]


async def test_a_server_that_evicts_forgives_which_the_documentation_says(tmp_path: Path) -> None:
    exhausted = Hit(DAY, "full|consumer=a")
    with Valkey(tmp_path, "--maxmemory-policy", "allkeys-lru") as server:
        async with store(server.url) as redis:
            await redis.decide(now(), [exhausted._replace(cost=5)])
            server.ask("CONFIG", "SET", "maxmemory", "100kb")

            async def evicted() -> bool:
                return server.ask("EXISTS", "xds:2:{consumer=a}full|consumer=a") == 0

            await eventually(evicted, "the exhausted counter to be evicted")
            server.ask("CONFIG", "SET", "maxmemory", "0")
            redis._exhausted.clear()
            decision = await redis.decide(now(), [exhausted])
            assert (decision.admitted, decision.uncounted) == (True, False)
    assert "maxmemory-policy noeviction" in LIMITS_PAGE.read_text()


class Load:
    """Requests of one client, eight at a time, until one is rejected. `lost`: those without an answer."""

    limit = FixedWindow(name="load", amount=4000, per="month")

    def __init__(self, redis: Asked) -> None:
        self._redis = redis
        self.admitted, self.lost = 0, 0
        self._rejected = False

    async def is_half_way(self) -> bool:
        return self.admitted > self.limit.amount // 2

    async def run(self) -> None:
        await asyncio.gather(*(self._ask() for _ in range(8)))

    async def _ask(self) -> None:
        while not self._rejected:
            decision = await self._redis.decide(now(), [Hit(self.limit, "load|ip=load")])
            self._rejected = self._rejected or not decision.admitted
            self.lost += decision.uncounted
            self.admitted += decision.admitted and not decision.uncounted
            await asyncio.sleep(0.005 if decision.uncounted else 0)


async def test_a_fail_over_is_followed(tmp_path: Path) -> None:
    with Valkey(tmp_path) as master, Valkey(tmp_path, "--replicaof", f"127.0.0.1 {master.port}") as replica:

        async def linked() -> bool:
            return b"master_link_status:up" in str(replica.ask("INFO", "replication")).encode() or (
                replica.ask("INFO", "replication")["master_link_status"] == "up"  # type: ignore[index]
            )

        await eventually(linked, "the replica")
        with SentinelServer(tmp_path, master) as sentinel:

            async def known() -> bool:
                return bool(sentinel.ask("SENTINEL", "REPLICAS", "counters"))

            await eventually(known, "the Sentinel to know the replica")
            async with store(sentinel.url) as redis:

                async def counted() -> bool:
                    return bool((await redis.decide(now(), [Hit(DAY, "k|ip=1", 0)])).figures)

                await eventually(counted, "the Sentinel to say where the master is")
                assert (await redis.decide(now(), [Hit(DAY, "k|ip=1", 3)])).figures[0].remaining == 2
                master.ask("WAIT", 1, 5000)
                load = Load(redis)
                asking = asyncio.ensure_future(load.run())
                await eventually(load.is_half_way, "half of the limit to be used")
                master.kill()
                known_to_replica = replica.used("xds:2:{ip=load}load|ip=load")
                before = load.admitted
                await eventually(counted, "the fail-over")
                assert (await redis.decide(now(), [Hit(DAY, "k|ip=1", 0)])).figures[0].remaining == 2
                await asyncio.wait_for(asking, 60)
                # Beyond the limit no more than what the master had not yet sent to its replica, and eight answers may
                # have been on their way to here.
                assert load.admitted - before <= load.limit.amount - known_to_replica + 8
                assert load.admitted >= load.limit.amount - load.lost


async def test_a_silent_sentinel_holds_nothing_up(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Valkey(tmp_path) as master,
        SentinelServer(tmp_path, master) as sentinel,
    ):
        named = sentinel.url.replace("//", f"//127.0.0.1:{silent.getsockname()[1]},")
        async with store(named) as redis:

            async def counted() -> bool:
                return bool((await redis.decide(now(), [Hit(DAY, "k|ip=1")])).figures)

            await eventually(counted, "the Sentinel that answers to be heard")


async def test_a_new_master_is_followed_while_the_old_one_still_answers(tmp_path: Path) -> None:
    """Two policy servers would count for themselves if one of them stayed with the old master."""
    with (
        Valkey(tmp_path) as old,
        Valkey(tmp_path) as new,
        SentinelServer(tmp_path, old) as sentinel,
    ):
        async with store(sentinel.url) as redis:

            async def counted_by_the_new_one() -> bool:
                await redis.decide(now(), [Hit(DAY, "k|ip=1")])
                return new.used("xds:2:{ip=1}k|ip=1") > 0

            await eventually(lambda: _decides(redis), "the Sentinel to say where the master is")
            sentinel.ask("SENTINEL", "REMOVE", "counters")
            sentinel.ask("SENTINEL", "MONITOR", "counters", "127.0.0.1", new.port, 1)
            await eventually(counted_by_the_new_one, "the new master to count")


async def test_a_master_without_replicas_is_left(tmp_path: Path) -> None:
    """`min-replicas-to-write` makes a master that was cut off reject writes: the Sentinels name another one."""
    with (
        Valkey(tmp_path, "--min-replicas-to-write", "1") as old,
        Valkey(tmp_path) as new,
        SentinelServer(tmp_path, old) as sentinel,
    ):
        async with store(sentinel.url) as redis:
            await eventually(lambda: _is_uncounted(redis), "the old master to reject")
            sentinel.ask("SENTINEL", "REMOVE", "counters")
            sentinel.ask("SENTINEL", "MONITOR", "counters", "127.0.0.1", new.port, 1)
            await eventually(lambda: _decides(redis), "the new master to count")


async def _decides(redis: RedisStore) -> bool:
    return bool((await redis.decide(now(), [Hit(DAY, "k|ip=2")])).figures)


async def _is_uncounted(redis: RedisStore) -> bool:
    return (await redis.decide(now(), [Hit(DAY, "k|ip=2")])).uncounted


async def test_counters_are_reset_by_prefix(valkey: Valkey) -> None:
    async with store(valkey.url) as redis:
        for key in ("gone|a*|consumer=a", "kept|consumer=a"):
            await redis.decide(now(), [Hit(DAY, key)])
        assert await asyncio.to_thread(redis.reset, "gone|a*") == 1
        assert (await redis.decide(now(), [Hit(DAY, "gone|a*|consumer=a")])).figures[0].remaining == 4
        assert (await redis.decide(now(), [Hit(DAY, "kept|consumer=a")])).figures[0].remaining == 3


async def test_counters_are_reset_by_a_store_that_never_asked_and_not_where_redis_is_away(
    tmp_path: Path,
) -> None:
    with Valkey(tmp_path) as server:
        async with store(server.url) as first, store(server.url) as second:
            await first.decide(now(), [Hit(DAY, "k|consumer=a")])
            assert await asyncio.to_thread(second.reset, "k|") == 1
            server.kill()
            with pytest.raises(OSError, match="redis does not answer"):
                await asyncio.to_thread(second.reset, "k|")


async def test_a_policy_server_that_ends_lets_go_of_redis(tmp_path: Path, valkey: Valkey) -> None:
    registry = CollectorRegistry()
    made = [make(registry) for make in services(valkey.url)]
    server = PolicyServer(made)
    await server.start(f"unix:{tmp_path}/policy.sock")
    before = clients(valkey)
    (reset,) = [one.actions["/limits/reset"] for one in made if "/limits/reset" in one.actions]
    assert await asyncio.to_thread(reset, "nothing|") == {"reset": 0}
    assert clients(valkey) == before + 1
    await server.stop(1.0)

    async def gone() -> bool:
        return clients(valkey) == before

    await eventually(gone, "the connection to end")


def clients(valkey: Valkey) -> int:
    """Connections of others than this question."""
    found = valkey.ask("CLIENT", "LIST")
    assert isinstance(found, bytes)
    return len(found.splitlines())


def test_a_sentinel_needs_the_name_of_the_master() -> None:
    with pytest.raises(ValueError, match="the name of the master is missing"):
        connect("redis+sentinel://127.0.0.1:26379")
