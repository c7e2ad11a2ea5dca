"""Each store of a rollout keeps one record by compare-and-set, and the reports of all replicas by its own clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

import pytest

from tests.support.postgres import Postgres
from tests.support.valkey import Cluster, SentinelServer, Valkey
from tests.support.wait import eventually
from xds_server.control_plane import rollout_postgres, rollout_redis
from xds_server.control_plane.rollout_agreement import Agreement
from xds_server.control_plane.rollout_record import Record
from xds_server.control_plane.rollout_replicas import Report
from xds_server.control_plane.rollout_store import RolloutStore, Unreachable
from xds_server.errors import WrongUsage
from xds_server.rollout_stores import rollout_store

Server = Valkey | Cluster | Postgres | SentinelServer


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no store that does not answer."""
    for module in (rollout_redis, rollout_postgres):
        monkeypatch.setattr(module, "TIMEOUT", 60.0)


@pytest.fixture(scope="module", params=["redis", "cluster", "sentinel", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("stores")
    match request.param:
        case "redis":
            with Valkey(folder) as one:
                yield one
        case "cluster":
            with Cluster(folder) as cluster:
                yield cluster
        case "sentinel":
            with Valkey(folder) as master, SentinelServer(folder, master) as sentinel:
                yield sentinel
        case _:
            with Postgres() as postgres:
                yield postgres


@asynccontextmanager
async def opened(server: Server, name: str) -> AsyncIterator[Callable[[], RolloutStore]]:
    """Clients of a store, which are closed at the end."""
    made: list[RolloutStore] = []

    def another() -> RolloutStore:
        made.append(rollout_store(server.url, name))
        return made[-1]

    yield another
    for one in made:
        await one.close("nobody")


async def test_a_record_is_written_only_over_what_was_read(server: Server) -> None:
    async with opened(server, "cas") as another:
        one, two = another(), another()
        assert (await one.exchange("a", b"")).record == b""
        assert await one.replace(b"", b"first")
        assert not await two.replace(b"", b"second")
        assert not await two.replace(b"other", b"second")
        assert await two.replace(b"first", b"\xff\x00 second\n")
        assert (await one.exchange("a", b"")).record == b"\xff\x00 second\n"
    async with opened(server, "another") as another:
        assert (await another().exchange("a", b"")).record == b""


async def test_reports_have_an_age_by_the_clock_of_the_store(server: Server) -> None:
    async with opened(server, "reports") as another:
        one, two = another(), another()
        first = await one.exchange("a", b"a report\nwith \x00 bytes")
        answer = await two.exchange("b", b"")
        assert answer.now >= first.now > 1.7e9
        assert {name: body for name, (_, body) in answer.reports.items()} == {
            "a": b"a report\nwith \x00 bytes",
            "b": b"",
        }
        age = answer.reports["a"][0]
        already = first.reports["a"][0]
        assert 0 <= age <= answer.now - first.now + already + 0.01
        await eventually(lambda: _older(two, age), "the report of a to be older")
        await one.close("a")
        assert set((await two.exchange("b", b"")).reports) == {"b"}


async def _older(store: RolloutStore, age: float) -> bool:
    return (await store.exchange("b", b"")).reports["a"][0] > age


async def test_changes_of_several_replicas_at_once_are_all_made(server: Server) -> None:
    """Also if the store does not answer in time on a busy machine: nobody knows then whether a change was made."""
    async with opened(server, "many") as another:
        replicas = [Agreement(another(), name) for name in "abcd"]
        tokens = {one.replica: [f"{one.replica}{number}" for number in range(10)] for one in replicas}

        async def add(one: Agreement, token: str) -> None:
            def rule(record: Record) -> Record:
                return record if token in record.known else replace(record, known=(*record.known, token))

            while token not in one.record.known:
                with suppress(Unreachable):
                    await one.change(rule)
                await one.exchange(Report(replica=one.replica))

        async def add_all(one: Agreement) -> None:
            await one.exchange(Report(replica=one.replica))
            for token in tokens[one.replica]:
                await add(one, token)

        async with asyncio.timeout(120):
            await asyncio.gather(*map(add_all, replicas))
        for one in replicas:
            await eventually(partial(_has, one, tokens), "all changes")
            assert {report.replica for report in one.reports} == set("abcd")


async def _has(one: Agreement, tokens: Mapping[str, list[str]]) -> bool:
    await one.exchange(Report(replica=one.replica))
    known = list(one.record.known)
    own = [[token for token in known if token[0] == replica] for replica in tokens]
    return own == list(tokens.values()) and not one.problem


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "postgresql://postgres:secret@127.0.0.1:1/x"])
async def test_a_store_that_is_not_there_is_told_without_its_password(url: str) -> None:
    store = rollout_store(url, "x")
    with pytest.raises(Unreachable) as told:
        await store.exchange("a", b"")
    assert "secret" not in str(told.value)
    await store.close("a")


@pytest.mark.parametrize(
    "url", ["http://x", "redis+sentinel://127.0.0.1:1", "sqlite:///x", "redis://:secret@x:port"]
)
def test_other_urls_are_rejected_without_their_password(url: str) -> None:
    with pytest.raises(WrongUsage, match="--rollout-store") as told:
        rollout_store(url, "x")
    assert "secret" not in str(told.value)
