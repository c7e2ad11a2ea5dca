"""Which route takes a request: paths, hosts, methods, headers, queries, listeners, and what is more specific."""

from __future__ import annotations

import httpx
import pytest

from tests.support.gateway import Gateway, Gateways
from tests.support.ports import free_port

YAML = """
listeners:
  a-first: {port: $port, address: 127.0.0.1}
  inner: {port: $inner, address: 127.0.0.1}
routes:
  exact: {path: /x, respond: {body: exact}}
  prefix: {path: /p/*, respond: {body: prefix}}
  longer: {path: /p/long/*, respond: {body: longer}}
  template: {path: "/p/{id}/orders", respond: {body: template}}
  beside: {path: /p/me/orders, respond: {body: beside}}
  regex: {path: '~^/v\\d+/', respond: {body: regex}}
  letters: {path: '~^/letters/[\\pL\\d]+$$', respond: {body: letters}}
  long: {path: "/l/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}/{j}/end", respond: {body: long}}
  inside: {path: '~secret', respond: {body: inside}}
  dotted: {path: /a.b/*, respond: {body: dotted}}
  exact-host: {path: /h, hosts: [api.example.com], respond: {body: exact-host}}
  wildcard: {path: /h, hosts: ["*.example.com"], respond: {body: wildcard}}
  deeper: {path: /h, hosts: ["*.eu.example.com"], respond: {body: deeper}}
  any-host: {path: /h, respond: {body: any-host}}
  only-wildcard: {path: /only, hosts: ["*.example.com"], respond: {body: only-wildcard}}
  inner: {path: /inner, listeners: [inner], respond: {body: inner}}
  read: {path: /m, methods: [GET, HEAD], respond: {body: read}}
  write: {path: /m, methods: [POST], respond: {body: write}}
  rest: {path: /m/any, respond: {body: rest}}
  purge: {path: /m/any, methods: [PURGE], respond: {body: purge}}
  two-headers: {path: /c, headers: {x-a: "1", x-b: {present: true}}, respond: {body: two-headers}}
  one-header: {path: /c, headers: {x-a: "1"}, respond: {body: one-header}}
  no-header: {path: /c, headers: {x-c: {present: false}, x-d: {regex: "[0-9]+"}}, respond: {body: no-header}}
  query: {path: /c, query: {q: "1"}, respond: {body: query}}
  queries: {path: /c, query: {q: "1", r: {present: true}}, respond: {body: queries}}
  query-regex: {path: /c, query: {n: {regex: "[0-9]+"}}, respond: {body: query-regex}}
  query-not: {path: /c, query: {s: {exact: "1", not: true}}, headers: {x-not: "1"}, respond: {body: query-not}}
  query-nots:
    path: /c
    headers: {x-nots: "1"}
    query: {p: {prefix: a.b, not: true}, q2: {suffix: "no", not: true}}
    respond: {body: query-nots}
  query-not-in:
    path: /c
    headers: {x-nots: "1"}
    query: {p: {present: true}, q2: {contains: in, not: true}, q3: "1"}
    respond: {body: query-not-in}
  affixes: {path: /c, headers: {x-p: {prefix: ab}, x-s: {suffix: yz}, x-m: {contains: mn}}, respond: {body: affixes}}
  otherwise: {path: /c, respond: {body: otherwise}}
"""


@pytest.fixture(scope="module")
def inner() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, inner: int) -> Gateway:
    return gateways.start(YAML, inner=inner)


def _taken(answer: httpx.Response) -> str | int:
    """The route that answered, or the status when none did."""
    return answer.text if answer.status_code == 200 else answer.status_code


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("/x", "exact"),
        ("/x?y=1", "exact"),
        ("/x/", 404),
        ("/X", 404),
        ("/p", "prefix"),
        ("/p/", "prefix"),
        ("/p/a/b", "prefix"),
        ("/py", 404),
        ("/p/long", "longer"),
        ("/p/long/a", "longer"),
        ("/p/longer", "prefix"),
        ("/p/7/orders", "template"),
        ("/p/me/orders", "beside"),
        ("/p/a/b/orders", "prefix"),
        ("/p//orders", "prefix"),
        ("/v12/a", "regex"),
        ("/letters/abc7", "letters"),
        ("/letters/a-b", 404),
        ("/l/1/2/3/4/5/6/7/8/9/10/end", "long"),
        ("/v/a", 404),
        ("/to/v1/a", 404),
        ("/some/secrets", "inside"),
        ("/a.b/c", "dotted"),
        ("/axb/c", 404),
        ("/p/../x", "exact"),
        ("/%78", "exact"),
    ],
)
def test_paths(gateway: Gateway, path: str, taken: str | int) -> None:
    # The client must not tidy the path up.
    with gateway.client() as client:
        request = client.build_request("GET", "/", extensions={"target": path.encode()})
        assert _taken(client.send(request)) == taken


