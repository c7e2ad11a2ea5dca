"""An aggregate of three calls of 2 KB, beside KrakenD or its engine Lura, per second of processor time.

``KRAKEND=/path/to/krakend python -m benchmarks composer`` runs ``krakend run -c FILE``; with ``LURA=/path/to/program`` it runs
``program FILE``, for a main function around the engine of KrakenD (docs/explanation/performance.md has it).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvloop

from benchmarks.json_service import json_service
from benchmarks.load import cpu, get, measure
from benchmarks.tables import HEADS, show
from tests.support.folder import write
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for

SECONDS, TURNS = 3, 5
RATE, LONG = 200, 8
"""Requests per second, and seconds, for the 99th percentile."""
UNDER_WAY, HELD = 1000, 4.0
"""Requests at once, and the seconds for which services hold their answers, for the memory."""
TARGET = 0.3
"""The share of KrakenD's requests per second of processor time."""
NAMES = ("user", "orders", "more")
_ITEM = {"id": 4711, "name": "a name", "price": 12.50, "tags": ["a", "b"], "note": "y" * 20}
_CONTENT = {"id": 7, "items": [_ITEM | {"id": one} for one in range(20)]}
"""What each service answers: 2 KB."""
GATEWAY = """
listeners: {{http: {{port: {port}, address: 127.0.0.1}}}}
upstreams:
  user: {{endpoints: ["127.0.0.1:{user}"], circuit_breaker: {{max_connections: 4000, max_pending: 4000, max_requests: 4000}}}}
  orders: {{endpoints: ["127.0.0.1:{orders}"], circuit_breaker: {{max_connections: 4000, max_pending: 4000, max_requests: 4000}}}}
  more: {{endpoints: ["127.0.0.1:{more}"], circuit_breaker: {{max_connections: 4000, max_pending: 4000, max_requests: 4000}}}}
routes:
  home:
    path: /home
    aggregate:
      calls:
        user: {{upstream: user, path: /user, group: user}}
        orders: {{upstream: orders, path: /orders, group: orders}}
        more: {{upstream: more, path: /more, group: more}}
  held:
    path: /held
    timeout: 60s
    aggregate:
      calls:
        user: {{upstream: user, path: /held, group: user}}
        orders: {{upstream: orders, path: /held, group: orders}}
        more: {{upstream: more, path: /held, group: more}}
"""
Processes = Callable[[], list[int]]


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        ports = {one: stack.enter_context(json_service(_CONTENT, {b" /held ": HELD})) for one in NAMES}
        running = {"composer": stack.enter_context(_ours(folder, ports))}
        for variable, arguments in (("KRAKEND", ("run", "-c")), ("LURA", ())):
            program = os.environ.get(variable)
            if program:
                command = [program, *arguments]
                running[variable.capitalize()] = stack.enter_context(_theirs(folder, command, ports))
        rates = _rates(running)
        late = _late(running)
        held = uvloop.run(memory(running["composer"], get("/held")))
    rows = [
        (f"{name}: requests per second of processor time", f"{statistics.median(one):,.0f}", "", "")
        for name, one in rates.items()
    ]
    for name in rates.keys() - {"composer"}:
        shares = [mine / theirs for mine, theirs in zip(rates["composer"], rates[name], strict=True)]
        found = f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
        rows.append(
            (f"share of {name}", found, f"≥ {TARGET}", "yes" if statistics.median(shares) >= TARGET else "NO")
        )
        ratio = statistics.median(
            mine / theirs for mine, theirs in zip(late["composer"], late[name], strict=True)
        )
        rows.append(
            (f"p99 at {RATE}/s beside {name}", f"{ratio:.2f}", "≤ 1.5", "yes" if ratio <= 1.5 else "NO")
        )
    rows += [
        (f"{name}: p99 at {RATE}/s", f"{statistics.median(one) * 1000:.1f} ms", "", "")
        for name, one in late.items()
    ]
    rows.append(
        (
            f"memory of a worker at {UNDER_WAY:,} requests",
            f"{held:.0f} MiB",
            "≤ 120 MiB",
            "yes" if held <= 120 else "NO",
        )
    )
    if len(rates) == 1:
        print("KrakenD is not measured: KRAKEND and LURA name no program.\n")
    show(f"An aggregate of three calls of 2 KB (medians of {TURNS} turns)", HEADS, rows)


