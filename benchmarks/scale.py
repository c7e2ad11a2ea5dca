"""Thousands of simulated Envoys at the real control plane: memory, the time to all, stuck Envoys, and reconnect storms.

Each simulated Envoy has a connection of its own, the node message of a real Envoy, and a stream for load reports beside the one for
resources. They share the machine's processors with the control plane, so its own processor time is given too.
`SCALE_ENVOYS=100,1000 python -m benchmarks scale` measures other sizes.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import httpx
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from benchmarks import scale_gateway
from benchmarks.envoy_fleet import Fleet, Reached, Report
from benchmarks.load import cpu
from benchmarks.scale_gateway import marker
from benchmarks.tables import show
from tests.support.certificates import Authority
from tests.support.envoy import Envoy
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for
from tests.support.xds import bootstrap

SIZES = tuple(int(one) for one in os.environ.get("SCALE_ENVOYS", "100,1000,5000,10000").split(","))
OTHER = min(2000, SIZES[-1])
"""Envoys of the runs by the state of the world, with TLS, and with two replicas."""
ROUTES, UPSTREAMS = 100, 50
PROCESSES = 2
CHANGES = 3
STUCK = 0.01
"""The share of Envoys that stop reading."""
MIB = 1 << 20


class Bench:
    """A gateway in a folder, with a control plane, and simulated Envoys. Use as a context manager."""

    def __init__(self, root: Path, node: bytes, *, delta: bool = True, tls: bool = False) -> None:
        self.root, self.folder = root, root / "gateway"
        self.number = 0
        self._node, self._delta = node, delta
        self._files = _certificates(root) if tls else None
        scale_gateway.write(self.folder, 0, routes=ROUTES, upstreams=UPSTREAMS)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """Run a control plane."""
        flags = ["--no-proxy"]
        if self._files is not None:
            authority, certificate, key = map(str, self._files)
            flags += ["--certificate", certificate, "--private-key", key, "--ca", authority]
        with Running(self.folder, self.root, *flags) as control:
            control.says("gateway published")
            yield control

    def fleet(self, *controls: Running) -> Fleet:
        """Return simulated Envoys of these control planes."""
        ports = [control.xds_port for control in controls]
        return Fleet(ports, processes=PROCESSES, node=self._node, delta=self._delta, tls=self._files)

    def change(self) -> str:
        """Change a route on disk. Returns the marker that it has now."""
        self.number += 1
        scale_gateway.write(self.folder, self.number, routes=ROUTES, upstreams=UPSTREAMS)
        return marker(self.number)


@dataclass(frozen=True, slots=True)
class Changed:
    """Seconds from a change on disk until Envoys have acknowledged it, and of the control plane's processor time."""

    first: float
    median: float
    p99: float
    last: float
    used: float
    missing: int

    @classmethod
    def of(cls, reached: Reached, began: float, used: float) -> Changed:
        """Return the figures of one change."""
        times = sorted(one - began for one in reached.times)
        p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
        return cls(times[0], statistics.median(times), p99, times[-1], used, reached.missing)


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        node = _node_of_a_real_envoy(root)
        print(
            f"{ROUTES + 1} routes, {UPSTREAMS} upstreams with 3 endpoints, delta xDS without TLS, changes proved by an Envoy; the "
            f"node message has {len(node) / 1024:.0f} KiB; clients in {PROCESSES} processes\n"
        )
        grown = [_sized(root / f"delta-{size}", node, size) for size in SIZES]
        rows = [_other(root / kind, node, kind) for kind in ("delta", "sotw", "tls")]
        show(
            f"The other ways, {OTHER:,} Envoys",
            ("", *_HEADS_OF_START[1:], "change to the last", "CPU of that"),
            rows,
        )
        _replicas(root / "replicas", node)
    if any(problem for problem in grown):
        raise SystemExit("some Envoys had errors: " + "; ".join(filter(None, grown)))


_HEADS_OF_START = (
    "Envoys",
    "sent to each",
    "all served after",
    "CPU of it",
    "memory before",
    "memory for each",
    "peak",
)


