"""A gateway and its export: the same requests to both, each at a real Envoy, have the same route, status and headers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.ports import free_port
from tests.support.running import ROOT, Running, Served
from tests.support.wait import wait_for

GATEWAY = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams:
  one: {endpoints: ["$one"]}
  two: {endpoints: ["$two"]}
consumers: {app: {api_keys: [{sha256: 2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683}]}}
routes:
  version: {path: /version, upstream: one, rewrite: {path: /ready}}
  exact: {path: /exact, upstream: one}
  tree: {path: /tree/*, upstream: two, rewrite: {path: /v2/*}}
  deeper: {path: /tree/deeper/*, upstream: one}
  numbers: {path: "/items/{id}", methods: [GET], upstream: one}
  hosted: {path: /exact, hosts: [shop.example.com], upstream: two, rewrite: {host: inside.example.com}}
  marked: {path: /exact, headers: {x-mark: {prefix: "a."}}, upstream: two}
  asked: {path: /exact, query: {q: "1"}, upstream: two, request_headers: {set: {x-set: "1"}, remove: [x-gone]}}
  moved: {path: /moved/*, redirect: {to: "https://new.example.com/there/*", status: 301}}
  answered: {path: /changed, upstream: one, response_headers: {set: {x-answer: "yes"}}}
  page: {path: /page, upstream: one, policies: {cors: {allow_origins: ["https://a.example"]}}}
  secret: {path: /secret/*, upstream: one, policies: {api_key: true}}
"""
REQUESTS: list[tuple[str, str, dict[str, str]]] = [
    ("GET", "/exact", {}),
    ("GET", "/exact/", {}),
    ("GET", "/exact", {"host": "shop.example.com"}),
    ("GET", "/exact", {"x-mark": "a.b"}),
    ("GET", "/exact", {"x-mark": "ab"}),
    ("GET", "/exact?q=1", {"x-gone": "1"}),
    ("GET", "/exact?q=2", {}),
    ("GET", "/tree", {}),
    ("GET", "/tree/a/b?c=d", {}),
    ("GET", "/trees", {}),
    ("GET", "/tree/deeper/x", {}),
    ("GET", "/items/7", {}),
    ("GET", "/items/7/8", {}),
    ("GET", "/moved/a?b=c", {}),
    ("GET", "/changed", {}),
    ("GET", "/page", {"origin": "https://a.example"}),
    ("POST", "/tree/x", {}),
    ("GET", "/nowhere", {}),
]


@pytest.fixture(scope="module")
def backends() -> Iterator[tuple[Backend, Backend]]:
    with Backend("one") as one, Backend("two") as two:
        yield one, two


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory, backends: tuple[Backend, Backend]
) -> Iterator[tuple[str, str]]:
    """The addresses of the gateway, and of what was exported, served as manifests."""
    root = Path(tmp_path_factory.mktemp("export"))
    one, two = backends
    gateway = Served(root, GATEWAY, one=one.address, two=two.address)
    gateway.write("1")
    folder, port = root / "manifests", free_port()
    command = [
        sys.executable,
        "-m",
        "xds_server",
        "export",
        "gateway-api",
        str(gateway.folder),
        "--to",
        str(folder),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "policy 'api_key' has no equal in the Gateway API" in done.stderr
    for file in folder.iterdir():
        file.write_text(file.read_text().replace(f"port: {gateway.port}\n", f"port: {port}\n"))
    with gateway, Running(folder, root) as exported:
        urls = [gateway.url, f"http://127.0.0.1:{port}"]
        wait_for(lambda: {httpx.get(f"{one}/exact").status_code for one in urls} == {200}, "the routes")
        assert exported.process is not None
        yield urls[0], urls[1]


def seen(url: str, method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    """What a client and the service see of a request."""
    answer = httpx.request(method, f"{url}{path}", headers=headers, timeout=30)
    found: dict[str, Any] = {"status": answer.status_code}
    for name in ("location", "x-answer", "access-control-allow-origin"):
        found[name] = answer.headers.get(name)
    if answer.status_code == 200:
        echoed = answer.json()
        found["backend"], found["path"] = echoed["backend"], echoed["path"]
        host = echoed["headers"]["host"]
        found["host"] = host if "example" in host else ""
        found |= {name: echoed["headers"].get(name) for name in ("x-set", "x-gone", "x-mark")}
    return found


@pytest.mark.parametrize(("method", "path", "headers"), REQUESTS)
def test_the_export_does_what_the_gateway_does(
    method: str, path: str, headers: dict[str, str], both: tuple[str, str]
) -> None:
    ours, theirs = both
    assert seen(theirs, method, path, headers) == seen(ours, method, path, headers)


def test_what_was_protected_is_closed(both: tuple[str, str]) -> None:
    ours, theirs = both
    assert httpx.get(f"{ours}/secret/x").status_code == 401
    assert httpx.get(f"{theirs}/secret/x").status_code == 500
    assert httpx.get(f"{theirs}/secret/x", headers={"x-api-key": "key"}).status_code == 500