def _rates(running: dict[str, tuple[int, Processes]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(TURNS + 1):
        for name, (port, processes) in running.items():
            before = sum(map(cpu, processes()))
            measured = measure(port, [get("/home")], os.getpid(), seconds=SECONDS)
            used = sum(map(cpu, processes())) - before
            # the client warms up for 0.3 s, which both sides work too
            requests = measured.rate * (SECONDS + 0.3)
            if turn:
                found[name].append(requests / used)
    return found


def _late(running: dict[str, tuple[int, Processes]]) -> dict[str, list[float]]:
    """Return the 99th percentiles of each, which take turns."""
    found: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(TURNS):
        for name, (port, _processes) in running.items():
            found[name].append(uvloop.run(_p99(port)))
    return found


async def _p99(port: int) -> float:
    """Return the 99th percentile in seconds, of requests that begin at a constant rate."""
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    took: list[float] = []

    async def one() -> None:
        due = time.perf_counter()
        reader, writer = free.pop() if free else await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/home"))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"content-length: " in head:
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        else:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        took.append(time.perf_counter() - due)
        free.append((reader, writer))

    begin = time.perf_counter() + 0.1
    tasks = []
    for number in range(RATE * LONG):
        due = begin + number / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    return statistics.quantiles(took[RATE:], n=100)[98]


async def memory(composer: tuple[int, Processes], request: bytes) -> float:
    """Return the largest resident memory of a worker in MiB, while requests are under way that services hold."""
    port, processes = composer

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(head.decode())
        writer.close()

    tasks = [asyncio.create_task(one()) for _ in range(UNDER_WAY)]
    await asyncio.sleep(HELD / 2)
    found = max(map(_resident, processes()[1:]))
    await asyncio.gather(*tasks)
    return found


def _resident(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


@contextlib.contextmanager
def _ours(folder: Path, ports: dict[str, int]) -> Iterator[tuple[int, Processes]]:
    port = free_port()
    write(folder / "gateway", gateway=GATEWAY.format(port=port, **ports))
    with Running(folder / "gateway", folder) as running:
        wait_for(lambda: get_json(port), lambda: f"the aggregate\n{running.log[-2000:]}")
        yield port, lambda: [running.envoy(), *descendants(running.process.pid if running.process else 0)]


def get_json(port: int) -> object:
    """The response of a gateway."""
    import httpx

    response = httpx.get(f"http://127.0.0.1:{port}/home")
    return response.status_code == 200 and sorted(response.json()) == sorted(NAMES)


def descendants(process: int) -> list[int]:
    """The processes of the composer: its supervisor and its children."""
    children = [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    found = []
    for child in children:
        if b"composer\0" in Path(f"/proc/{child}/cmdline").read_bytes():
            text = Path(f"/proc/{child}/task/{child}/children").read_text()
            found += [child, *map(int, text.split())]
    return found


@contextlib.contextmanager
def _theirs(folder: Path, command: list[str], ports: dict[str, int]) -> Iterator[tuple[int, Processes]]:
    port = free_port()
    backends = [
        {"url_pattern": f"/{name}", "host": [f"http://127.0.0.1:{ports[name]}"], "group": name}
        for name in NAMES
    ]
    settings = {
        "version": 3,
        "port": port,
        "timeout": "3s",
        "max_idle_connections_per_host": 256,
        "endpoints": [{"endpoint": "/home", "backend": backends}],
    }
    file = folder / f"{Path(command[0]).name}.json"
    file.write_text(json.dumps(settings))
    environment = {**os.environ, "GOMAXPROCS": "1", "GIN_MODE": "release"}
    with (folder / "theirs.log").open("wb") as log:
        process = subprocess.Popen([*command, str(file)], stdout=log, stderr=log, env=environment)
    try:
        wait_for(lambda: get_json(port), "the other gateway")
        yield port, lambda: [process.pid]
    finally:
        process.terminate()
        process.wait()
