"""The cost of a request on each kind of path, as a share of a hand-written Envoy of the same run.

All cases take turns. Rates depend on the client and on the upstream too, which share the processors with Envoy. Envoy's
processor time for each request depends less on the other work of the machine. Traefik takes part if ``make traefik`` built it.
It has no API keys, so its users send a name and a password, whose digest it compares.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.load import cpu
from benchmarks.proxy import static
from tests.support.envoy import Envoy
from tests.support.folder import write
from tests.support.policy_server import Stack
from tests.support.ports import free_port
from tests.support.traefik import Traefik, binary
from tests.support.wait import wait_for

CONSUMERS, CONNECTIONS, SECONDS, TURNS = 10_000, 32, 2, 5
KEY = "key-4711-0123456789abcdef"
LIMIT = "requests: 1000000000, per: hour"
USER, PASSWORD = "c0", "password-4711"
HEADERS = {
    "x-api-key": KEY,
    "authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of path: its address, the request's path, and the processes that serve it, the proxy first."""

    name: str
    port: int
    path: str
    processes: tuple[int, ...]
    target: float = 1.0
    """The least share of the hand-written Envoy's requests/s."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Requests/s, and microseconds of processor time for each request: of the proxy, and of all processes together."""

    rate: float
    proxy: float
    all: float


def main() -> None:
    """Print the table."""
    if shutil.which("wrk") is None:
        print("The paths are not measured: wrk is missing (package wrk).\n")
        return
    with tempfile.TemporaryDirectory() as name:
        measured = _measured(Path(name))
    bare = next(iter(measured.values()))
    print(
        f"**Paths, as shares of a hand-written Envoy** (one worker each, {CONNECTIONS} connections, {CONSUMERS:,} "
        f"consumers; medians of {TURNS} turns, and the range of the shares)\n\n"
        "| | requests/s | share | target | CPU of the proxy each | share | … with the policy server |\n"
        "|---|---|---|---|---|---|---|"
    )
    for case, turns in measured.items():
        rates = [mine.rate / theirs.rate for mine, theirs in zip(turns, bare, strict=True)]
        costs = [theirs.proxy / mine.proxy for mine, theirs in zip(turns, bare, strict=True)]
        target = f"≥ {case.target:.2f}" if case.target < 1 else ""
        print(
            f"| {case.name} | {_median(turns, 'rate'):,.0f} | {_share(rates)} | {target} "
            f"| {_median(turns, 'proxy'):.0f} µs | {_share(costs)} | {_median(turns, 'all'):.0f} µs |"
        )
    print()


def _median(turns: Sequence[Turn], field: str) -> float:
    return statistics.median(getattr(one, field) for one in turns)


def _share(shares: Sequence[float]) -> str:
    return f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"


def _measured(folder: Path) -> dict[Case, list[Turn]]:
    backend, plain = free_port(), free_port()
    respond = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x"}}}]
    forward = [
        {"match": {"prefix": "/api/users/"}, "route": {"cluster": "users", "prefix_rewrite": "/users/"}}
    ]
    stack = Stack(folder)
    write(folder, gateway=_gateway(stack.listener, backend))
    with (
        Envoy(static(backend, respond), folder),
        Envoy(static(plain, forward, backend), folder) as bare,
        stack,
        contextlib.ExitStack() as peers,
    ):
        assert bare.process is not None
        assert stack.envoy.process is not None
        assert stack.policy_server.process is not None
        envoy, server = stack.envoy.process.pid, stack.policy_server.process.pid
        cases = (
            Case("hand-written Envoy", plain, "/api/users/1", (bare.process.pid,)),
            Case("plain", stack.listener, "/api/users/1", (envoy, server), 0.97),
            Case("key", stack.listener, "/key/1", (envoy, server), 0.80),
            Case("key and local limit", stack.listener, "/local/1", (envoy, server), 0.76),
            Case("key and global limit in memory", stack.listener, "/global/1", (envoy, server), 0.69),
            *_of_traefik(backend, folder, peers),
        )
        for case in cases:
            wait_for(lambda case=case: _status(case) == 200, case.name)
        turns = [{case: _turn(case) for case in cases} for _ in range(TURNS)]
    return {case: [one[case] for one in turns] for case in cases}


