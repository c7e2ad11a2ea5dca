"""Usage: entries that one usage server takes, their way into SQLite, and what they cost a request.

It measures processor time, because other work on the machine hardly affects it.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import grpc
import httpx

from benchmarks.load import Measured, cpu, get, measure
from benchmarks.proxy import static
from benchmarks.tables import HEADS, row, show
from protos.usage_pb2 import ExportLogsServiceRequest
from tests.support.envoy import Envoy
from tests.support.folder import write
from tests.support.gateway import Gateway
from tests.support.ports import free_port
from tests.support.usage import UsageServer
from tests.support.wait import wait_for
from xds_server.translate.usage_entry import SERVICE
from xds_server.usage import rollup, spool_format
from xds_server.usage.rollup import Batch, Seen
from xds_server.usage.service import EXPORT
from xds_server.usage.spool import Position
from xds_server.usage.store import Question, Store

ROUNDS, SECONDS = 5, 2.0
IN_FLIGHT = 500
"""Messages without a response, as after an outage."""
BATCH = 130
"""Entries of a message: about as many as Envoy sends when its buffer is full."""
SENT, ROLLED = 1_000_000, 10_000_000
CONSUMERS, ROUTES = 200, 50
STATUSES = {200: 90, 201: 3, 304: 2, 404: 2, 429: 2, 503: 1}
"""Statuses and their percentages."""


def main() -> None:
    """Print the tables."""
    _of_requests()
    rate, peak = _taken()
    show(
        f"Usage: {SENT:,} entries of {CONSUMERS} consumers and {ROUTES} routes",
        HEADS,
        [
            row(
                "entries/s that a usage server takes and counts, for each core", rate, 60_000, "", least=True
            ),
            row("its memory at most", peak, 120, " MiB"),
            row(f"processor time to roll up {ROLLED:,} entries in SQLite", _rolled(), 120, " s"),
        ],
    )


def _of_requests() -> None:
    """Print the cost of usage for a request of a route that Envoy answers itself, and of one that it forwards."""
    rows = []
    with ExitStack() as around:
        folder = Path(around.enter_context(tempfile.TemporaryDirectory()))
        backend = free_port()
        answer = [
            {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x"}}}
        ]
        around.enter_context(Envoy(static(backend, answer), folder))
        server = around.enter_context(UsageServer(folder / "usage"))
        plain, counted = (
            around.enter_context(_gateway(folder, backend, usage, server.address)) for usage in (False, True)
        )
        assert server.process is not None
        for path, what in (("/own", "Envoy answers itself"), ("/forwarded", "forwarded")):
            turns = [(_asked(plain, path), _asked(counted, path)) for _ in range(ROUNDS)]
            share = median(counted.rate / plain.rate for plain, counted in turns)
            costs = [
                min(one.cpu_microseconds for one in some)
                for some in ([turn[0] for turn in turns], [turn[1] for turn in turns])
            ]
            rows += [
                row(
                    f"{what}: share of requests/s with usage",
                    share,
                    0.9,
                    "",
                    least=True,
                ),
                (f"{what}: processor time of Envoy without usage", f"{costs[0]:.1f} µs", "", ""),
                (f"{what}: processor time of Envoy with usage", f"{costs[1]:.1f} µs", "", ""),
            ]
    show(f"Usage: {ROUNDS} turns each, one worker of Envoy", HEADS, rows)


def _asked(gateway: Gateway, path: str) -> Measured:
    assert gateway.envoy.process is not None
    return measure(gateway.port, [get(path)], gateway.envoy.process.pid, seconds=SECONDS)


def _gateway(folder: Path, backend: int, usage: bool, address: str) -> Gateway:
    text = f"""
listeners: {{http: {{port: {free_port()}, address: 127.0.0.1}}}}
telemetry: {{{"usage: true" if usage else ""}}}
upstreams: {{backend: {{endpoints: ["127.0.0.1:{backend}"]}}}}
routes:
  own: {{path: /own, respond: {{body: x}}}}
  forwarded: {{path: /forwarded, upstream: backend}}
