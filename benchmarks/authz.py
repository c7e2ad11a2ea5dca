"""Decisions in Python: 100,000 consumers loaded, one consumer added, and requests/s through Envoy."""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.load import get, measure
from tests.support.policy_server import Stack

CONSUMERS, FILES = 100_000, 100
POLICY = """
from filters.ext_authz import Decision, Request, allow

def check(request: Request) -> Decision:
    return allow(headers={"x-policy": "seen"})

async def check_async(request: Request) -> Decision:
    return allow(headers={"x-policy": "seen"})
"""


def _key(number: int) -> str:
    return f"key-{number:08d}-0123456789abcdef"


def _consumer(number: int) -> str:
    digest = hashlib.sha256(_key(number).encode()).hexdigest()
    return f"  c{number}: {{plan: pro, api_keys: [{{sha256: {digest}}}]}}\n"


def _write(stack: Stack) -> None:
    folder = stack.folder
    (folder / "p.py").write_text(POLICY)
    (folder / "gateway.yaml").write_text(f"""
listeners: {{http: {{port: {stack.listener}}}}}
plans: {{pro: {{}}}}
routes:
  open: {{path: /open, respond: {{body: ok}}}}
  key: {{path: /key, respond: {{body: ok}}, policies: {{api_key: true}}}}
  sync: {{path: /sync, respond: {{body: ok}}, policies: {{ext_authz: {{python: "p.py:check", timeout: 5s}}}}}}
  async: {{path: /async, respond: {{body: ok}}, policies: {{ext_authz: {{python: "p.py:check_async", timeout: 5s}}}}}}
""")
    for file in range(FILES):
        numbers = range(file, CONSUMERS, FILES)
        (folder / f"consumers-{file}.yaml").write_text("consumers:\n" + "".join(map(_consumer, numbers)))


def _memory(process: int) -> float:
    """Return the resident memory of a process in megabytes (proc(5))."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1000


def _one_more(stack: Stack, number: int) -> tuple[float, float]:
    """Return the seconds from writing one more consumer to its publication, and to its first accepted request."""
    with httpx.Client(base_url=stack.url) as client:
        started = time.perf_counter()
        (stack.folder / "new.yaml").write_text("consumers:\n" + _consumer(number))
        stack.publish()
        published = time.perf_counter() - started
        while client.get("/key", headers={"x-api-key": _key(number)}).status_code != 200:
            time.sleep(0.001)
        return published, time.perf_counter() - started


def main() -> None:
    """Print the measurements."""
    with tempfile.TemporaryDirectory() as name:
        stack = Stack(Path(name))
        _write(stack)
        began = time.perf_counter()
        with stack:
            print(
                f"from {CONSUMERS:,} consumers in {FILES} files to a ready Envoy: {time.perf_counter() - began:.1f} s"
            )
            server = stack.policy_server
            assert server.process is not None
            assert stack.envoy.process is not None
            held = _memory(server.process.pid)
            server.stop()
            began = time.perf_counter()
            server.start()
            server.ready()
            print(
                f"a policy server, from its start to ready: {time.perf_counter() - began:.1f} s, {held:.0f} MB"
            )
            for number in range(CONSUMERS, CONSUMERS + 3):
                published, passed = _one_more(stack, number)
                print(
                    f"one more consumer: compiled and published in {published:.2f} s, in force after {passed:.2f} s"
                )
            envoy = stack.envoy.process.pid
            print("\n| | requests/s | CPU of Envoy each |\n|---|---|---|")
            for case, request in {
                "no policy": get("/open"),
                "API key of 100,000 in the policy server": get("/key", x_api_key=_key(4711)),
                "policy in Python": get("/sync"),
                "policy in Python, a coroutine": get("/async"),
            }.items():
                one = measure(stack.listener, [request], envoy)
                print(f"| {case} | {one.rate:,.0f} | {one.cpu_microseconds:.0f} µs |")


if __name__ == "__main__":
    main()
