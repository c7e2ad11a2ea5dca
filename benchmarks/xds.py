"""The xDS server: from a change to its acknowledgement, many streams, reconnects, large states, the longest stall.

The clients run in a second process on the same machine. All times are the server's, up to the acknowledgement.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, ROUTE, ResourceType
from xds_server.processes import garbage_collector
from xds_server.serving.events import Acked, Connected, Disconnected, Event, Sent
from xds_server.serving.server import XdsServer
from xds_server.serving.store import Store

STREAMS_PER_CONNECTION = 10
CLUSTERS = 100


def _endpoints(changed: int) -> Snapshot:
    """Return the endpoints of 100 clusters. `changed` decides a port of the first one."""
    made = []
    for number in range(CLUSTERS):
        message = endpoint_pb2.ClusterLoadAssignment(cluster_name=f"cluster-{number}")
        for host in range(3):
            socket = message.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
            socket.address, socket.port_value = (
                f"10.0.{number}.{host}",
                8000 + (changed if number == 0 else 0),
            )
        made.append(Resource.of(message))
    return Snapshot.of({ENDPOINT: made})


def _routes(configurations: int, each: int, changed: int, epoch: int) -> Snapshot:
    """Return route configurations. The first `changed` of them differ in every epoch."""
    made = []
    for number in range(configurations):
        message = route_pb2.RouteConfiguration(name=f"routes-{number}")
        host = message.virtual_hosts.add(name="all", domains=["*"])
        for route in range(each):
            path = f"/api/{number}/{route}" + (f"/{epoch}" if number < changed else "")
            host.routes.add(
                match={"path_separated_prefix": path}, route={"cluster": "users", "timeout": {"seconds": 5}}
            )
        made.append(Resource.of(message))
    return Snapshot.of({ROUTE: made})


class Bench:
    """A server in this process, and clients in another process."""

    def __init__(self) -> None:
        self.store = Store(self._observe)
        self.server = XdsServer(self.store)
        self.connected = 0
        self.acked: list[Acked] = []
        self.sent: list[Sent] = []
        self._happened = asyncio.Event()
        self.port = 0
        self._clients: asyncio.subprocess.Process | None = None

    def _observe(self, event: Event) -> None:
        match event:
            case Connected():
                self.connected += 1
            case Disconnected():
                self.connected -= 1
            case Acked():
                self.acked.append(event)
            case Sent():
                self.sent.append(event)
        self._happened.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for events until the condition is true."""
        while not condition():
            self._happened.clear()
            await asyncio.wait_for(self._happened.wait(), 60)

    def forget(self) -> None:
        """Forget the events so far."""
        self.acked.clear()
        self.sent.clear()

    async def clients(self, streams: int, type_: ResourceType, answers: int = 1) -> None:
        """Connect clients, and wait until each has acknowledged its state in `answers` responses."""
        self._clients = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.xds", str(self.port), str(streams), type_.url),
            stdin=asyncio.subprocess.PIPE,
        )
        self.forget()
        await self.until(lambda: len(self.acked) >= streams * answers)

    async def reconnect(self) -> None:
        """Make every client close its stream and open another one with the state that it has."""
        assert self._clients is not None
        assert self._clients.stdin is not None
        self._clients.stdin.write(b"reconnect\n")
        await self._clients.stdin.drain()

    async def end(self) -> None:
        """End the clients."""
        if self._clients is not None:
            self._clients.terminate()
            await self._clients.wait()
            self._clients = None
            await self.until(lambda: self.connected == 0)

    async def change(self, snapshot: Snapshot, streams: int) -> list[float]:
        """Publish a snapshot. Returns the milliseconds until each stream acknowledged it."""
        self.forget()
        self.store.publish(snapshot)
        await self.until(lambda: len(self.acked) >= streams)
        return [event.convergence * 1000 for event in self.acked]


