"""Routes that change, compare or keep bodies, as shares of the same route without a change of the same run. All cases take turns."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.load import cpu
from benchmarks.proxy import static
from tests.support.envoy import Envoy
from tests.support.folder import write
from tests.support.policy_server import Stack
from tests.support.ports import free_port
from tests.support.wait import wait_for

CONNECTIONS, SECONDS, TURNS = 32, 2, 5
EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"


def _items(size: int) -> bytes:
    """A JSON body of about `size` bytes: objects of six fields."""
    item = {"id": 4711, "name": "a name", "price": 12.50, "tags": ["a", "b"], "secret": "x", "note": "y" * 20}
    count = max(1, round(size / len(json.dumps(item))))
    return json.dumps({"user_name": "john", "items": [item | {"id": one} for one in range(count)]}).encode()


ITEM = {
    "type": "object",
    "required": ["id", "name"],
    "properties": {
        "id": {"type": "integer", "minimum": 0},
        "name": {"type": "string", "maxLength": 100},
        "price": {"type": "number"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
        "note": {"type": "string", "pattern": "^y+$"},
    },
}
SCHEMA = {
    "type": "object",
    "required": ["user_name"],
    "properties": {"user_name": {"type": "string"}, "items": {"type": "array", "items": ITEM}},
}
SMALL, MIDDLE, LARGE = _items(1_000), _items(10_000), _items(100_000)


@dataclass(frozen=True, slots=True)
class Case:
    """A route: its path, the request's body, and the case whose rate is 1."""

    name: str
    path: str
    body: bytes = b""
    coding: str = ""
    beside: str = ""
    target: float = 0.0


CASES = (
    Case("plain, 1 KB request", "/plain", SMALL),
    Case("transform of the request", "/request", SMALL, beside="plain, 1 KB request", target=0.6),
    Case(
        "… gzip, decoded in Python",
        "/request",
        gzip.compress(SMALL),
        "gzip",
        "plain, 1 KB request",
        0.25,
    ),
    Case("validate by a JSON Schema", "/schema", SMALL, beside="plain, 1 KB request", target=0.3),
    Case("validate by OpenAPI", "/api", SMALL, beside="plain, 1 KB request", target=0.3),
    Case("plain, 100 KB request", "/plain", LARGE),
    Case("transform of the request", "/request", LARGE, beside="plain, 100 KB request", target=0.3),
    Case(
        "… gzip, decoded in Python",
        "/request",
        gzip.compress(LARGE),
        "gzip",
        "plain, 100 KB request",
        0.15,
    ),
    Case("plain, 10 KB response", "/plain/10"),
    Case("fields of the response", "/fields/10", beside="plain, 10 KB response", target=0.3),
    Case("plain, small response", "/plain/"),
    Case("cache, hit", "/cache/", beside="plain, small response", target=2),
    Case("cache, hit of 10 KB", "/cache/10", beside="plain, 10 KB response", target=2),
)


def main() -> None:
    """Print the table."""
    if shutil.which("wrk") is None:
        print("The bodies are not measured: wrk is missing (package wrk).\n")
        return
    with tempfile.TemporaryDirectory() as name:
        measured = _measured(Path(name))
    print(
        f"**Bodies, as shares of the same route without a change** (one Envoy worker, {CONNECTIONS} connections; medians "
        f"of {TURNS} turns, and the range of the shares)\n\n"
        "| | requests/s | share | target | CPU of Envoy each | … with the policy server |\n|---|---|---|---|---|---|"
    )
    by_name = {case.name: turns for case, turns in measured.items() if not case.beside}
    for case, turns in measured.items():
        share, target = "", ""
        if case.beside:
            shares = [mine[0] / bare[0] for mine, bare in zip(turns, by_name[case.beside], strict=True)]
            share = f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
            target = f"≥ {case.target:.2f}"
        rate, envoy, together = (statistics.median(one[at] for one in turns) for at in range(3))
        print(f"| {case.name} | {rate:,.0f} | {share} | {target} | {envoy:.0f} µs | {together:.0f} µs |")
    print()


