"""A configuration in Traefik, and what is imported of it in Envoy: the same requests have the same results.

Runs only where Traefik is built: ``make traefik``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.policy_server import Stacks
from tests.support.traefik import Traefik, binary
from xds_server.imports.kinds import FILE, import_files

pytestmark = pytest.mark.skipif(binary() is None, reason="Traefik is not built: make traefik")

CONFIGURATION = """
http:
  routers:
    api: {rule: "Host(`api.example.com`) && PathPrefix(`/v1`)", service: one, middlewares: [strip]}
    api-admin: {rule: "Host(`api.example.com`) && PathPrefix(`/v1/admin`)", service: one, middlewares: [users]}
    api-write: {rule: "Host(`api.example.com`) && Path(`/write`) && (Method(`POST`) || Method(`PUT`))", service: two}
    either: {rule: "Host(`a.example.com`) || Path(`/either`)", service: two, middlewares: [added]}
    headers: {rule: "Path(`/headers`) && Header(`x-kind`, `new`)", service: two, middlewares: [headers]}
    headers-old: {rule: "Path(`/headers`)", service: one}
    query: {rule: "Path(`/query`) && Query(`page`, `2`)", service: one}
    regex: {rule: "PathRegexp(`^/things/[0-9]+$`)", service: one, middlewares: [replaced]}
    secure: {rule: "Path(`/secure`)", service: one, middlewares: [to-https]}
    allowed: {rule: "Path(`/allowed`)", service: one, middlewares: [office]}
    large: {rule: "Path(`/large`)", service: one, middlewares: [small-bodies]}
    staff: {rule: "PathPrefix(`/staff`)", service: one, middlewares: [users]}
    twice: {rule: "Path(`/twice`)", service: one, middlewares: [here, office]}
    twice-here: {rule: "Path(`/twice-here`)", service: one, middlewares: [here, this-address]}
    literal: {rule: "Path(`/literal/{id}`)", service: two}
    drained: {rule: "Path(`/drained`)", service: drained}
    rest: {rule: "PathPrefix(`/`)", service: one, priority: 1}
    anything: {rule: "Host(`any.example.com`)", service: both}
  services:
    one: {loadBalancer: {servers: [{url: "http://$one"}]}}
    two: {loadBalancer: {passHostHeader: false, servers: [{url: "http://$two"}]}}
    both: {weighted: {services: [{name: one, weight: 1}]}}
    drained: {weighted: {services: [{name: one, weight: 1}, {name: two, weight: 0}]}}
  middlewares:
    strip: {stripPrefix: {prefixes: [/v1]}}
    users: {basicAuth: {users: ["ann:{SHA}dEy5qfs9VYN0TqPs6bTYGdkL3uI="]}}
    added: {addPrefix: {prefix: /base}}
    headers: {headers: {customRequestHeaders: {x-added: "yes", x-removed: ""}, customResponseHeaders: {x-answer: "1"}}}
    replaced: {replacePathRegex: {regex: "^/things/(.*)", replacement: "/thing-$1"}}
    to-https: {redirectScheme: {scheme: https, permanent: true}}
    office: {ipAllowList: {sourceRange: [192.0.2.0/24]}}
    here: {ipAllowList: {sourceRange: [127.0.0.0/8]}}
    this-address: {ipAllowList: {sourceRange: [127.0.0.1]}}
    small-bodies: {buffering: {maxRequestBodyBytes: 10}}
"""
API, ANY = {"host": "api.example.com"}, {"host": "any.example.com"}
REST = {"host": "rest.example.com"}
ANN, BOB = {"authorization": "Basic YW5uOmFubg=="}, {"authorization": "Basic YW5uOmJvYg=="}
REQUESTS: tuple[tuple[str, str, dict[str, str], bytes], ...] = (
    ("GET", "/v1/users?a=1", API, b""),
    ("GET", "/v1", API, b""),
    ("GET", "/v1/users", REST, b""),
    ("GET", "/v1/admin/x", API, b""),
    ("GET", "/v1/admin/x", {**API, **ANN}, b""),
    ("GET", "/v1/admin/x", {**API, **BOB}, b""),
    ("POST", "/write", API, b"x"),
    ("PUT", "/write", API, b"x"),
    ("GET", "/either", REST, b""),
    ("GET", "/x/y", {"host": "a.example.com"}, b""),
    ("GET", "/headers", {**REST, "x-kind": "new", "x-removed": "1"}, b""),
    ("GET", "/headers", REST, b""),
    ("GET", "/query?page=2", REST, b""),
    ("GET", "/query?page=3", REST, b""),
    ("GET", "/things/12", REST, b""),
    ("GET", "/things/x", REST, b""),
    ("GET", "/secure?a=1", REST, b""),
    ("GET", "/allowed", REST, b""),
    ("GET", "/twice", REST, b""),
    ("GET", "/twice-here", REST, b""),
    ("GET", "/literal/x", REST, b""),
    ("GET", "/drained", REST, b""),
    ("GET", "/drained", REST, b""),
    ("POST", "/large", REST, b"123"),
    ("POST", "/large", REST, b"12345678901"),
    ("GET", "/anything", ANY, b""),
    ("GET", "/nothing", REST, b""),
    ("GET", "/staff/x", REST, b""),
    ("GET", "/staff.html", REST, b""),
    ("GET", "/staff.html", {**REST, **ANN}, b""),
)


class Result(NamedTuple):
    """What a client sees, and what the service saw."""

    status: int
    location: str | None
    answer: str | None
    service: Any


class Both(NamedTuple):
    """Where the configuration runs in Traefik, and where what is imported of it runs."""

    theirs: str
    ours: str


@pytest.fixture(scope="module")
def both(stacks: Stacks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder: Path = tmp_path_factory.mktemp("traefik")
    with Backend("one") as one, Backend("two") as two:
        text = CONFIGURATION.replace("$one", one.address).replace("$two", two.address)
        imported = import_files("traefik", {"dynamic.yaml": text.encode()})
        assert not [one for one in imported.problems if one.severity == "error"]
        gateway = imported.files[FILE].decode().replace("$", "$$")
        gateway = gateway.replace("port: 80}", "port: $port, address: 127.0.0.1}", 1)
        files = {name: content.decode() for name, content in imported.files.items() if name != FILE}
        with Traefik(text, folder) as traefik:
            yield Both(traefik.url, stacks.start(gateway, files=files).url)


def _result(url: str, method: str, path: str, headers: dict[str, str], body: bytes) -> Result:
    found = httpx.request(method, url + path, headers=headers, content=body, timeout=30)
    service: Any = None
    if found.status_code == 200:
        seen = found.json()
        kept = {name: seen["headers"].get(name) for name in ("x-added", "x-removed", "authorization")}
        host = (
            "that of the server"
            if seen["headers"]["host"].startswith("127.0.0.1")
            else seen["headers"]["host"]
        )
        service = (seen["backend"], seen["method"], seen["path"], host, kept, seen["body"])
    return Result(found.status_code, found.headers.get("location"), found.headers.get("x-answer"), service)


@pytest.mark.parametrize(("method", "path", "headers", "body"), REQUESTS)
def test_a_request_has_the_same_result(
    both: Both, method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    assert _result(both.ours, method, path, headers, body) == _result(
        both.theirs, method, path, headers, body
    )