"""
    return Gateway(write(folder / f"gateway-{usage}", gateway=text), folder, services={SERVICE: address})


def _entries(number: int, chance: random.Random, now: int) -> list[bytes]:
    """Return entries of which few consumers and routes have most, as it is with real ones."""
    consumers = chance.choices(range(CONSUMERS), [1 / (1 + one) for one in range(CONSUMERS)], k=number)
    routes = chance.choices(range(ROUTES), [1 / (1 + one) for one in range(ROUTES)], k=number)
    statuses = chance.choices(*zip(*STATUSES.items(), strict=True), k=number)
    return [
        b"1\t%b\t%d\t%d\t%d\t%d\t%d\troute-%d\tconsumer-%d\tplan-%d"
        % (
            _uuid(chance),
            now - chance.randrange(60),
            status,
            chance.randrange(1000),
            chance.randrange(100_000),
            chance.randrange(300),
            route,
            consumer,
            consumer % 3,
        )
        for consumer, route, status in zip(consumers, routes, statuses, strict=True)
    ]


def _uuid(chance: random.Random) -> bytes:
    text = b"%032x" % chance.getrandbits(128)
    return b"-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _messages(chance: random.Random) -> Iterator[bytes]:
    now = int(time.time())
    for _ in range(SENT // BATCH):
        message = ExportLogsServiceRequest()
        records = message.resource_logs.add().scope_logs.add().log_records
        for entry in _entries(BATCH, chance, now):
            records.add().body.string_value = entry
        yield message.SerializeToString()


def _taken() -> tuple[float, float]:
    """Return entries for each second of processor time, and the peak of memory in MiB."""
    messages = list(_messages(random.Random(1)))
    port, admin = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "xds_server", "usage-server", "--listen", f"127.0.0.1:{port}"]
        command += [
            "--admin",
            f"127.0.0.1:{admin}",
            "--store",
            f"sqlite:///{folder}/u.db",
            "--spool",
            f"{folder}/s",
        ]
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as server:
            try:
                wait_for(
                    lambda: httpx.get(f"http://127.0.0.1:{admin}/ready").status_code == 200, "the server"
                )
                begun = cpu(server.pid)
                _send(port, messages)
                wait_for(lambda: _counted(admin) == len(messages) * BATCH, "the store", 120)
                return len(messages) * BATCH / (cpu(server.pid) - begun), _peak(server.pid)
            finally:
                server.terminate()


def _send(port: int, messages: list[bytes]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        export = channel.unary_unary(EXPORT)
        waiting: list[grpc.Future] = []
        for message in messages:
            waiting.append(export.future(message))
            if len(waiting) >= IN_FLIGHT:
                waiting.pop(0).result()
        for call in waiting:
            call.result()


def _counted(admin: int) -> float:
    text = httpx.get(f"http://127.0.0.1:{admin}/metrics").text
    found = re.search(r'xds_usage_counted_total\{outcome="counted"\} (\S+)', text)
    return float(found[1]) if found else 0.0


def _peak(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _rolled() -> float:
    """Return the processor time to count and store the entries, which the spool has as records."""
    chance, seen, now = random.Random(2), Seen(), int(time.time())
    spent, at = 0.0, Position(0, 0)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/usage.db")
        store.migrate()
        left = ROLLED
        while left > 0:
            some = min(left, 18_000)
            records = b"".join(
                spool_format.encode(b"\n".join(_entries(min(BATCH, some - begin), chance, now)), now)
                for begin in range(0, some, BATCH)
            )
            begun = time.process_time()
            batches = [
                Batch(record.batch, record.arrival, record.payload.decode().split("\n"))
                for record, _, _ in spool_format.scan(records)
            ]
            end = Position(1, at.offset + len(records))
            store.add("benchmark", at, end, batches, rollup.count(batches, seen), now)
            spent += time.process_time() - begun
            at, left = end, left - some
        rows = store.report(Question())[0]["requests"]
        store.close()
    assert rows == ROLLED, rows
    return spent


if __name__ == "__main__":
    main()
