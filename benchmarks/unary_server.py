"""The cost of a decision in Python by gRPC server, all in one run, directly and through an Envoy.

Run ``python -m benchmarks unary_server``. Each measurement takes SECONDS (3). If PYVOY is the path of an interpreter
that has pyvoy and protobuf, pyvoy is measured too. It needs h2load (Debian: nghttp2-client). If wrk is installed, it
also measures through Envoy.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from envoy.service.auth.v3 import external_auth_pb2
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf import descriptor_pb2

from benchmarks.load import cpu
from tests.support.policy_server import Stack
from tests.support.ports import free_port
from tests.support.wait import wait_for

CHECK = "/envoy.service.auth.v3.Authorization/Check"
LIMIT = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
SIZE = 668
"""Bytes of a Check as Envoy sends it for a common request."""
KEY = "key-00000042-0123456789abcdef"
POLICY = """
from filters.ext_authz import allow, deny

KEYS = {f"key-{n:08d}-0123456789abcdef": f"c{n}" for n in range(10_000)}

async def check(request):
    consumer = KEYS.get(request.headers.get("x-api-key"))
    return deny(401) if consumer is None else allow({"x-consumer": consumer})

def threaded(request):
    consumer = KEYS.get(request.headers.get("x-api-key"))
    return deny(401) if consumer is None else allow({"x-consumer": consumer})
"""
SERVERS = {
    "ours": ("native", 1),
    "ours, 2 workers": ("native", 2),
    "grpcio, asyncio + uvloop": ("grpcio", 1),
    "grpcio, asyncio + uvloop, 2 workers": ("grpcio", 2),
}
"""The gRPC server and its number of workers, by name."""
COROUTINE, FUNCTION, LIMITED, THROUGH = (
    "Check, a coroutine looks up an API key",
    "Check, a function in a thread looks it up",
    "ShouldRateLimit, one limit in memory",
    "Check through an Envoy with one worker",
)


def _gateway(port: int) -> str:
    return f"""
listeners: {{http: {{port: {port}}}}}
upstreams: {{nobody: {{endpoints: [127.0.0.1:9]}}}}
routes:
  check: {{path: /check, respond: {{body: ok}}, policies: {{ext_authz: {{python: "p.py:check", timeout: 1s}}}}}}
  threaded: {{path: /threaded, respond: {{body: ok}}, policies: {{ext_authz: {{python: "p.py:threaded", timeout: 1s}}}}}}
  limited: {{path: /limited, upstream: nobody, policies: {{rate_limit: 1000000000/hour}}}}
"""


def _check(function: str) -> bytes:
    request = external_auth_pb2.CheckRequest()
    http = request.attributes.request.http
    http.method, http.path, http.host, http.scheme = "GET", "/check", "api.example.com", "https"
    request.attributes.context_extensions.update({"policy": f"p.py:{function}", "timeout": "1"})
    http.headers.update({"x-api-key": KEY, "user-agent": "benchmark", "accept": "*/*", "cookie": ""})
    http.headers["cookie"] = "x" * (SIZE - len(request.SerializeToString()) - 3)
    return request.SerializeToString()


def _limit() -> bytes:
    request = rls_pb2.RateLimitRequest(domain="xds")
    entries = (
        ("route", "limited"),
        ("rule", "rate_limit:route/limited"),
        ("style", "x-ratelimit"),
        ("style", "ietf"),
        ("masked_remote_address", "10.0.0.1/32"),
    )
    descriptor = request.descriptors.add()
    for key, value in entries:
        descriptor.entries.add(key=key, value=value)
    return request.SerializeToString()


CASES = {
    COROUTINE: (CHECK, _check("check")),
    FUNCTION: (CHECK, _check("threaded")),
    LIMITED: (LIMIT, _limit()),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests per second, the server's CPU time per request, and the latencies, in microseconds."""

    rate: float
    cpu: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Served:
    """A server under test: its address, its first process, and the port of an Envoy that calls it (0: none)."""

    address: str
    process: int
    envoy: int = 0
    cases: Sequence[str] = tuple(CASES)


