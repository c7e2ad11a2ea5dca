"""The cost of a limited request when served: calls of the service by h2load, and requests through one Envoy."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from envoy.service.ratelimit.v3 import rls_pb2

from benchmarks.load import cpu
from benchmarks.proxy import static
from tests.support.envoy import Envoy
from tests.support.policy_server import Stack
from tests.support.ports import free_port
from tests.support.valkey import Valkey
from tests.support.wait import wait_for

COUNTS = (1, 3, 8)
REQUESTS = 20_000
PERIODS = ("hour", "second", "minute", "day", "month")
METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Requests per second, the 99th percentile in milliseconds, and the CPU microseconds per request of each process."""

    rate: float
    p99: float
    cpu: tuple[float, ...]

    def cells(self) -> str:
        """Return the cells of a table row."""
        return " | ".join([f"{self.rate:,.0f}", f"{self.p99:.1f} ms", *(f"{one:.0f} µs" for one in self.cpu)])


def main() -> None:
    """Print the table."""
    if shutil.which("h2load") is None:
        print("Served limits are not measured: h2load is missing (package nghttp2-client).\n")
        return
    print(
        f"**A limited request, served** ({REQUESTS:,} requests each; one policy server, one Envoy worker)\n\n"
        "| counters | limits | calls/s | p99 | CPU of a call | … of Redis | through Envoy, requests/s | p99 | CPU of Envoy | CPU of the policy server | … of Redis | not counted in time |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder)) as valkey:
        assert valkey.process is not None
        redis = valkey.process.pid
        for name, arguments in (("memory", ()), ("Redis", ("--counters", valkey.url))):
            with tempfile.TemporaryDirectory() as own, _served(Path(own), arguments) as stack:
                for count in (0, *COUNTS) if name == "memory" else COUNTS:
                    print(f"| {name if count else '–'} | {count} | {_row(stack, count, redis)}", flush=True)
    print()


def _row(stack: Stack, count: int, redis: int) -> str:
    assert stack.envoy.process is not None
    assert stack.policy_server.process is not None
    lost = _uncounted(stack)
    envoy, server = stack.envoy.process.pid, stack.policy_server.process.pid
    through = _load(f"{stack.url}/limits-{count}", ("--h1", "-c", "32"), (envoy, server, redis))
    if not count:
        return f"– | – | – | – | {through.cells()} | – |"
    message = _request(count).SerializeToString()
    body = stack.folder / "body"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    options = (
        "-c",
        "2",
        "-m",
        "16",
        "-d",
        str(body),
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
    )
    called = _load(f"http://{stack.socket}{METHOD}", options, (server, redis))
    return f"{called.cells()} | {through.cells()} | {(_uncounted(stack) - lost) / (2 * REQUESTS):.1%} |"


def _uncounted(stack: Stack) -> float:
    """Return the number of requests that passed because the counters did not respond in time."""
    found = re.search(r'decisions_total\{outcome="uncounted"\} (\S+)', stack.policy_server.metrics())
    return float(found[1]) if found is not None else 0.0


def _limits(count: int) -> str:
    written = [
        f"{{requests: 4000000000, per: {PERIODS[number % 5]}, by: {'ip' if number < 5 else 'route'}}}"
        for number in range(count)
    ]
    return f", policies: {{rate_limit: [{', '.join(written)}]}}" if count else ""


def _request(count: int) -> rls_pb2.RateLimitRequest:
    """Return Envoy's request for such a route."""
    request = rls_pb2.RateLimitRequest(domain="xds")
    entries = request.descriptors.add().entries
    name = f"limits-{count}"
    for key, value in (
        ("route", name),
        ("rule", f"rate_limit:route/{name}"),
        ("style", "x-ratelimit"),
        ("style", "ietf"),
        ("masked_remote_address", "127.0.0.1/32"),
        ("request_id", "3f0e2b8e-93a1-4a6a-8c0e-3e4e6a0c6f4d"),
    ):
        entries.add(key=key, value=value)
    return request


@contextmanager
def _served(folder: Path, arguments: tuple[str, ...]) -> Iterator[Stack]:
    """Start a gateway whose routes have these numbers of limits, before an Envoy that responds at once."""
    backend = free_port()
    answer = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x"}}}]
    stack = Stack(folder, tcp=True, arguments=arguments)
    routes = "\n".join(
        f"  limits-{count}: {{path: /limits-{count}, upstream: backend{_limits(count)}}}"
        for count in (0, *COUNTS)
    )
    (folder / "gateway.yaml").write_text(f"""
listeners: {{http: {{port: {stack.listener}}}}}
upstreams: {{backend: {{endpoints: ["127.0.0.1:{backend}"]}}}}
routes:
{routes}
""")
    with ExitStack() as started:
        started.enter_context(Envoy(static(backend, answer), folder))
        started.enter_context(stack)
        for count in COUNTS:
            wait_for(
                lambda count=count: "ratelimit" in stack.get(f"/limits-{count}").headers, "the first decision"
            )
        yield stack


def _load(url: str, options: tuple[str, ...], processes: tuple[int, ...]) -> Loaded:
    with tempfile.NamedTemporaryFile() as log:
        before = [cpu(one) for one in processes]
        done = subprocess.run(
            ["h2load", "-t", "1", "-n", str(REQUESTS), f"--log-file={log.name}", *options, url],
            capture_output=True,
            text=True,
            check=True,
        )
        used = tuple(
            (cpu(one) - spent) / REQUESTS * 1e6 for one, spent in zip(processes, before, strict=True)
        )
        taken = sorted(int(line.split("\t")[2]) for line in Path(log.name).read_text().splitlines())
    found = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
    assert found is not None, done.stdout
    assert f"{REQUESTS} succeeded, 0 failed" in done.stdout, done.stdout
    return Loaded(float(found[1]), taken[len(taken) * 99 // 100] / 1000, used)


if __name__ == "__main__":
    main()
