"""The usage server as a process: what it acknowledges is counted once, whatever ends or stops in between."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from tests.support.postgres import Postgres
from tests.support.usage import UsageServer, entry, export, message, requests
from tests.support.wait import wait_for

COUNTED = 'xds_usage_counted_total{outcome="counted"}'
DUPLICATE = 'xds_usage_counted_total{outcome="duplicate"}'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[UsageServer]:
    with UsageServer(tmp_path) as running:
        yield running


def test_a_message_that_is_sent_again_counts_once(server: UsageServer) -> None:
    payload = message([entry(), entry()])
    for _ in range(3):
        export(server.address, payload)
    wait_for(lambda: server.metric(DUPLICATE) == 4, "the duplicates")
    assert (server.requests(), server.metric(COUNTED)) == (2, 2)


def test_a_message_that_is_sent_again_after_a_kill_counts_once(server: UsageServer) -> None:
    payloads = [message([entry()]) for _ in range(20)]
    for payload in payloads:
        export(server.address, payload)
    server.stop(signal.SIGKILL)
    server.start()
    for payload in payloads:
        export(server.address, payload)
    server.export(entry())
    wait_for(lambda: server.requests() == 21, "the new entry")
    wait_for(lambda: server.metric(DUPLICATE) == 20, "the duplicates")


def test_an_entry_that_comes_again_in_another_message_counts_once(server: UsageServer) -> None:
    first, second = entry(), entry()
    server.export(first)
    server.stop(signal.SIGKILL)
    server.start()
    server.export(second, first)
    wait_for(lambda: server.metric(DUPLICATE) == 1, "the duplicate")
    assert server.requests() == 2


def test_what_is_acknowledged_is_counted_after_the_end(tmp_path: Path) -> None:
    with UsageServer(tmp_path) as server:
        server.export(*(entry() for _ in range(500)))
        assert server.stop() == 0
        assert requests(server.store) == 500


def test_bad_entries_are_rejected_and_the_others_taken(server: UsageServer) -> None:
    response = server.export(entry(), "forged\n" + entry(), entry(consumer="\x1b[2J"))
    assert response.partial_success.rejected_log_records == 2
    wait_for(lambda: server.requests() == 1, "the good entry")
    assert server.metric('xds_usage_entries_total{outcome="rejected"}') == 2
    with pytest.raises(grpc.RpcError) as failure:
        export(server.address, b"\xff\xff")
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert server.metric('xds_usage_exports_total{outcome="malformed"}') == 1


def test_a_full_spool_makes_envoys_keep_their_entries(tmp_path: Path) -> None:
    (tmp_path / "usage.db").mkdir()  # no store
    with UsageServer(tmp_path, "--spool-limit", "10KB") as server:
        server.says("the usage store failed")
        with pytest.raises(grpc.RpcError) as failure:
            _fill(server)
        assert failure.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        server.says("the usage spool is full")
        ready = httpx.get(f"http://{server.admin}/ready")
        assert (ready.status_code, ready.json()["because"]) == (503, ["the spool is full"])
        taken = server.metric('xds_usage_entries_total{outcome="taken"}')
        assert 9_000 < server.metric("xds_usage_spool_bytes") <= 10_000
        status = httpx.get(f"http://{server.admin}/status").json()
        assert status["store_failure"]
        (tmp_path / "usage.db").rmdir()
        wait_for(lambda: server.requests() == taken, "the entries in the new store")
        server.export(entry())
        assert httpx.get(f"http://{server.admin}/ready").status_code == 200


def _fill(server: UsageServer) -> None:
    for _ in range(200):
        server.export(entry())


def test_a_store_that_is_locked_delays_the_counts_and_no_export(server: UsageServer, tmp_path: Path) -> None:
    server.export(entry())
    wait_for(lambda: server.requests() == 1, "the first entry")
    lock = sqlite3.connect(tmp_path / "usage.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    for _ in range(10):
        server.export(entry())
    wait_for(lambda: server.metric("xds_usage_store_failures_total") >= 1, "the failure")
    wait_for(lambda: server.metric("xds_usage_oldest_seconds") > 1, "the age of the oldest entry")
    assert server.requests() == 1
    lock.execute("ROLLBACK")
    lock.close()
    wait_for(lambda: server.requests() == 11, "the counts")
    server.says("the usage store works again")


def test_a_store_that_is_replaced_gets_what_the_spool_still_has(server: UsageServer, tmp_path: Path) -> None:
    server.export(entry())
    wait_for(lambda: server.requests() == 1, "the entry")
    server.stop()
    for file in tmp_path.glob("usage.db*"):
        file.unlink()
    server.start()
    wait_for(lambda: server.requests() == 1, "the entry in the new store")


def test_two_servers_on_one_postgresql_add_up(tmp_path: Path) -> None:
    with (
        Postgres() as postgres,
        UsageServer(tmp_path / "a", store=postgres.url) as first,
        UsageServer(tmp_path / "b", store=postgres.url) as second,
    ):
        both = message([entry()])
        export(first.address, both)
        export(second.address, both)
        first.export(*(entry() for _ in range(10)))
        second.export(*(entry() for _ in range(10)))
        wait_for(lambda: requests(postgres.url) == 21, "the sum")
        wait_for(lambda: first.metric(DUPLICATE) + second.metric(DUPLICATE) == 1, "the duplicate")


def test_a_store_that_is_no_url_ends_the_command(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="ended with 2"):
        UsageServer(tmp_path, store="mysql://x").start()