def _of_traefik(backend: int, folder: Path, peers: contextlib.ExitStack) -> tuple[Case, ...]:
    """The paths of a Traefik that runs on one processor until `peers` is closed. None if it is not built."""
    if binary() is None:
        return ()
    digest = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    traefik = peers.enter_context(
        Traefik(_TRAEFIK % (f"{USER}:{{SHA}}{digest}", backend), folder, processors=1)
    )
    return tuple(
        Case(f"Traefik: {name}", traefik.port, path, (traefik.pid,))
        for name, path in (
            ("plain", "/api/users/1"),
            ("password", "/key/1"),
            ("password and local limit", "/local/1"),
        )
    )


_TRAEFIK = """
http:
  routers:
    plain: {rule: PathPrefix(`/api/users/`), service: users, middlewares: [rewrite], entryPoints: [web]}
    key: {rule: PathPrefix(`/key/`), service: users, middlewares: [password], entryPoints: [web]}
    local: {rule: PathPrefix(`/local/`), service: users, middlewares: [password, limit], entryPoints: [web]}
  middlewares:
    rewrite: {replacePathRegex: {regex: ^/api/users/(.*), replacement: /users/$1}}
    password: {basicAuth: {users: ['%s'], headerField: x-consumer-name}}
    limit: {rateLimit: {average: 1000000, burst: 1000000, sourceCriterion: {requestHeaderName: x-consumer-name}}}
  services: {users: {loadBalancer: {servers: [{url: 'http://127.0.0.1:%d'}]}}}
"""


def _gateway(port: int, backend: int) -> str:
    keys = [KEY, *(f"key-{number}-of-another-consumer" for number in range(1, CONSUMERS))]
    consumers = "\n".join(
        f"  c{number}: {{plan: pro, api_keys: [{{sha256: {hashlib.sha256(key.encode()).hexdigest()}}}]}}"
        for number, key in enumerate(keys)
    )
    return f"""
listeners: {{http: {{port: {port}, address: 127.0.0.1}}}}
upstreams: {{users: {{endpoints: ['127.0.0.1:{backend}']}}}}
plans: {{pro: {{}}}}
consumers:
{consumers}
routes:
  plain: {{path: /api/users/*, upstream: users, rewrite: {{path: /users/*}}}}
  key: {{path: /key/*, upstream: users, policies: {{api_key: true}}}}
  local: {{path: /local/*, upstream: users, policies: {{api_key: true, rate_limit: {{{LIMIT}, scope: local}}}}}}
  global: {{path: /global/*, upstream: users, policies: {{api_key: true, rate_limit: {{{LIMIT}}}}}}}
"""


def _status(case: Case) -> int:
    return httpx.get(f"http://127.0.0.1:{case.port}{case.path}", headers=HEADERS).status_code


def _turn(case: Case) -> Turn:
    """Load one case for some seconds. Raises RuntimeError if a response is not a success."""
    before = [cpu(one) for one in case.processes]
    command = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", str(SECONDS)]
    headers = [word for name, value in HEADERS.items() for word in ("-H", f"{name}: {value}")]
    done = subprocess.run(
        [*command, *headers, f"http://127.0.0.1:{case.port}{case.path}"],
        capture_output=True,
        text=True,
        check=True,
    )
    used = [cpu(one) - spent for one, spent in zip(case.processes, before, strict=True)]
    count = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec: +([\d.]+)", done.stdout)
    if count is None or rate is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(done.stdout)
    each = [spent / int(count[1]) * 1e6 for spent in used]
    return Turn(float(rate[1]), each[0], sum(each))


if __name__ == "__main__":
    main()
