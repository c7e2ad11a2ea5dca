"""Engines for the OWASP Core Rule Set side by side: what they find, how long it takes, and how much memory they need.

Run ``python -m benchmarks waf``. It needs what `make waf` installs. Coraza needs Go and zentinel-modsec needs Cargo; an engine that
cannot be built is left out. Each engine runs in a process of its own, one request at a time, with the same files of rules. Then
the same requests go through an Envoy with one worker, on routes with and without `waf`.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.tables import show
from filters.waf.crs import folder
from filters.waf.frames import Inquiry
from tests.support import crs_suite
from tests.support.backend import Backend
from tests.support.policy_server import Stack
from tests.support.wait import wait_for

SERVERS = Path(__file__).parent / "servers"
HEADERS = [
    ("host", "api.example.com"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
    ("accept", "application/json"),
    ("x-request-id", "0190f2d1-9c2e-7c55-b1e5-1d2b2a3c4d5e"),
    ("authorization", "Bearer abcdefghijklmnopqrstuvwxyz.0123456789"),
]
SMALL = json.dumps({"name": "Ada Lovelace", "email": "ada@example.com", "tags": ["math"], "active": True})
LARGE = json.dumps(
    [
        {"id": one, "name": f"user {one}", "email": f"u{one}@example.com", "note": "a quick brown fox " * 3}
        for one in range(60)
    ]
)
TIMES = 200


def _requests() -> Mapping[str, Inquiry]:
    def post(body: str) -> Inquiry:
        headers = [*HEADERS, ("content-type", "application/json"), ("content-length", str(len(body)))]
        return Inquiry(crs_suite.PROFILE, "127.0.0.1", "POST", "/api/users", "1.1", headers, body.encode())

    get = Inquiry(
        crs_suite.PROFILE, "127.0.0.1", "GET", "/api/users/12?fields=name,email&page=2", "1.1", HEADERS
    )
    return {
        "GET": get,
        f"POST, {len(SMALL)} bytes of JSON": post(SMALL),
        f"POST, {len(LARGE) / 1000:.0f} KB of JSON with 240 values": post(LARGE),
    }


class Subject:
    """An engine in a process of its own."""

    def __init__(self, command: Sequence[str], settings: Path) -> None:
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [*command, str(settings), str(folder())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer()
        self.started = time.perf_counter() - began

    def inspect(self, inquiry: Inquiry, times: int = 0) -> Mapping[str, Any]:
        """The rules that matched, and the times of more inspections in microseconds."""
        asked = {
            "method": inquiry.method,
            "target": inquiry.target,
            "version": inquiry.version,
            "headers": inquiry.headers,
            "body": base64.b64encode(inquiry.body).decode(),
            "times": times,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer: Mapping[str, Any] = self._answer()
        return answer

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine ended with {self._process.wait()}")
        return json.loads(line)

    def memory(self) -> int:
        """The most bytes that it had in memory."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def _started(command: Sequence[str], paranoia: int, work: Path) -> Iterator[Subject]:
    settings = work / f"paranoia-{paranoia}.conf"
    settings.write_text(crs_suite.settings(paranoia))
    subject = Subject(command, settings)
    try:
        yield subject
    finally:
        subject.close()


def _commands(work: Path) -> Iterator[tuple[str, Sequence[str], str]]:
    """Yield each engine that can be built: its name, its command, and how long it took to build."""
    yield "ModSecurity 3.0.15", (sys.executable, "-m", "benchmarks.servers.modsecurity"), "a wheel"
    for name, tool, folder_name, build, made in (
        ("Coraza 3.8.1", "go", "coraza", ("go", "build", "-o", "benchmark", "."), "benchmark"),
        (
            "zentinel-modsec 0.5.0",
            "cargo",
            "zentinel",
            ("cargo", "build", "--release", "--quiet"),
            "target/release/benchmark",
        ),
    ):
        if shutil.which(tool) is None:
            print(f"{name} is left out: there is no {tool}")
            continue
        source = shutil.copytree(SERVERS / folder_name, work / folder_name)
        began = time.perf_counter()
        subprocess.run(build, cwd=source, check=True, timeout=900)
        yield name, (str(source / made),), f"{time.perf_counter() - began:.0f} s"


def _suite(subject: Subject) -> tuple[int, int]:
    tests = held = 0
    for case in crs_suite.cases():
        tests += 1
        held += case.holds([tuple(one) for one in subject.inspect(case.inquiry)["matched"]])
    return tests, held


def _engines(work: Path) -> None:
    columns: dict[str, list[str]] = {}
    requests = _requests()
    heads: list[str] = []
    for name, command, built in _commands(work):
        rows = columns.setdefault(name, [])
        with _started(command, 4, work) as subject:
            tests, held = _suite(subject)
            rows.append(f"{held:,} of {tests:,} ({held / tests:.1%})")
        heads = ["tests of the Core Rule Set that hold"]
        for paranoia in (1, 2):
            with _started(command, paranoia, work) as subject:
                for what, inquiry in requests.items():
                    times = subject.inspect(inquiry, TIMES)["times"]
                    p50, p99 = times[TIMES // 2] / 1e3, times[TIMES * 99 // 100] / 1e3
                    rows.append(f"{p50:.1f}, {p99:.1f} ms")
                    heads.append(f"{what}, paranoia {paranoia}: p50, p99")
                started, memory = subject.started, subject.memory()
        rows += [f"{started * 1e3:.0f} ms", f"{memory / 1e6:.0f} MB", built]
        heads += ["start with all rules", "most memory, paranoia 2", "to build"]
    table = [(head, *(column[at] for column in columns.values())) for at, head in enumerate(heads)]
    show("engines", ("", *columns), table)


YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {echo: {endpoints: ["$echo"]}}
routes:
  none: {path: /none, upstream: echo}
  headers: {path: /headers, upstream: echo, policies: {waf: {body: false}}}
  bodies: {path: /bodies, upstream: echo, policies: {waf: {timeout: 2s}}}
  strict: {path: /strict, upstream: echo, policies: {waf: {paranoia: 2, timeout: 2s}}}
"""


def _served(work: Path) -> None:
    """Measure the time of requests through Envoy, one after the other."""
    rows = []
    with Backend("echo") as backend:
        stack = Stack(work)
        stack.write(YAML, echo=backend.address)
        with stack, httpx.Client(base_url=stack.url, timeout=30) as client:
            wait_for(lambda: client.get("/strict").status_code == 200, "the firewall")
            for path in ("/none", "/headers", "/bodies", "/strict"):
                row = [path[1:]]
                for inquiry in _requests().values():
                    times = sorted(_timed(client, path, inquiry) for _ in range(TIMES))
                    row.append(f"{times[TIMES // 2]:.1f}, {times[TIMES * 99 // 100]:.1f} ms")
                rows.append(tuple(row))
    show("through Envoy", ("route", *(f"{one}: p50, p99" for one in _requests())), rows)


def _timed(client: httpx.Client, path: str, inquiry: Inquiry) -> float:
    headers = [one for one in inquiry.headers if one[0] != "content-length"]
    began = time.perf_counter()
    response = client.request(inquiry.method, path, headers=headers, content=inquiry.body)
    assert response.status_code == 200, response.text
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    """Print a table of the engines, and one of routes."""
    if why := crs_suite.missing():
        raise SystemExit(why)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        _engines(work)
        (work / "gateway").mkdir()
        _served(work / "gateway")


if __name__ == "__main__":
    main()