def _measured(folder: Path) -> dict[Case, list[tuple[float, float, float]]]:
    backend = free_port()
    stack = Stack(folder)
    operation = {"requestBody": {"content": {"application/json": {"schema": SCHEMA}}}, "responses": {}}
    document = {"openapi": "3.1.1", "paths": {"/api": {"post": operation}}}
    write(
        folder,
        {"schema.json": json.dumps(SCHEMA), "openapi.json": json.dumps(document)},
        gateway=_gateway(stack.listener, backend),
    )
    with Envoy(_backend(backend), folder), stack:
        assert stack.envoy.process is not None
        assert stack.policy_server.process is not None
        processes = (stack.envoy.process.pid, stack.policy_server.process.pid)
        wait_for(lambda: httpx.get(stack.url + "/plain/10").status_code == 200, "the gateway")
        scripts = {case: _script(folder / f"{number}.lua", case) for number, case in enumerate(CASES)}
        turns = [
            {case: _turn(stack.url + case.path, scripts[case], processes) for case in CASES}
            for _ in range(TURNS)
        ]
    return {case: [one[case] for one in turns] for case in CASES}


def _backend(port: int) -> dict[str, Any]:
    """An Envoy that reads the whole request and answers it itself."""
    routes: list[dict[str, Any]] = [
        {
            "match": {"prefix": path},
            "direct_response": {"status": 200, "body": {"inline_string": body.decode()}},
            "response_headers_to_add": [
                {
                    "header": {"key": "content-type", "value": "application/json"},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            ],
        }
        for path, body in (("/10", MIDDLE), ("/", b"{}"))
    ]
    config = static(port, routes)
    listener = config["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["max_direct_response_body_size_bytes"] = 100_000
    buffer = {"@type": f"{EXTENSIONS}.http.buffer.v3.Buffer", "max_request_bytes": 1_000_000}
    manager["http_filters"].insert(0, {"name": "envoy.filters.http.buffer", "typed_config": buffer})
    return config


def _gateway(port: int, backend: int) -> str:
    return f"""
listeners: {{http: {{port: {port}, address: 127.0.0.1}}}}
upstreams: {{backend: {{endpoints: ['127.0.0.1:{backend}']}}}}
routes:
  plain: {{path: /plain/*, upstream: backend, rewrite: {{path: /*}}}}
  request:
    path: /request/*
    upstream: backend
    rewrite: {{path: /*}}
    policies:
      transform:
        request:
          rename: {{user_name: userName, items.price: cost}}
          remove: [items.secret]
          set: {{requestId: {{from: request_id}}}}
  cache: {{path: /cache/*, upstream: backend, rewrite: {{path: /*}}, policies: {{cache: 1h}}}}
  schema: {{path: /schema/*, upstream: backend, rewrite: {{path: /*}}, policies: {{validate: {{json_schema: schema.json}}}}}}
  api: {{path: /api/*, upstream: backend, rewrite: {{path: /*}}, policies: {{validate: {{openapi: openapi.json}}}}}}
  fields:
    path: /fields/*
    upstream: backend
    rewrite: {{path: /*}}
    policies: {{fields: {{by: "query:view", default: [user_name, items.id, items.name]}}}}
"""


def _script(path: Path, case: Case) -> Path:
    """The requests of a case for wrk."""
    headers: Mapping[str, str] = {"content-type": "application/json"} if case.body else {}
    if case.coding:
        headers = {**headers, "content-encoding": case.coding}
    lines = [f'wrk.method = "{"POST" if case.body else "GET"}"']
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    if case.body:
        path.with_suffix(".body").write_bytes(case.body)
        lines.append(f'wrk.body = assert(io.open("{path.with_suffix(".body")}", "rb")):read("*a")')
    path.write_text("\n".join(lines))
    return path


def _turn(url: str, script: Path, processes: tuple[int, ...]) -> tuple[float, float, float]:
    """Requests/s, and microseconds of processor time for each. Raises RuntimeError if a response is not a success."""
    before = [cpu(one) for one in processes]
    command = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", str(SECONDS), "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used = [cpu(one) - spent for one, spent in zip(processes, before, strict=True)]
    count = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec: +([\d.]+)", done.stdout)
    if count is None or rate is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(done.stdout)
    each = [spent / int(count[1]) * 1e6 for spent in used]
    return float(rate[1]), each[0], sum(each)


if __name__ == "__main__":
    main()
