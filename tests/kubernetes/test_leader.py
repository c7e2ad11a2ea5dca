"""Leader election on a real API server, through a network that freezes, and with clocks that step."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import eventually
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.connection import Connection
from xds_server.kubernetes.leader import Leader, boot_time
from xds_server.kubernetes.lease import LEASES, Times
from xds_server.kubernetes.resources import Key

TIMES = Times(duration=5, renew_deadline=4, retry=0.1)


@asynccontextmanager
async def _candidate(
    client: ApiClient, key: Key, name: str, changes: list[str] | None = None, **options: Callable[[], object]
) -> AsyncIterator[Leader]:
    def changed(leading: bool) -> None:
        if changes is not None:
            changes.append(f"{name} {'leads' if leading else 'stops'}")

    leader = Leader(client, key, name, changed, times=TIMES, **options)  # type: ignore[arg-type]
    running = asyncio.create_task(leader.run())
    try:
        yield leader
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_one_of_two_candidates_leads_and_gives_the_lease_back(
    client: ApiClient, namespace: str
) -> None:
    key, changes = Key(namespace, "leader"), list[str]()
    async with _candidate(client, key, "b", changes) as second:
        async with _candidate(client, key, "a", changes) as first:
            await eventually(lambda: first.leading or second.leading, "a leader")
            leader, other = (first, second) if first.leading else (second, first)
            await eventually(lambda: other.holder, "the other one to know the leader")
            assert (leader.leading, other.leading) == (True, False)
            lease = await client.get(LEASES, key)
            assert lease["spec"]["leaseDurationSeconds"] == 5
        await eventually(lambda: second.leading, "the other one to lead")
    released = await client.get(LEASES, key)
    assert not released["spec"].get("holderIdentity")
    assert changes[-2:] == ["b leads", "b stops"]


async def test_a_leader_that_is_cut_off_stops_before_another_one_leads(
    connection: Connection, client: ApiClient, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    key, changes = Key(namespace, "leader"), list[str]()
    async with TcpProxy(int(connection.server.rpartition(":")[2])) as proxy:
        through = dataclasses.replace(connection, server=f"https://127.0.0.1:{proxy.port}")
        async with ApiClient(through) as proxied, _candidate(proxied, key, "a", changes) as first:
            await eventually(lambda: first.leading, "the first to lead")
            async with _candidate(client, key, "b", changes) as second:
                await eventually(lambda: second.holder == "a", "the second to see the first")
                proxy.freeze()
                await eventually(lambda: second.leading, "the second to lead")
                assert not first.leading
                proxy.cut()
                await eventually(lambda: first.holder == "b", "the first to see the second")
                assert second.leading
                assert changes == ["a leads", "a stops", "b leads"]
    assert "cannot renew or read the lease" in caplog.text


async def test_a_step_of_the_wall_clock_changes_no_leader(client: ApiClient, namespace: str) -> None:
    key = Key(namespace, "leader")
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

    def stepping() -> datetime.datetime:
        nonlocal now
        now += datetime.timedelta(days=1)
        return now

    async with _candidate(client, key, "a", wall=stepping) as first:
        await eventually(lambda: first.leading, "the first to lead")
        async with _candidate(
            client, key, "b", wall=lambda: datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)
        ) as second:
            await eventually(lambda: second.holder == "a", "the second to see the first")
            before = (await client.get(LEASES, key))["spec"]["renewTime"]
            await eventually(lambda: _renewed(client, key, before), "some renewals")
            assert (first.leading, second.leading) == (True, False)


async def _renewed(client: ApiClient, key: Key, before: str) -> bool:
    renewed = (await client.get(LEASES, key))["spec"]["renewTime"]
    return datetime.datetime.fromisoformat(renewed) > datetime.datetime.fromisoformat(
        before
    ) + datetime.timedelta(days=5)


async def test_a_process_that_was_stopped_knows_at_once_that_it_no_longer_leads(
    client: ApiClient, namespace: str
) -> None:
    stopped = 0.0
    async with _candidate(
        client, Key(namespace, "leader"), "a", clock=lambda: boot_time() + stopped
    ) as leader:
        await eventually(lambda: leader.leading, "a leader")
        stopped = TIMES.renew_deadline  # as if the machine had slept between two instructions
        assert not leader.leading
        await eventually(lambda: leader.leading, "the leader to return")


async def test_a_deleted_lease_is_made_again(client: ApiClient, namespace: str) -> None:
    key = Key(namespace, "leader")
    async with _candidate(client, key, "a") as leader:
        await eventually(lambda: leader.leading, "a leader")
        await client.delete(LEASES, key)
        await eventually(lambda: _exists(client, key), "the lease")
        await eventually(lambda: leader.leading, "the leader to return")


async def _exists(client: ApiClient, key: Key) -> bool:
    return any(one["metadata"]["name"] == key.name for one in await client.list(LEASES, key.namespace))
