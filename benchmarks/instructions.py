"""Instructions of Envoy for each request on each kind of path, counted by Valgrind.

The count hardly depends on the machine or on its other work, so it shows small differences that times do not show. It
does not contain the kernel's work. Instructions differ in the time that they take: those of a hash in a script take
much less than those that wait for memory.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.proxy import static
from tests.support.envoy import Envoy, binary, for_this_envoy
from tests.support.folder import compiled, write
from tests.support.identity_cases import sha256
from tests.support.ports import free_port
from tests.support.wait import wait_for
from xds_server.translate.readable import plain
from xds_server.translate.static import bootstrap

WARM, COUNTED, TURNS = 1_000, 300, 3
"""Requests before the count, in which LuaJIT compiles the scripts, and requests of each count."""
START = 300.0
"""Seconds in which Envoy must have started in Valgrind."""
KEY = "key-4711-0123456789abcdef"
BARE = "/bare/1"
PATHS = {
    "hand-written Envoy": BARE,
    "plain": "/api/users/1",
    "key": "/key/1",
    "key and local limit": "/local/1",
}
_COUNT = re.compile(r"Th +(\d+) +([\d,]+)")


def main() -> None:
    """Print the table."""
    if shutil.which("valgrind") is None:
        print("Instructions are not counted: valgrind is missing (package valgrind).\n")
        return
    with tempfile.TemporaryDirectory() as name:
        counted = _counted(Path(name))
    bare = counted["hand-written Envoy"]
    print(
        "**Instructions of Envoy for each request** (in user mode, one connection)\n\n"
        "| | instructions | more than the hand-written Envoy |\n|---|---|---|"
    )
    for path, count in counted.items():
        print(f"| {path} | {count:,.0f} | {count - bare:,.0f} |")
    print()


def _counted(folder: Path) -> dict[str, float]:
    backend, port, bare = free_port(), free_port(), free_port()
    write(folder, gateway=_gateway(port, backend))
    config = plain(bootstrap(for_this_envoy(compiled(folder).snapshot)))
    forward = [{"match": {"prefix": "/bare/"}, "route": {"cluster": "bare", "prefix_rewrite": "/users/"}}]
    theirs = static(bare, forward, backend)["static_resources"]
    config["static_resources"]["listeners"] += [{**theirs["listeners"][0], "name": "bare"}]
    config["static_resources"]["clusters"] += [{**theirs["clusters"][0], "name": "bare"}]
    respond = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x"}}}]
    with Envoy(static(backend, respond), folder), _in_valgrind(config, folder) as process:
        wait_for(lambda: _ask(bare, BARE, 1), "Envoy in Valgrind", START)
        return {name: _each(process, bare if path == BARE else port, path) for name, path in PATHS.items()}


@contextmanager
def _in_valgrind(config: dict[str, Any], folder: Path) -> Iterator[int]:
    """Run an Envoy in Valgrind. Yields its process."""
    file = folder / "counted.json"
    file.write_text(json.dumps(config))
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/callgrind", str(binary())]
    command += ["-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
    with (folder / "counted.log").open("ab") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield running.pid
    finally:
        running.kill()
        running.wait()


def _each(process: int, port: int, path: str) -> float:
    """Return the instructions for one request: the lowest of some counts, because timers of Envoy run in between."""
    _ask(port, path, WARM)
    return min(_turn(process, port, path) for _ in range(TURNS))


def _turn(process: int, port: int, path: str) -> float:
    before = _instructions(process)
    _ask(port, path, COUNTED)
    after = _instructions(process)
    main = min(after)
    return max(after[one] - before[one] for one in after if one != main) / COUNTED


def _instructions(process: int) -> dict[int, int]:
    """Return the instructions so far by thread."""
    done = subprocess.run(
        ["callgrind_control", "-e", str(process)], capture_output=True, text=True, check=True
    )
    return {int(thread): int(count.replace(",", "")) for thread, count in _COUNT.findall(done.stdout)}


def _ask(port: int, path: str, times: int) -> bool:
    """Send requests on one connection, one after the other. Raises RuntimeError for a response without success."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(times):
        connection.request("GET", path, headers={"x-api-key": KEY})
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise RuntimeError(f"{path} answers {response.status}")
    connection.close()
    return True


def _gateway(port: int, backend: int) -> str:
    return f"""
listeners: {{http: {{port: {port}, address: 127.0.0.1}}}}
upstreams: {{users: {{endpoints: ['127.0.0.1:{backend}']}}}}
plans: {{pro: {{}}}}
consumers: {{acme: {{plan: pro, api_keys: [{{sha256: {sha256(KEY)}}}]}}}}
routes:
  plain: {{path: /api/users/*, upstream: users, rewrite: {{path: /users/*}}}}
  key: {{path: /key/*, upstream: users, policies: {{api_key: true}}}}
  local:
    path: /local/*
    upstream: users
    policies: {{api_key: true, rate_limit: {{requests: 1000000000, per: hour, scope: local}}}}
"""


if __name__ == "__main__":
    main()