def _resident() -> int:
    """Return the resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def _run(measure: Callable[[Bench], Awaitable[None]]) -> None:
    bench = Bench()
    bench.port = await bench.server.start("127.0.0.1:0")
    try:
        await measure(bench)
    finally:
        await bench.end()
        await bench.server.stop()


async def _change_to_ack(bench: Bench) -> None:
    for streams, times in ((1, 100), (10, 50), (100, 20)):
        bench.store.publish(_endpoints(0))
        await bench.clients(streams, ENDPOINT)
        last = [max(await bench.change(_endpoints(n + 1), streams)) for n in range(times)]
        _row(f"change to the last ACK, {streams} streams", f"p50 {statistics.median(last):.1f} ms", last)
        await bench.end()


async def _thousand(bench: Bench) -> None:
    streams = 1000
    bench.store.publish(_endpoints(0))
    before = _resident()
    await bench.clients(streams, ENDPOINT)
    memory = (_resident() - before) / streams / 1024
    began = time.process_time()
    times = [one for n in range(10) for one in await bench.change(_endpoints(n + 1), streams)]
    used = (time.process_time() - began) / 10 / streams * 1e6
    _row(f"endpoint change to ACK, {streams} delta streams", f"p99 {_percentile(times, 0.99):.0f} ms", times)
    print(f"| … processor time of the server for each stream | {used:.0f} µs | |")
    print(f"| memory a stream, {CLUSTERS} names each | {memory:.1f} KiB | |")
    bench.forget()
    await bench.reconnect()
    await bench.until(lambda: bench.connected == 0)
    await bench.until(lambda: bench.connected == streams)
    await bench.until(lambda: len(bench.acked) >= streams)
    repeated = sum(event.resources for event in bench.sent)
    print(f"| {streams} reconnecting streams: resources sent again | {repeated} | |")


async def _changed_bytes(bench: Bench) -> None:
    bench.store.publish(_routes(100, 100, 1, 0))
    await bench.clients(1, ROUTE)
    changed = _routes(100, 100, 1, 1)
    await bench.change(changed, 1)
    size = len(changed[ROUTE]["routes-0"].body)
    share = sum(event.size for event in bench.sent) / size
    print(f"| 10,000 routes, 1 % changed: bytes sent per byte changed | {share:.3f} | {size} bytes changed |")


async def _stall(bench: Bench) -> None:
    """Measure by a ticker of one millisecond how long the event loop served no stream."""
    gaps: list[float] = []

    async def tick() -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.001)
            gaps.append((loop.time() - before) * 1000)

    for what, type_, answers, make in (
        ("10,000 routes in one resource", ROUTE, 1, lambda epoch: _routes(1, 10_000, 1, epoch)),
        ("3,000 clusters", CLUSTER, 6, _clusters),
    ):
        bench.store.publish(make(0))
        await bench.clients(1, type_, answers)
        states = [make(epoch) for epoch in range(1, 11)]
        gc.collect()  # objects that were built beforehand are not part of the measurement
        gaps.clear()
        ticking = asyncio.create_task(tick())
        times = [max(await bench.change(state, answers)) for state in states]
        ticking.cancel()
        size = sum(len(one.body) for one in states[0][type_].values()) / 1e6
        _row(f"{what} ({size:.1f} MB) to the last ACK", f"p50 {statistics.median(times):.0f} ms", times)
        print(f"| longest stall of other streams meanwhile | {max(gaps):.1f} ms | |")
        await bench.end()


def _clusters(epoch: int) -> Snapshot:
    """Return 3,000 clusters, all of which differ in every epoch."""
    made = []
    for number in range(3000):
        message = cluster_pb2.Cluster(name=f"cluster-{number}", type=cluster_pb2.Cluster.EDS)
        message.eds_cluster_config.eds_config.ads.SetInParent()
        message.connect_timeout.seconds = 1 + epoch
        made.append(Resource.of(message))
    return Snapshot.of({CLUSTER: made})


def _row(what: str, figure: str, values: list[float]) -> None:
    print(f"| {what} | {figure} | p99 {_percentile(values, 0.99):.1f} ms, max {max(values):.1f} ms |")


class _Client:
    """One stream after the other. Each begins with the state of the one before."""

    def __init__(self, stub: Any, url: str) -> None:
        self._stub = stub
        self._url = url
        self._versions: dict[str, str] = {}
        self._stream: Any = None

    async def run(self) -> None:
        """Accept everything until the process ends."""
        while True:
            self._stream = self._stub.DeltaAggregatedResources()
            with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await self._converse(self._stream)
            await asyncio.sleep(2)  # the server sees all clients leave before one connects

    async def _converse(self, stream: Any) -> None:
        subscription = discovery_pb2.DeltaDiscoveryRequest(
            type_url=self._url, resource_names_subscribe=["*"], initial_resource_versions=self._versions
        )
        await stream.write(subscription)
        while response := await stream.read():
            self._versions.update({one.name: one.version for one in response.resources})
            nonce = response.nonce
            await stream.write(discovery_pb2.DeltaDiscoveryRequest(type_url=self._url, response_nonce=nonce))

    def cut(self) -> None:
        """End the stream."""
        self._stream.cancel()


async def _clients(port: int, streams: int, url: str) -> None:
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    stubs = [
        ads_pb2_grpc.AggregatedDiscoveryServiceStub(grpc.aio.insecure_channel(f"127.0.0.1:{port}", options))
        for _ in range(0, streams, STREAMS_PER_CONNECTION)
    ]
    clients = [_Client(stubs[number // STREAMS_PER_CONNECTION], url) for number in range(streams)]
    tasks = [asyncio.create_task(one.run()) for one in clients]
    while await asyncio.to_thread(sys.stdin.readline):
        for one in clients:
            one.cut()
    await asyncio.gather(*tasks)


def main() -> None:
    """Print the table."""
    garbage_collector.tune()
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # the clients are another program, not a fork
    print("| xDS server | | |\n|---|---|---|")
    for measure in (_change_to_ack, _thousand, _changed_bytes, _stall):
        uvloop.run(_run(measure))


if __name__ == "__main__":
    uvloop.run(_clients(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