def _spent(process: int) -> float:
    """Return the seconds of CPU time of a process and of all its descendants (proc(5))."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return cpu(process) + sum(_spent(int(child)) for child in children)


def _answers(address: str, path: str, body: bytes) -> None:
    """Wait until the server decides as expected. Raises AssertionError."""
    kind: Any = rls_pb2.RateLimitResponse if path == LIMIT else external_auth_pb2.CheckResponse

    def admitted() -> bool:
        with grpc.insecure_channel(address) as channel:
            answer = kind.FromString(channel.unary_unary(path)(body, timeout=10))
        return answer.overall_code == 1 if path == LIMIT else answer.HasField("ok_response")

    wait_for(admitted, f"{path} to be answered with yes", also=(grpc.RpcError,))


def h2load(
    address: str, path: str, body: bytes, process: int, seconds: float, headers: Sequence[str] = ()
) -> Measured:
    """Measure calls with one message, 32 at a time over 4 connections. `process` serves them."""
    with tempfile.TemporaryDirectory() as name:
        file, log = Path(name) / "body", Path(name) / "log"
        file.write_bytes(b"\0" + len(body).to_bytes(4, "big") + body)
        command = [*("h2load", "-c4", "-m8", "-t1", f"-D{seconds:g}"), f"--log-file={log}", "-d", str(file)]
        for header in ("content-type: application/grpc", "te: trailers", *headers):
            command += ["-H", header]
        command.append(f"http://{address}{path}")
        before = _spent(process)
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        used = _spent(process) - before
        found = re.search(r"requests: .* (\d+) succeeded, 0 failed", out)
        if found is None or " 0 3xx, 0 4xx, 0 5xx" not in out:
            raise RuntimeError(out)
        took = [float(line.split("\t")[2]) for line in log.read_text().splitlines()]
    count, cuts = int(found[1]), statistics.quantiles(took, n=100)
    return Measured(count / seconds, used / count * 1e6, cuts[49], cuts[98])


_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


def wrk(url: str, process: int, seconds: float, headers: Sequence[str] = ()) -> Measured:
    """Measure requests to an Envoy, over 32 connections. `process` serves the calls of the Envoy."""
    command = ["wrk", "-t1", "-c32", f"-d{seconds:g}s", "--latency"]
    for header in headers:
        command += ["-H", header]
    before = _spent(process)
    out = subprocess.run([*command, url], capture_output=True, text=True, check=True, timeout=60).stdout
    used = _spent(process) - before
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(out)
    count = int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]
    quantiles = {
        share: float(number) * _UNITS[unit]
        for share, number, unit in re.findall(r"(\d+)%\s+([\d.]+)(\w+)", out)
    }
    return Measured(count / seconds, used / count * 1e6, quantiles["50"], quantiles["99"])


@contextmanager
def _stack(kind: str, workers: int) -> Iterator[Served]:
    """Start the complete service, with rules from a control plane, and an Envoy."""
    with ExitStack() as around:
        folder = Path(around.enter_context(tempfile.TemporaryDirectory()))
        arguments = ("--grpc", kind, "--workers", f"{workers}")
        (folder / "p.py").write_text(POLICY)
        stack = Stack(folder, tcp=True, arguments=arguments)
        (folder / "gateway.yaml").write_text(_gateway(stack.listener))
        around.enter_context(stack)
        assert stack.policy_server.process is not None
        key = {"x-api-key": KEY}
        wait_for(lambda: stack.get("/check", headers=key).status_code == 200, "Envoy to let a key pass")
        yield Served(stack.socket, stack.policy_server.process.pid, stack.listener)


@contextmanager
def _started(command: list[str], port: int, cases: Sequence[str], **more: str) -> Iterator[Served]:
    process = subprocess.Popen(command, env={**os.environ, **more}, stdout=subprocess.DEVNULL)
    try:
        yield Served(f"127.0.0.1:{port}", process.pid, cases=cases)
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _threads() -> Iterator[Served]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.servers.grpcio_threads", str(port)]
    with _started(command, port, tuple(CASES)) as served:
        yield served


@contextmanager
def _pyvoy(python: str) -> Iterator[Served]:
    """Start an application of a few lines inside an Envoy, without rules, metrics and timeouts."""
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        described = Path(name) / "descriptors"
        described.write_bytes(_descriptors())
        command = [
            str(Path(python).with_name("pyvoy")),
            "--port",
            str(port),
            "--loop",
            "uvloop",
            "pyvoy_application:app",
        ]
        folder = str(Path(__file__).parent / "servers")
        with _started(command, port, (COROUTINE,), DESCRIPTORS=str(described), PYTHONPATH=folder) as served:
            yield served


def _descriptors() -> bytes:
    """Return the messages of a Check for an interpreter that cannot import them.

    pyvoy and xds-protos both own `envoy`.
    """
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(file: Any) -> None:
        if file.name not in found:
            for one in file.dependencies:
                add(one)
            found[file.name] = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(found[file.name])

    add(external_auth_pb2.DESCRIPTOR)
    return descriptor_pb2.FileDescriptorSet(file=found.values()).SerializeToString()


def _measured(served: Served, seconds: float) -> dict[str, Measured]:
    found = {}
    for case in served.cases:
        path, body = CASES[case]
        _answers(served.address, path, body)
        found[case] = h2load(served.address, path, body, served.process, seconds)
    if served.envoy and shutil.which("wrk") is not None:
        url = f"http://127.0.0.1:{served.envoy}/check"
        found[THROUGH] = wrk(url, served.process, seconds, [f"x-api-key: {KEY}"])
    return found


def _all(seconds: float) -> dict[str, dict[str, Measured]]:
    found = {}
    for name, (kind, workers) in SERVERS.items():
        with _stack(kind, workers) as served:
            found[name] = _measured(served, seconds)
    with _threads() as served:
        found["grpcio, threads"] = _measured(served, seconds)
    if os.environ.get("PYVOY"):
        with _pyvoy(os.environ["PYVOY"]) as served:
            found["pyvoy"] = _measured(served, seconds)
    return found


def main() -> None:
    """Print a Markdown table for each case."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is needed (Debian: apt install nghttp2-client)")
    seconds = float(os.environ.get("SECONDS", "3"))
    found = _all(seconds)
    for case in (*CASES, THROUGH):
        print(f"\n| {case} | requests/s | p50 | p99 | CPU of one |\n|---|---|---|---|---|")
        for name, cases in found.items():
            if case in cases:
                one = cases[case]
                print(
                    f"| {name} | {one.rate:,.0f} | {one.p50 / 1e3:.1f} ms | {one.p99 / 1e3:.1f} ms | {one.cpu:.0f} µs |"
                )


if __name__ == "__main__":
    main()
