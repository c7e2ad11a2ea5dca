"""The cost of authentication: requests/s through one worker of Envoy on a direct response."""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.load import Measured, get, measure
from tests.support import tokens
from tests.support.folder import compiled, write
from tests.support.gateway import Gateway
from tests.support.ports import free_port

CONSUMERS = 10_000
ROUNDS = 3


def _gateway(port: int) -> str:
    consumers = "\n".join(
        f"  c{number}: {{plan: pro, api_keys: [{{sha256: {hashlib.sha256(_key(number).encode()).hexdigest()}}}]}}"
        for number in range(CONSUMERS)
    )
    return f"""
listeners: {{http: {{port: {port}}}}}
plans: {{pro: {{}}}}
identity: {{corp: {{issuer: {tokens.ISSUER}, jwks: {{file: jwks.json}}}}}}
consumers:
{consumers}
routes:
  open: {{path: /open, respond: {{body: ok}}}}
  key: {{path: /key, respond: {{body: ok}}, policies: {{api_key: true}}}}
  plan: {{path: /plan, respond: {{body: ok}}, policies: {{api_key: true, authorize: {{plans: [pro]}}}}}}
  jwt: {{path: /jwt, respond: {{body: ok}}, policies: {{jwt: corp}}}}
  scope: {{path: /scope, respond: {{body: ok}}, policies: {{jwt: corp, authorize: {{scopes: [read]}}}}}}
"""


def _key(number: int) -> str:
    return f"key-{number:08d}-0123456789abcdef"


def _memory(gateway: Gateway) -> float:
    figures: dict[str, str] = httpx.get(f"{gateway.envoy.admin}/memory").json()
    return int(figures["allocated"]) / 1e6


def _measured(port: int, process: int) -> dict[str, Measured]:
    """Return the best of several rounds for each case. The cases take turns, so that a slow moment affects all alike."""
    keys = [get("/key", x_api_key=_key(number)) for number in range(CONSUMERS)]
    plans = [request.replace(b"/key", b"/plan", 1) for request in keys]
    bearer = f"Bearer {tokens.token(scope='read write')}"
    cases = {
        "no authentication": [get("/open")],
        f"api_key, hashed, {CONSUMERS:,} consumers": keys,
        "api_key and authorize by plan": plans,
        "jwt (RS256, in Envoy's cache)": [get("/jwt", authorization=bearer)],
        "jwt and authorize by scope": [get("/scope", authorization=bearer)],
    }
    rounds = [
        {name: measure(port, requests, process) for name, requests in cases.items()} for _ in range(ROUNDS)
    ]
    return {
        name: min((results[name] for results in rounds), key=lambda best: best.cpu_microseconds)
        for name in cases
    }


def main() -> None:
    """Print a Markdown table."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        (folder / "jwks.json").write_text(tokens.jwks())
        write(folder, gateway=_gateway(port))
        start = time.perf_counter()
        snapshot = compiled(folder).snapshot
        compiling = time.perf_counter() - start
        size = max(len(one.body) for type_ in snapshot for one in snapshot[type_].values())
        with Gateway(folder, folder) as gateway:
            assert gateway.envoy.process is not None
            measured = _measured(port, gateway.envoy.process.pid)
            memory = _memory(gateway)
    bare = measured["no authentication"].cpu_microseconds
    print("| | requests/s | CPU of Envoy each | capacity of no authentication |\n|---|---|---|---|")
    for case, one in measured.items():
        share = bare / one.cpu_microseconds
        print(f"| {case} | {one.rate:,.0f} | {one.cpu_microseconds:.0f} µs | {share:.2f} |")
    print(
        f"\nReading and translating: {compiling:.2f} s; the script: {size / 1e3:,.0f} KB; Envoy: {memory:.0f} MB."
    )


if __name__ == "__main__":
    main()
