"""The service by itself: slots that nobody waits for, values without measure, and the answer where nobody can count."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from prometheus_client import CollectorRegistry, generate_latest

from filters.rate_limit.engine.memory import Memory
from filters.rate_limit.engine.store import CounterStore
from filters.rate_limit.server.service import RateLimits
from filters.rate_limit.stores.redis import RedisStore
from filters.rate_limit.stores.redis_client import connect
from filters.unary import RpcError, Undoable
from protos import limits_pb2
from tests.support.valkey import Valkey
from tests.support.wait import eventually

OK, OVER = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT
START = 1_792_890_000_000_000


def _read(answer: Any) -> Any:
    """The answer with its response parsed, also where it comes later."""
    if inspect.isawaitable(answer):
        return _read_later(answer)
    if isinstance(answer, Undoable):
        return dataclasses.replace(answer, response=_read(answer.response))
    return rls_pb2.RateLimitResponse.FromString(answer)


async def _read_later(answer: Awaitable[Any]) -> Any:
    return _read(await answer)


class Asking:
    """The service with one rule, `limits`, asked as Envoy does."""

    def __init__(self, store: CounterStore | None = None, **limit: Any) -> None:
        self.registry = CollectorRegistry()
        self.service = RateLimits(self.registry, store, clock=lambda: START)
        rule = limits_pb2.Limits(name="rule", place="route/r")
        rule.limits.add(**{"name": "l", "amount": 1, "per": "day", "by": ["header:x"], **limit})
        assert self.service.rules.replace({"rule": rule.SerializeToString()}, ()) == {}

    def ask(self, **entries: str) -> Any:
        request = rls_pb2.RateLimitRequest(domain="xds")
        found = request.descriptors.add().entries
        found.add(key="rule", value="rule")
        for key, value in entries.items():
            found.add(key=key.replace("_", ":"), value=value)
        return _read(self.service.should_rate_limit(request))

    def metric(self, line: str) -> bool:
        return line in generate_latest(self.registry).decode()


def slots(store: CounterStore | None = None, **limit: Any) -> Asking:
    return Asking(
        store, algorithm="concurrency", unit="concurrent-requests", per="", lease=600_000_000, **limit
    )


def windows(store: CounterStore | None = None, **limit: Any) -> Asking:
    return Asking(store, algorithm="fixed_window", unit="requests", **limit)


def test_a_slot_whose_answer_nobody_read_is_given_back() -> None:
    asking = slots()
    first = asking.ask(connection="1")
    assert isinstance(first, Undoable)
    assert first.response.overall_code == OK
    assert asking.ask(connection="2").overall_code == OVER
    first.undo()
    assert asking.ask(connection="2").response.overall_code == OK
    first.undo()  # ends nobody else's
    assert asking.ask(connection="3").overall_code == OVER


def test_where_no_slot_is_taken_nothing_is_undone() -> None:
    assert not isinstance(windows().ask(), Undoable)


async def test_a_slot_that_redis_gives_to_a_call_that_was_given_up_is_given_back(tmp_path: Path) -> None:
    with Valkey(tmp_path) as valkey:
        store = RedisStore(connect(valkey.url), CollectorRegistry(), 20.0)
        asking = slots(store, amount=5)
        held = await asking.ask(connection="0")
        assert isinstance(held, Undoable)
        valkey.signal(signal.SIGSTOP)
        calls = [asyncio.ensure_future(asking.ask(connection=f"{number}")) for number in (1, 2)]
        for _ in range(10):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        valkey.signal(signal.SIGCONT)
        key = "xds:2:{header:x=}route/r|concurrent-requests|concurrency|header:x="
        await eventually(lambda: valkey.ask("ZRANGE", key, 0, -1) == [b"0//"], "the slots to be given back")
        held.undo()
        await eventually(lambda: valkey.ask("EXISTS", key) == 0, "the last slot to be given back")
        await store.close()


def test_values_of_clients_make_no_long_keys_and_stay_apart() -> None:
    memory = Memory()
    asking = windows(memory)
    long = "x" * 60_000
    short_form = "x" * 64 + "~"
    values = [long, long + "y", short_form, "x" * 128, "x" * 129]
    assert [asking.ask(header_x=one).overall_code for one in values * 2] == [OK] * 5 + [OVER] * 5
    kept = [key for key, _ in memory.listed()[1]]
    assert max(map(len, kept)) < 300
    form = next(key for key in kept if "~" in key and len(key) > 150).partition("=")[2]
    assert (
        asking.ask(header_x=form).overall_code == OK
    )  # who writes another one's short form is somebody else


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "token_bucket"])
@pytest.mark.parametrize("digits", [11, 19, 20, 5000])
def test_a_cost_without_measure_rejects_and_is_no_more_than_the_largest_limit(
    algorithm: str, digits: int
) -> None:
    memory = Memory()
    asking = Asking(memory, algorithm=algorithm, unit="requests", cost_header="header:cost", statuses=[500])
    asking.ask(header_cost="9" * digits, done="true", status="500")
    (_, counter) = memory.listed()[1][0]
    assert counter.until - START <= (2**32 + 1) * 86_400_000_000
    assert asking.ask().overall_code == OVER


async def test_redis_holds_the_largest_cost_of_the_slowest_bucket_and_lets_its_key_expire(
    tmp_path: Path,
) -> None:
    with Valkey(tmp_path) as valkey:
        store = RedisStore(connect(valkey.url), CollectorRegistry(), 5.0)
        asking = Asking(
            store, algorithm="token_bucket", unit="requests", per="month", burst=2**32 - 1,
            cost_header="header:cost",
        )  # fmt: skip
        answers = [await asking.ask(header_cost=cost) for cost in ("4294967295", "1")]
        assert [one.overall_code for one in answers] == [OK, OVER]
        ttl = valkey.ask("PTTL", "xds:2:{header:x=}route/r|requests|token_bucket|month|header:x=")
        assert isinstance(ttl, int)
        assert ttl > 0
        await store.close()


@pytest.mark.parametrize("deny", [False, True])
def test_where_memory_is_full_on_error_decides_and_a_line_and_a_metric_say_so(
    deny: bool, caplog: pytest.LogCaptureFixture
) -> None:
    asking = windows(Memory(capacity=10), deny_on_error=deny)
    for number in range(10):
        assert asking.ask(header_x=f"{number}").overall_code == OK
    for _ in range(2):
        if deny:
            with pytest.raises(RpcError, match="the counters cannot be reached") as refused:
                asking.ask(header_x="new")
            assert refused.value.code == 14  # UNAVAILABLE, for which the strict filter answers 503
        else:
            answer = asking.ask(header_x="new")
            assert (answer.overall_code, list(answer.response_headers_to_add)) == (OK, [])
    assert [one.message[:14] for one in caplog.records] == ["memory is full"]
    assert asking.metric('xds_rate_limit_decisions_total{outcome="uncounted"} 2.0')
    assert asking.ask(header_x="1").overall_code == OVER


def test_a_limit_that_counts_by_nothing_is_shown_to_operators() -> None:
    asking = windows(by=[])
    asking.ask()
    (shown,) = asking.service.shown()["counters"]
    assert (shown["limit"], shown["amount"], shown["used"]) == ("l", 1, 1)


def test_requests_that_nearly_exhaust_a_limit_are_counted() -> None:
    asking = windows(amount=20)
    for _ in range(22):
        asking.ask(header_x="a")
    assert asking.metric('xds_rate_limit_nearly_exhausted_total{limit="l"} 2.0')
    assert asking.metric('xds_rate_limit_decisions_total{outcome="admitted"} 20.0')
    assert asking.metric('xds_rate_limit_decisions_total{outcome="rejected"} 2.0')