@pytest.mark.parametrize(
    ("host", "path", "taken"),
    [
        ("api.example.com", "/h", "exact-host"),
        ("API.Example.com:8080", "/h", "exact-host"),
        ("api.example.com.", "/h", "exact-host"),
        ("www.example.com", "/h", "wildcard"),
        ("a.b.example.com", "/h", "wildcard"),
        ("a.eu.example.com", "/h", "deeper"),
        ("example.com", "/h", "any-host"),
        ("api.example.com.evil.test", "/h", "any-host"),
        ("evilexample.com", "/h", "any-host"),
        ("api.example.com", "/only", "only-wildcard"),
        ("api.example.com", "/x", "exact"),
        ("example.com", "/only", 404),
    ],
)
def test_hosts(gateway: Gateway, host: str, path: str, taken: str | int) -> None:
    assert _taken(gateway.get(path, headers={"host": host})) == taken


@pytest.mark.parametrize(
    ("method", "path", "taken"),
    [
        ("GET", "/m", "read"),
        ("POST", "/m", "write"),
        ("DELETE", "/m", 405),
        ("PURGE", "/m/any", "purge"),
        ("DELETE", "/m/any", "rest"),
    ],
)
def test_methods(gateway: Gateway, method: str, path: str, taken: str | int) -> None:
    assert _taken(gateway.request(method, path)) == taken


@pytest.mark.parametrize(
    ("headers", "query", "taken"),
    [
        ({"x-a": "1", "x-b": ""}, "", "two-headers"),
        ({"X-A": "1"}, "", "one-header"),
        ({"x-a": "1"}, "q=1&r=2", "one-header"),
        ({"x-a": "11"}, "", "otherwise"),
        ({"x-d": "12"}, "", "no-header"),
        ({"x-d": "12x"}, "", "otherwise"),
        ({"x-d": "12", "x-c": ""}, "", "otherwise"),
        ({"x-p": "abc", "x-s": "xyz", "x-m": "lmno"}, "", "affixes"),
        ({"x-p": "bab", "x-s": "xyz", "x-m": "lmno"}, "", "otherwise"),
        ({}, "q=1", "query"),
        ({}, "q=1&r", "queries"),
        ({}, "q=11", "otherwise"),
        ({}, "a=2&q=1", "query"),
        ({}, "q=2&q=1", "otherwise"),
        ({}, "n=12", "query-regex"),
        ({}, "n=12a", "otherwise"),
        ({"x-not": "1"}, "s=2", "query-not"),
        ({"x-not": "1"}, "s=1", "otherwise"),
        ({"x-not": "1"}, "a=1&s=11&b=1", "query-not"),
        ({"x-not": "1"}, "a=1&s=1&b=1", "otherwise"),
        ({"x-not": "1"}, "s=2&s=1", "otherwise"),
        ({"x-not": "1"}, "ss=1", "otherwise"),
        ({"x-not": "1"}, "s", "query-not"),
        ({"x-nots": "1"}, "p=b.c&q2=1", "query-nots"),
        ({"x-nots": "1"}, "p=a.bc&q2=1", "otherwise"),
        ({"x-nots": "1"}, "p=axbc&q2=1", "query-nots"),
        ({"x-nots": "1"}, "p=b&q2=1no", "otherwise"),
        ({"x-nots": "1"}, "p=b&q2=1no2", "query-nots"),
        ({"x-nots": "1"}, "p=a.b&q2=1in2&q3=1", "otherwise"),
        ({"x-nots": "1"}, "p=a.b&q2=1&q3=1", "query-not-in"),
        ({}, "Q=1", "otherwise"),
    ],
)
def test_headers_and_queries(gateway: Gateway, headers: dict[str, str], query: str, taken: str) -> None:
    assert _taken(gateway.get(f"/c?{query}", headers=headers)) == taken


def test_listeners(gateway: Gateway, inner: int) -> None:
    assert _taken(gateway.get("/inner")) == 404
    assert _taken(httpx.get(f"http://127.0.0.1:{inner}/inner", timeout=30)) == "inner"
    assert _taken(httpx.get(f"http://127.0.0.1:{inner}/x", timeout=30)) == "exact"
