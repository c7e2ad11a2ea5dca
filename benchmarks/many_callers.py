"""What leases cost callers that never get one: 10,000 callers of a leased route and of a route with `exact: true`."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from benchmarks.load import cpu
from benchmarks.proxy import static
from tests.support.envoy import Envoy
from tests.support.policy_server import Stack
from tests.support.ports import free_port
from tests.support.wait import wait_for

CALLERS, SECONDS, TURNS = 10_000, 3, 5
YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {backend: {endpoints: ["127.0.0.1:$backend"]}}
routes:
  leased: {path: /leased, upstream: backend, policies: {rate_limit: {$limit}}}
  exact: {path: /exact, upstream: backend, policies: {rate_limit: {$limit, exact: true}}}
"""
LIMIT = 'requests: 4000000000, per: hour, by: "header:x-caller"'
SCRIPT = f"""
local number = 0
request = function()
  number = number + 1
  return wrk.format("GET", nil, {{ ["x-caller"] = "caller-" .. number * 7919 % {CALLERS} }})
end
"""


def main() -> None:
    """Print the table."""
    if shutil.which("wrk") is None:
        print("Many callers are not measured: wrk is missing (package wrk).\n")
        return
    print(
        f"**{CALLERS:,} callers of a limited route, none of them busy** (one Envoy worker, counters in memory; medians of "
        f"{TURNS} turns)\n\n| | requests/s | CPU of Envoy | CPU of the policy server |\n|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, turns in _measured(Path(folder)).items():
            rate, envoy, server = (statistics.median(column) for column in zip(*turns, strict=True))
            print(f"| {name} | {rate:,.0f} | {envoy:.0f} µs | {server:.0f} µs |")
    print()


def _measured(folder: Path) -> dict[str, list[tuple[float, float, float]]]:
    backend = free_port()
    script = folder / "callers.lua"
    script.write_text(SCRIPT)
    answer = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x"}}}]
    stack = Stack(folder)
    stack.write(YAML, backend=backend, limit=LIMIT)
    with Envoy(static(backend, answer), folder), stack:
        wait_for(lambda: "ratelimit" in stack.get("/exact").headers, "the first decision")
        turns = [{path: _turn(stack, path, script) for path in ("leased", "exact")} for _ in range(TURNS)]
    return {path: [one[path] for one in turns] for path in turns[0]}


def _turn(stack: Stack, path: str, script: Path) -> tuple[float, float, float]:
    """Return requests/s, and the CPU microseconds of Envoy and of the policy server for each request."""
    assert stack.envoy.process is not None
    assert stack.policy_server.process is not None
    processes = (stack.envoy.process.pid, stack.policy_server.process.pid)
    before = [cpu(one) for one in processes]
    command = ["wrk", "-t", "1", "-c", "32", "-d", str(SECONDS), "-s", str(script), f"{stack.url}/{path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = [cpu(one) - spent for one, spent in zip(processes, before, strict=True)]
    found = re.search(r"(\d+) requests in", done)
    if found is None or "Non-2xx" in done:
        raise RuntimeError(done)
    envoy, server = (spent / int(found[1]) * 1e6 for spent in used)
    return int(found[1]) / SECONDS, envoy, server


if __name__ == "__main__":
    main()
