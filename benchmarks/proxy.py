"""The running gateway: the time until a changed file takes effect, and throughput compared with a hand-written Envoy."""

from __future__ import annotations

import http.client
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gateways import gateway, write
from benchmarks.tables import HEADS, row, show
from tests.support.envoy import Envoy
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for

CHANGES, SECONDS, ROUNDS, CONNECTIONS = 60, 3, 3, 32


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        times = sorted(_changes(Path(folder)))
    median, late = times[len(times) // 2], times[int(len(times) * 0.99)]
    rows = [row("p50", median * 1000, 20, " ms"), row("p99", late * 1000, 40, " ms")]
    title = f"A changed file of 1,000 routes → the first response by the new rules ({CHANGES} changes)"
    show(title, HEADS, rows)
    if shutil.which("h2load") is None:
        print("Throughput is not measured: h2load is missing (package nghttp2-client).\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = _throughput(Path(folder))
    rows = [
        ("hand-written static Envoy", f"{theirs:,.0f}/s", "", ""),
        ("the quick start's route", f"{ours:,.0f}/s", "", ""),
        row("share", ours / theirs, 0.9, "", least=True),
    ]
    show(f"Requests forwarded by one worker, {CONNECTIONS} connections", HEADS, rows)


def _changes(folder: Path) -> list[float]:
    """Return the seconds from writing a file to the first response that shows it. Requests never pause."""
    port = free_port()
    texts = gateway(1_000, 100, 20)
    texts["gateway.yaml"] = f"listeners:\n  http: {{port: {port}, address: 127.0.0.1}}\n"
    write(folder / "gateway", {**texts, "probe.yaml": _probe(0)})
    with Running(folder / "gateway", folder):
        wait_for(lambda: _answer(http.client.HTTPConnection("127.0.0.1", port)) == b"0", "the gateway")
        connection = http.client.HTTPConnection("127.0.0.1", port)
        return [_change(folder, connection, number) for number in range(1, CHANGES + 1)]


def _probe(number: int) -> str:
    return f"routes:\n  probe: {{path: /probe, respond: {{body: '{number}'}}}}\n"


def _change(folder: Path, connection: http.client.HTTPConnection, number: int) -> float:
    time.sleep(0.15)
    prepared = folder / "probe.yaml"
    prepared.write_text(_probe(number))
    start = time.perf_counter()
    prepared.rename(folder / "gateway" / "probe.yaml")
    while _answer(connection) != str(number).encode():
        assert time.perf_counter() - start < 10, "the change decides within seconds"
    return time.perf_counter() - start


def _answer(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/probe")
    return connection.getresponse().read()


def _throughput(folder: Path) -> tuple[float, float]:
    """Return the median requests per second of the gateway and of the hand-written Envoy, which take turns."""
    backend, plain, port = free_port(), free_port(), free_port()
    write(folder / "gateway", {"gateway.yaml": QUICKSTART.format(port=port, backend=backend)})
    respond = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x"}}}]
    forward = [
        {"match": {"prefix": "/api/users/"}, "route": {"cluster": "users", "prefix_rewrite": "/users/"}}
    ]
    with (
        Envoy(static(backend, respond), folder),
        Envoy(static(plain, forward, backend), folder),
        Running(folder / "gateway", folder),
    ):
        for one in (plain, port):
            address = ("127.0.0.1", one)
            wait_for(lambda address=address: _status(*address) == 200, "the proxy")
        turns = [(_rate(port), _rate(plain)) for _ in range(ROUNDS)]
    ours, theirs = zip(*turns, strict=True)
    return statistics.median(ours), statistics.median(theirs)


QUICKSTART = """
listeners:
  http: {{port: {port}, address: 127.0.0.1}}
upstreams:
  users: {{endpoints: ['127.0.0.1:{backend}']}}
  orders: {{endpoints: ['127.0.0.1:{backend}']}}
routes:
  users: {{path: /api/users/*, upstream: users, rewrite: {{path: /users/*}}}}
  orders: {{path: /api/orders/*, methods: [GET, POST], upstream: orders, rewrite: {{path: /orders/*}}}}
  admin: {{hosts: [admin.localhost], path: /*, upstream: users}}
  health: {{path: /health, respond: {{status: 200, body: {{status: ok}}}}}}
"""


def _status(host: str, port: int) -> int:
    connection = http.client.HTTPConnection(host, port)
    connection.request("GET", "/api/users/1")
    return connection.getresponse().status


def _rate(port: int) -> float:
    command = ["h2load", "--h1", "-t", "1", "-c", str(CONNECTIONS), "-D", str(SECONDS), "--warm-up-time", "1"]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/api/users/1"], capture_output=True, text=True, check=True
    )
    found = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
    assert found is not None, done.stdout
    assert re.search(r"0 failed, 0 errored, 0 timeout", done.stdout), done.stdout
    return float(found[1])


def static(port: int, routes: list[dict[str, Any]], backend: int | None = None) -> dict[str, Any]:
    """Return the smallest bootstrap that serves these routes."""
    extensions = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{extensions}.http.router.v3.Router"},
            }
        ],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    listener = {"name": "http", "address": _address(port), "filter_chains": [chain]}
    endpoint = {"endpoint": {"address": _address(backend or port)}}
    assignment = {"cluster_name": "users", "endpoints": [{"lb_endpoints": [endpoint]}]}
    cluster = {"name": "users", "type": "STATIC", "load_assignment": assignment}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