_HEADS_OF_STORM = (
    *(
        "answers probes after",
        "half connected",
        "all connected",
        "a change meanwhile has reached all",
        "sent to each",
    ),
    *("CPU", "memory after", "peak"),
)


def _sized(root: Path, node: bytes, size: int) -> str:
    """Print the figures of one size of fleet. Returns the errors, empty if there were none."""
    root.mkdir()
    bench = Bench(root, node)
    with bench.running() as control, bench.fleet(control) as fleet:
        show(f"{size:,} Envoys that start at once", _HEADS_OF_START, [_start(control, fleet, size)])
        changes = [_change(bench, control, fleet) for _ in range(CHANGES)]
        hanging = max(1, int(size * STUCK) // PROCESSES)
        fleet.hang(hanging)
        stuck = [_change(bench, control, fleet, hanging) for _ in range(CHANGES)]
        fleet.hang(0)
        fleet.until(marker(bench.number))
        show(
            f"A changed route, {size:,} Envoys: medians of {CHANGES}",
            ("", "first", "median", "99 %", "last", "CPU of the control plane"),
            [
                ("all read", *_columns(changes)),
                (f"{hanging * PROCESSES} read nothing: the others", *_columns(stuck)),
            ],
        )
        errors = _errors(fleet.report(), size)
        show(
            f"The control plane is killed and started again, {size:,} Envoys",
            _HEADS_OF_STORM,
            [_storm(bench, control, fleet)],
        )
        errors += _errors(fleet.report(), size)
    return errors


def _start(control: Running, fleet: Fleet, size: int) -> tuple[str, ...]:
    """Start Envoys without state, all at once."""
    pid = _pid(control)
    before, used, began = _resident(pid), cpu(pid), time.monotonic()
    fleet.add(size)
    reached = fleet.until("complete")
    took = max(reached.times) - began
    wait_for(lambda: _current(control) == size, "the control plane to see them all as current")
    report, resident = fleet.report(), _resident(pid)
    assert not reached.missing
    assert not _errors(report, size)
    return (
        f"{size:,}",
        f"{report.bytes / size / 1024:.0f} KiB",
        f"{took:.1f} s",
        f"{cpu(pid) - used:.1f} s",
        f"{before / MIB:.0f} MiB",
        f"{(resident - before) / size / 1024:.0f} KiB",
        f"{_peak(pid) / MIB:.0f} MiB",
    )


def _change(bench: Bench, control: Running, fleet: Fleet, hanging: int = 0) -> Changed:
    pid = _pid(control)
    wait_for(lambda: _settled(pid), "the control plane to be idle")
    used, began = cpu(pid), time.monotonic()
    reached = fleet.until(bench.change(), missing=hanging)
    wait_for(lambda: _settled(pid), "the control plane to be idle")
    return Changed.of(reached, began, cpu(pid) - used)


def _columns(changes: Sequence[Changed]) -> tuple[str, ...]:
    names = ("first", "median", "p99", "last", "used")
    return tuple(f"{statistics.median(getattr(one, name) for one in changes):.2f} s" for name in names)


def _storm(bench: Bench, control: Running, fleet: Fleet) -> tuple[str, ...]:
    """Kill the control plane, start it again, and make a change when half of the Envoys are connected."""
    assert control.process is not None
    fleet.report()
    control.process.kill()
    control.process.wait()
    began = time.monotonic()
    control.start()
    listens = time.monotonic() - began
    fleet.half("connected")
    half = time.monotonic() - began
    changed = bench.change()
    connected = fleet.until("connected")
    all_connected = time.monotonic() - began
    reached = fleet.until(changed)
    assert not connected.missing
    assert not reached.missing
    wait_for(lambda: _current(control) == fleet.size, "the control plane to see them all as current")
    pid, received = _pid(control), fleet.report()
    assert not received.errors
    return (
        f"{listens:.1f} s",
        f"{half:.1f} s",
        f"{all_connected:.1f} s",
        f"{max(reached.times) - began:.1f} s",
        f"{received.resources / fleet.size:.2f} resources, {received.bytes / fleet.size / 1024:.0f} KiB",
        f"{cpu(pid):.1f} s",
        f"{_resident(pid) / MIB:.0f} MiB",
        f"{_peak(pid) / MIB:.0f} MiB",
    )


def _other(root: Path, node: bytes, kind: str) -> tuple[str, ...]:
    """Measure the start and a change by another protocol, or with mutual TLS."""
    root.mkdir()
    bench = Bench(root, node, delta=kind != "sotw", tls=kind == "tls")
    titles = {"delta": "delta xDS", "sotw": "state of the world", "tls": "delta xDS, mutual TLS"}
    with bench.running() as control, bench.fleet(control) as fleet:
        start = _start(control, fleet, OTHER)
        changes = [_change(bench, control, fleet) for _ in range(CHANGES)]
    columns = _columns(changes)
    return (titles[kind], *start[1:], columns[3], columns[4])


def _replicas(root: Path, node: bytes) -> None:
    """Print how the Envoys of one of two replicas go over to the other one when it is killed."""
    root.mkdir()
    bench = Bench(root, node)
    with bench.running() as first, bench.running() as second, bench.fleet(first, second) as fleet:
        fleet.add(OTHER)
        assert not fleet.until("complete").missing
        fleet.report()
        assert first.process is not None
        began = time.monotonic()
        first.process.kill()
        first.process.wait()
        wait_for(lambda: _current(second) == OTHER, "the other replica to have all Envoys", limit=120)
        took, report = time.monotonic() - began, fleet.report()
        reached = fleet.until(bench.change())
        assert not reached.missing
        show(
            f"One of two replicas is killed for good, {OTHER:,} Envoys",
            ("the other one has all after", "resources sent again", "memory of the other one"),
            [(f"{took:.1f} s", str(report.resources), f"{_resident(_pid(second)) / MIB:.0f} MiB")],
        )


def _errors(report: Report, size: int) -> str:
    """Return what is wrong with the Envoys: what they noted, and whether all have the same resources."""
    found = [f"{count} × {error}" for error, count in report.errors.items()]
    if len(report.states) != 1 or report.complete != size:
        found.append(f"{report.complete} of {size} Envoys complete, in {len(report.states)} different states")
    return "; ".join(found)


def _pid(control: Running) -> int:
    assert control.process is not None
    return control.process.pid


def _current(control: Running) -> int:
    """Return how many Envoys have everything, as the control plane sees it."""
    text = httpx.get(f"http://{control.admin}/metrics", timeout=30).text
    line = next((line for line in text.splitlines() if line.startswith('xds_envoys{state="current"}')), "")
    return int(float(line.rpartition(" ")[2] or 0))


def _settled(pid: int) -> bool:
    """True if a process used less than a tenth of a processor for half a second."""
    before = cpu(pid)
    time.sleep(0.5)
    return cpu(pid) - before < 0.05


def _status(pid: int, key: str) -> int:
    """Return bytes of proc(5), /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def _resident(pid: int) -> int:
    return _status(pid, "VmRSS")


def _peak(pid: int) -> int:
    return _status(pid, "VmHWM")


def _certificates(root: Path) -> tuple[Path, Path, Path]:
    """Write an authority's certificate, and one for servers and clients with its key."""
    authority = Authority()
    certificate, key = authority.issue("localhost")
    files = (root / "ca.pem", root / "certificate.pem", root / "key.pem")
    for file, content in zip(files, (authority.pem, certificate, key), strict=True):
        file.write_bytes(content)
    return files


def _node_of_a_real_envoy(root: Path) -> bytes:
    """Return the node message of the installed Envoy, with all of its extensions."""
    return asyncio.run(_asked(root))


async def _asked(root: Path) -> bytes:
    found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    class Service(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
        async def DeltaAggregatedResources(self, requests, _context):  # type: ignore[no-untyped-def] # noqa: N802
            request: discovery_pb2.DeltaDiscoveryRequest = await anext(requests)
            if not found.done():
                found.set_result(request.node.SerializeToString())
            yield discovery_pb2.DeltaDiscoveryResponse(type_url=request.type_url, nonce="1")

    server, port = grpc.aio.server(), free_port()
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(Service(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    with Envoy(bootstrap(port), root):
        node = await asyncio.wait_for(found, 60)
    await server.stop(0)
    return node
