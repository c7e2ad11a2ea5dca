"""Telemetry: the cost of logs, metrics, traces and usage for a forwarded request, and the pages of the console.

All gateways take turns. It measures processor time too, because other work on the machine hardly affects it.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from benchmarks.load import Measured, get, measure
from benchmarks.proxy import static
from benchmarks.tables import HEADS, row, show
from tests.support.collector import Collector
from tests.support.envoy import Envoy
from tests.support.folder import write
from tests.support.gateway import Gateway
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.usage import UsageServer
from tests.support.wait import wait_for
from xds_server.translate.usage_entry import SERVICE

ROUNDS, SECONDS = 7, 2.0
LOG, METRICS, USAGE = (
    "access_logs: {lines: {to: {file: /dev/null}}}",
    "metrics: true",
    "usage: true",
)
TRACING = "tracing: {upstream: collector, sample: 1%}"
CONDITIONS = "… with conditions of another route"
CASES = {
    "JSON access log": ((LOG,), 0.93),
    CONDITIONS: ((LOG,), 0.0),
    "metrics by route": ((METRICS,), 0.98),
    "traces at 1 %": ((TRACING,), 0.97),
    "usage": ((USAGE,), 0.90),
    "all four": ((LOG, METRICS, TRACING, USAGE), 0.82),
}
ROUTES, PAGES = 1000, 200
PAGE_TARGET = 50
"""Milliseconds."""


def main() -> None:
    """Print the tables."""
    with ExitStack() as stack:
        _of_requests(stack)
    _console()


def _of_requests(stack: ExitStack) -> None:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    backend = free_port()
    answer = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x"}}}]
    stack.enter_context(Envoy(static(backend, answer), folder))
    collector = stack.enter_context(Collector())
    usage = stack.enter_context(UsageServer(folder / "usage"))
    gateways = {"": _gateway(folder, "", backend, collector, usage, ())}
    for name, (keys, _) in CASES.items():
        gateways[name] = _gateway(folder, name, backend, collector, usage, keys)
    for gateway in gateways.values():
        stack.enter_context(gateway)
    turns = [{name: _asked(gateway) for name, gateway in gateways.items()} for _ in range(ROUNDS)]
    bare = min(turn[""].cpu_microseconds for turn in turns)
    rows = []
    for name, (_, target) in CASES.items():
        share = statistics.median(turn[name].rate / turn[""].rate for turn in turns)
        what = f"{name}: share of requests/s"
        rows.append(row(what, share, target, "", least=True) if target else (what, f"{share:.3g}", "", ""))
        cost = min(turn[name].cpu_microseconds for turn in turns)
        rows.append((f"{name}: processor time of Envoy, {bare:.1f} µs without", f"{cost:.1f} µs", "", ""))
    show(f"Telemetry: a forwarded request, {ROUNDS} turns each, one worker of Envoy", HEADS, rows)


def _gateway(
    folder: Path, name: str, backend: int, collector: Collector, usage: UsageServer, keys: tuple[str, ...]
) -> Gateway:
    text = f"""
listeners: {{http: {{port: {free_port()}, address: 127.0.0.1}}}}
upstreams:
  backend: {{endpoints: ["127.0.0.1:{backend}"]}}
  collector: {{endpoints: ["{collector.address}"], protocol: grpc}}
routes:
  all: {{path: /*, upstream: backend}}
"""
    if name == CONDITIONS:
        text += "  other: {path: /other, respond: {status: 200}, policies: {access_log: off}}\n"
    text += "telemetry:\n" + "".join(f"  {key}\n" for key in keys) if keys else ""
    return Gateway(
        write(folder / re.sub(r"\W", "-", name or "plain"), gateway=text),
        folder,
        services={SERVICE: usage.address},
    )


def _asked(gateway: Gateway) -> Measured:
    assert gateway.envoy.process is not None
    return measure(gateway.port, [get("/x")], gateway.envoy.process.pid, seconds=SECONDS)


def _console() -> None:
    """Print how long the pages of the console take with many routes."""
    with tempfile.TemporaryDirectory() as name:
        folder, port, console = Path(name), free_port(), free_port()
        routes = "".join(
            f"  r{number}: {{path: /api/{number}/*, upstream: one, policies: {{rate_limit: 100/minute}}}}\n"
            for number in range(ROUTES)
        )
        write(
            folder / "gateway",
            gateway=f"listeners: {{http: {{port: {port}, address: 127.0.0.1}}}}\n"
            f"upstreams: {{one: {{endpoints: ['127.0.0.1:9']}}}}\ntelemetry: {{metrics: true}}\nroutes:\n{routes}",
        )
        rows = []
        with Running(folder / "gateway", folder, "--console", f"127.0.0.1:{console}") as running:
            running.says("ready http")
            with httpx.Client(base_url=f"http://127.0.0.1:{console}", timeout=30) as client:
                wait_for(lambda: client.get("/").status_code == 200, "the console")
                for path in (
                    "/",
                    "/routes/r7",
                    f"/try?method=GET&url=http://localhost:{port}/api/7/x",
                    "/envoys",
                ):
                    took = sorted(_milliseconds(client, path) for _ in range(PAGES))
                    rows.append(
                        row(
                            f"{path.partition('?')[0]}: p99",
                            took[round(0.99 * PAGES) - 1],
                            PAGE_TARGET,
                            " ms",
                        )
                    )
        show(f"Console: {PAGES} requests of each page with {ROUTES:,} routes", HEADS, rows)


def _milliseconds(client: httpx.Client, path: str) -> float:
    began = time.perf_counter()
    assert client.get(path).status_code == 200
    return (time.perf_counter() - began) * 1000
