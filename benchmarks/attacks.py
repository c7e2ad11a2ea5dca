"""A well-behaved client beside attackers: its times without an attack and during each. Everything is on loopback and bounded."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx

from benchmarks.json_service import json_service
from benchmarks.tables import HEADS, show
from tests.support import attacks
from tests.support.folder import write
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for

SECONDS = 6.0
"""How long each attack is repeated."""
GAP = 0.005
"""Seconds between two requests of the client."""
FACTOR = 2.0
"""How much longer the client's p99 may be."""
GATEWAY = """
listeners: {{http: {{port: {port}, address: 127.0.0.1, timeouts: {{headers: 2s}}}}}}
upstreams: {{service: {{endpoints: ["127.0.0.1:{service}"]}}}}
routes:
  plain: {{path: /plain, upstream: service}}
  cached: {{path: /cached, upstream: service, policies: {{cache: 1h}}}}
"""
Attack = Callable[[int], Coroutine[Any, Any, Any]]


def _many_headers(port: int) -> Coroutine[Any, Any, Any]:
    text = attacks.get("/plain", *(b"x-%d: a" % number for number in range(200)))
    return attacks.requests(port, [text] * 200)


def _unique_queries(port: int) -> Coroutine[Any, Any, Any]:
    begin = time.time_ns()
    return attacks.requests(port, (attacks.get(f"/cached?bust={begin + number}") for number in range(200)))


ATTACKS: dict[str, Attack] = {
    "500 connections with slow headers": lambda port: attacks.slow_headers(port, 500),
    "streams of HTTP/2 that are reset": lambda port: attacks.rapid_resets(port, 5000, "/plain"),
    "requests with 200 headers": _many_headers,
    "a new query each time, at a cached route": _unique_queries,
}


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        service, port = stack.enter_context(json_service({"answer": "x" * 500})), free_port()
        folder = Path(name) / "gateway"
        write(folder, gateway=GATEWAY.format(port=port, service=service))
        stack.enter_context(Running(folder, Path(name)))
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/plain").status_code == 200, "the route")
        calm = _beside(port, None)
        rows = [("no attack", *_shown(calm), "", "")]
        for title, attack in ATTACKS.items():
            took = _beside(port, attack)
            factor = _p99(took) / _p99(calm)
            rows.append(
                (title, *_shown(took), f"{factor:.1f} of ≤ {FACTOR:g}", "yes" if factor <= FACTOR else "NO")
            )
    show("A well-behaved client beside an attack", ("", "p50", "p99", "p99 to that without", HEADS[-1]), rows)


def _beside(port: int, attack: Attack | None) -> list[float]:
    """The times of a client's requests, in seconds, while an attack of another process goes on."""
    process = multiprocessing.get_context("fork").Process(target=_attack, args=(port, attack), daemon=True)
    process.start()
    try:
        return asyncio.run(_client(port))
    finally:
        process.kill()
        process.join()


def _attack(port: int, attack: Attack | None) -> None:
    os.nice(19)  # attackers have machines of their own; here they only get what is left of this one
    end = time.monotonic() + SECONDS
    while attack is not None and time.monotonic() < end:
        asyncio.run(attack(port))


async def _client(port: int) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(0.5)
    end, took = time.monotonic() + SECONDS - 1, []
    while time.monotonic() < end:
        begun = time.perf_counter()
        writer.write(b"GET /plain HTTP/1.1\r\nhost: a\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200"), head
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        took.append(time.perf_counter() - begun)
        await asyncio.sleep(GAP)
    writer.close()
    return took


def _p99(took: list[float]) -> float:
    return statistics.quantiles(took, n=100)[98]


def _shown(took: list[float]) -> tuple[str, str]:
    return f"{statistics.median(took) * 1000:.2f} ms", f"{_p99(took) * 1000:.2f} ms"
