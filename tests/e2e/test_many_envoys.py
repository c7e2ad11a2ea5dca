"""A fleet of simulated Envoys at the real control plane: the benchmark's own clients, a few of them."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from benchmarks.envoy_fleet import Fleet
from benchmarks.grpc_connection import GrpcConnection, request_headers
from benchmarks.scale_gateway import marker, write
from tests.support.running import Running
from tests.support.wait import eventually
from tests.support.xds import XdsThread
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER
from xds_server.processes import open_files

ENVOYS = 24


class _WithFewFiles(Running):
    """`xds run` whose limit of open files is so low that few Envoys can connect."""

    def __init__(self, folder: Path, logs: Path, files: int, *arguments: str) -> None:
        super().__init__(folder, logs, *arguments)
        self._command = ["sh", "-c", f'ulimit -n {files}; exec "$0" "$@"', *self._command]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "gateway", 0, routes=20, upstreams=5)
    return tmp_path / "gateway"


@pytest.fixture(params=[True, False], ids=["delta", "state of the world"])
def running(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Iterator[tuple[Running, Fleet]]:
    with (
        Running(folder, tmp_path, "--no-proxy", "--no-prove") as control,
        Fleet([control.xds_port], processes=2, delta=request.param) as fleet,
    ):
        fleet.add(ENVOYS)
        assert not fleet.until("complete", seconds=60).missing
        yield control, fleet


def _alike(fleet: Fleet) -> None:
    report = fleet.report()
    assert not report.errors
    assert list(report.states.values()) == [ENVOYS]


def test_a_change_reaches_all_envoys_though_some_read_nothing(
    running: tuple[Running, Fleet], folder: Path
) -> None:
    _, fleet = running
    _alike(fleet)
    fleet.hang(1)
    write(folder, 1, routes=20, upstreams=5)
    reached = fleet.until(marker(1), seconds=60, missing=1)
    assert len(reached.times) == ENVOYS - 2
    fleet.hang(0)
    assert not fleet.until(marker(1), seconds=60).missing
    _alike(fleet)


def test_after_a_kill_all_envoys_come_back_and_get_only_what_has_changed(
    running: tuple[Running, Fleet], folder: Path, request: pytest.FixtureRequest
) -> None:
    """By the state of the world, a client cannot say which endpoints and routes it has, so it gets them again."""
    control, fleet = running
    assert control.process is not None
    fleet.report()
    control.process.kill()
    control.process.wait()
    write(folder, 1, routes=20, upstreams=5)
    control.start()
    assert not fleet.until(marker(1), seconds=60).missing
    report = fleet.report()
    assert list(report.states.values()) == [ENVOYS]
    if request.node.callspec.params["running"]:
        assert report.resources == ENVOYS
    assert not report.errors


def test_too_few_open_files_are_reported_and_bound_the_streams(folder: Path, tmp_path: Path) -> None:
    files, most = open_files.RESERVED + 10, 10
    with (
        _WithFewFiles(folder, tmp_path, files, "--no-proxy", "--no-prove") as control,
        Fleet([control.xds_port], processes=1) as fleet,
    ):
        control.says(f"max_streams=20000 open_files={files} clients={most}")
        fleet.add(most + 2)
        control.says("rejected a client, because all streams are taken")
        assert len(fleet.until("complete", seconds=60, missing=2).times) == most
        endings = fleet.report().endings
        assert any(re.search(rf"grpc-status 8: .*limit of {most} streams", one) for one in endings)


STREAMS = 900
"""On each of two connections. By itself, gRPC cancels some of more than 1,000 streams that wait for the program."""


async def test_a_whole_fleet_may_wait_while_the_server_is_busy() -> None:
    """The event loop of the server stands still while the streams arrive."""
    answered, ended = list[int](), list[str]()
    with XdsThread(first_at_once=2 * STREAMS) as xds:
        xds.publish(Snapshot.of({CLUSTER: [Resource.from_bytes("a", b"")]}))
        busy = threading.Event()
        xds.call_soon(busy.wait)
        connections = [
            GrpcConnection(
                lambda stream, _message: answered.append(stream), lambda _stream, why: ended.append(why)
            )
            for _ in range(2)
        ]
        loop = asyncio.get_running_loop()
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER.url).SerializeToString()
        headers = request_headers(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
        )
        for one in connections:
            await loop.create_connection(lambda one=one: one, "127.0.0.1", xds.port)
            for _ in range(STREAMS):
                one.send(one.open(headers), request)
        for one in connections:
            await eventually(
                lambda one=one: one.transport.get_write_buffer_size() == 0, "all requests to be sent"
            )
        busy.set()
        await eventually(lambda: len(answered) + len(ended) >= 2 * STREAMS, "a response on every stream")
        for one in connections:
            one.close()
    assert not ended
