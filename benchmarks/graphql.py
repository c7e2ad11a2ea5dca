"""GraphQL: what a query of 20 fields and 3 calls adds to its slowest call, and what planning costs the second time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import uvloop

from benchmarks.composer import HELD, UNDER_WAY, descendants, memory
from benchmarks.json_service import json_service
from benchmarks.tables import HEADS, show
from filters.graphql.operations import Operations
from filters.graphql.schema import SdlDocument, read
from filters.graphql.settings import GraphqlLimits
from tests.support.folder import write
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for

DELAY = 0.01
"""Seconds that the service takes for each call."""
TURNS, PARTS, WARM = 400, 8, 5
"""Requests of each client, in as many parts, and those at the beginning of a part that do not count."""
CLIENTS = (1, 4)
FIELDS = "abcdef"
SDL = f"""
type Query {{
  user: Thing @rest(upstream: "service", path: "/user")
  orders: Thing @rest(upstream: "service", path: "/orders")
  more: Thing @rest(upstream: "service", path: "/more")
  held: Thing @rest(upstream: "service", path: "/held")
}}
type Thing {{ {" ".join(f"{one}: String" for one in FIELDS)} }}
"""
QUERY = "{" + " ".join(f"{name} {{ {' '.join(FIELDS)} }}" for name in ("user", "orders", "more")) + "}"
"""21 fields, and 3 calls."""
HELD_QUERY = QUERY.replace("more", "held")
GATEWAY = """
listeners: {{http: {{port: {port}, address: 127.0.0.1}}}}
upstreams: {{service: {{endpoints: ["127.0.0.1:{service}"]}}}}
routes:
  graphql: {{path: /graphql, graphql: {{schema: schema.graphql}}}}
  rest: {{path: /user, upstream: service}}
"""


def main() -> None:
    """Print the table."""
    first, second = _planning()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        service, port = (
            stack.enter_context(
                json_service(dict.fromkeys(FIELDS, "x" * 300), {b" /held ": HELD, b" ": DELAY})
            ),
            free_port(),
        )
        folder = Path(name) / "gateway"
        write(folder, gateway=GATEWAY.format(port=port, service=service))
        (folder / "schema.graphql").write_text(SDL)
        running = stack.enter_context(Running(folder, Path(name)))
        url = f"http://127.0.0.1:{port}/graphql"
        wait_for(lambda: httpx.post(url, json={"query": QUERY}).status_code == 200, "the route")
        assert running.process is not None
        supervisor = running.process.pid
        held = uvloop.run(memory((port, lambda: descendants(supervisor)), _post(HELD_QUERY)))
        found = {clients: uvloop.run(_latencies(service, port, clients)) for clients in CLIENTS}
    rows: list[tuple[str, ...]] = []
    for clients, (direct, called, asked) in found.items():
        added = (asked - called) * 1000
        rows += [
            (f"{clients} at a time: a call to the service itself, p50", f"{direct * 1000:.2f} ms", "", ""),
            ("the same call through Envoy, p50", f"{called * 1000:.2f} ms", "", ""),
            ("the query of 3 such calls, p50", f"{asked * 1000:.2f} ms", "", ""),
            ("added to the slowest call", f"{added:.2f} ms", "≤ 2 ms", "yes" if added <= 2 else "no"),
        ]
    rows += [
        ("planning, the first time", f"{first * 1e6:.0f} µs", "", ""),
        ("planning, the second time", f"{second * 1e6:.2f} µs", "", ""),
        ("faster by", f"{first / second:,.0f}", "≥ 5", "yes" if first / second >= 5 else "no"),
        (
            f"memory of a worker at {UNDER_WAY:,} queries of 3 calls",
            f"{held:.0f} MiB",
            "≤ 120 MiB",
            "yes" if held <= 120 else "no",
        ),
    ]
    show(f"GraphQL: a query of 21 fields and 3 calls ({TURNS} turns)", HEADS, rows)


def _planning() -> tuple[float, float]:
    """Return the seconds for a document that was not seen before, and for one that was."""
    operations = Operations(read([SdlDocument(name="benchmark", text=SDL)]), GraphqlLimits())
    first, second = [], []
    for turn in range(TURNS):
        text = f"query Q{turn} {QUERY}"
        for found in (first, second):
            begun = time.perf_counter()
            operations.prepare(text).cost({})
            found.append(time.perf_counter() - begun)
    return statistics.median(first), statistics.median(second)


async def _latencies(service: int, port: int, clients: int) -> tuple[float, ...]:
    """Return the medians of the call to the service, of that through Envoy, and of the query, in turns."""
    get = b"GET /user HTTP/1.1\r\nhost: a\r\n\r\n"
    sent = ((service, get), (port, get), (port, _post(QUERY)))
    took: list[list[float]] = [[], [], []]
    for _ in range(PARTS):
        for (where, request), found in zip(sent, took, strict=True):
            found += await _asked(where, request, clients)
    return tuple(map(statistics.median, took))


def _post(query: str) -> bytes:
    body = json.dumps({"query": query}).encode()
    head = f"POST /graphql HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _asked(port: int, request: bytes, clients: int) -> list[float]:
    """Send a request again and again over as many connections as there are clients. Returns the times, in seconds."""
    took: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for turn in range(TURNS // PARTS + WARM):
            begun = time.perf_counter()
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            if turn >= WARM:
                took.append(time.perf_counter() - begun)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return took
