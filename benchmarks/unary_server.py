"""What a decision in Python costs by the gRPC server that carries it: ours and grpcio, asked directly and by an Envoy."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from envoy.service.auth.v3 import external_auth_pb2
from envoy.service.ratelimit.v3 import rls_pb2

from benchmarks.load import cpu, get, measure
from tests.support.policy_server import Stack
from tests.support.wait import wait_for

CHECK = "/envoy.service.auth.v3.Authorization/Check"
LIMIT = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
SIZE = 668
"""Bytes of a Check as Envoy sends it for a common request."""
KINDS = ("native", "grpcio")
SECONDS = 4
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
    asked = external_auth_pb2.CheckRequest()
    http = asked.attributes.request.http
    http.method, http.path, http.host, http.scheme = "GET", "/check", "api.example.com", "https"
    asked.attributes.context_extensions.update({"policy": f"p.py:{function}", "timeout": "1"})
    http.headers.update({"x-api-key": KEY, "user-agent": "benchmark", "accept": "*/*", "cookie": ""})
    http.headers["cookie"] = "x" * (SIZE - len(asked.SerializeToString()) - 3)
    return asked.SerializeToString()


def _limit() -> bytes:
    asked = rls_pb2.RateLimitRequest(domain="xds")
    entries = (
        ("route", "limited"),
        ("rule", "rate_limit:route/limited"),
        ("style", "x-ratelimit"),
        ("style", "ietf"),
        ("masked_remote_address", "10.0.0.1/32"),
    )
    descriptor = asked.descriptors.add()
    for key, value in entries:
        descriptor.entries.add(key=key, value=value)
    return asked.SerializeToString()


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests a second, and the server's CPU time of one."""

    rate: float
    cpu_microseconds: float


def _answers(address: str, path: str, body: bytes) -> None:
    """Wait until the server decides as it should. Raises AssertionError."""
    kind: Any = rls_pb2.RateLimitResponse if path == LIMIT else external_auth_pb2.CheckResponse

    def admitted() -> bool:
        with grpc.insecure_channel(address) as channel:
            answer = kind.FromString(channel.unary_unary(path)(body, timeout=10))
        return answer.overall_code == 1 if path == LIMIT else answer.HasField("ok_response")

    wait_for(admitted, f"{path} to be answered with yes")


def _direct(address: str, process: int, path: str, body: bytes, folder: Path) -> Measured:
    _answers(address, path, body)
    file = folder / "body"
    file.write_bytes(b"\0" + len(body).to_bytes(4, "big") + body)
    command = ["h2load", "-c2", "-m16", "-t1", f"-D{SECONDS}", "-d", str(file)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{address}{path}"]
    before = cpu(process)
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    used = cpu(process) - before
    found = re.search(r"requests: .* (\d+) succeeded, 0 failed", out)
    if found is None or f"{found[1]} 2xx" not in out:
        raise RuntimeError(out)
    return Measured(int(found[1]) / SECONDS, used / int(found[1]) * 1e6)


def _measured(kind: str) -> dict[str, Measured]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "p.py").write_text(POLICY)
        stack = Stack(folder, tcp=True, arguments=("--grpc", kind))
        (folder / "gateway.yaml").write_text(_gateway(stack.listener))
        with stack:
            assert stack.policy_server.process is not None
            process = stack.policy_server.process.pid
            cases = {
                "Check, a coroutine looks an API key up": (CHECK, _check("check")),
                "Check, a function in a thread": (CHECK, _check("threaded")),
                "ShouldRateLimit, one limit in memory": (LIMIT, _limit()),
            }
            found = {
                case: _direct(stack.socket, process, path, body, folder)
                for case, (path, body) in cases.items()
            }
            wait_for(lambda: stack.get("/check", headers={"x-api-key": KEY}).status_code == 200, "Envoy")
            through = measure(stack.listener, [get("/check", x_api_key=KEY)], process, seconds=SECONDS)
            found["Check through an Envoy"] = Measured(through.rate, through.cpu_microseconds)
            return found


def main() -> None:
    """Print a Markdown table."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is needed (Debian: apt install nghttp2-client)")
    ours, grpcio = (_measured(kind) for kind in KINDS)
    print(
        "| one process | ours | CPU each | grpcio | CPU each | CPU, grpcio to ours |\n|---|---|---|---|---|---|"
    )
    for case, one in ours.items():
        other = grpcio[case]
        print(
            f"| {case} | {one.rate:,.0f}/s | {one.cpu_microseconds:.0f} µs | {other.rate:,.0f}/s"
            f" | {other.cpu_microseconds:.0f} µs | {other.cpu_microseconds / one.cpu_microseconds:.1f} |"
        )


if __name__ == "__main__":
    main()
