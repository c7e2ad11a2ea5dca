"""Every spelling of a path takes the same route, in the real Envoy and in what `xds explain` says."""

from __future__ import annotations

import http.client
import itertools
import json
from urllib.parse import quote

import pytest

from filters.model.escapes import RESERVED
from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.ports import free_port
from xds_server.translate.explain import Request, explain

YAML = """
listeners:
  a-first: {port: $port, address: 127.0.0.1}
  kept: {port: $kept, address: 127.0.0.1, escaped_slashes: keep}
upstreams: {echo: {endpoints: ["$echo"]}}
routes:
  files: {path: /files/*, respond: {body: files}}
  cafe: {path: /files/caf%C3%A9, respond: {body: cafe}}
  lower: {path: /th%c3%a9, methods: [GET], respond: {body: lower}}
  below: {path: /files/%E2%98%83/*, respond: {body: below}}
  reserved: {path: "/files/a!$$&'()+,;=:@b", respond: {body: reserved}}
  escaped: {path: /files/a%21%2a%5B%5Db, respond: {body: escaped}}
  template: {path: "/files/%C3%A4/{id}/v1:list", respond: {body: template}}
  regex: {path: '~^/files/(%C3%B6|o+)[%]?$$', respond: {body: regex}}
  address: {path: '~^/rx/[a-z]+@secret$$', respond: {body: address}}
  action: {path: '~^/rx/[^/]+:delete$$', respond: {body: action}}
  several: {path: '~^/rx/v[(;]1[^@/]$$', respond: {body: several}}
  others: {path: /rx/*, respond: {body: others}}
  question: {path: /files/what%3f, respond: {body: question}}
  percent: {path: /files/100%25, respond: {body: percent}}
  quote: {path: /files/%22, respond: {body: quote}}
  slash: {path: /files/a%2fb%5cc, listeners: [kept], respond: {body: slash}}
  moved: {path: /old/caf%C3%A9/*, upstream: echo, rewrite: {path: /new/*}}
  named: {path: "/old/%C3%A4/{id}", upstream: echo, rewrite: {path: "/new/{id}"}}
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend) -> Gateway:
    return gateways.start(YAML, kept=free_port(), echo=backend.address)


def _ask(gateway: Gateway, path: str, method: str = "GET", listener: str = "a-first") -> tuple[int, str]:
    """The status and body of the answer to this very path."""
    port = gateway.compiled.gateway.sections.listeners[listener].port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _any_case(path: str) -> list[str]:
    """The path with each escape in upper, lower and mixed case."""
    parts = path.split("%")
    choices = [
        dict.fromkeys(change(part[:2]) + part[2:] for change in (str.upper, str.lower, str.capitalize))
        for part in parts[1:]
    ]
    return ["%".join([parts[0], *chosen]) for chosen in itertools.product(*choices)]


ONE = [
    *((path, "cafe") for path in _any_case("/files/caf%C3%A9")),
    *((path, "cafe") for path in ("/files//caf%c3%a9", "/files/x/../caf%c3%A9", "/%66iles/c%61f%C3%a9?q=1")),
    *((path, "lower") for path in _any_case("/th%C3%A9")),
    *((path, "below") for path in _any_case("/files/%E2%98%83/x")),
    ("/files/%e2%98%83", "below"),
    ("/files/%e2%98%83x", "files"),
    *((f"/files/{quote(char, safe='')}", "files") for char in RESERVED),
    ("/files/a!$&'()+,;=:@b", "reserved"),
    ("/files/a%21%24%26%27%28%29%2b%2c%3b%3d%3a%40b", "reserved"),
    ("/files/a%21$%26'%28)%2B,%3B=%3A@b", "reserved"),
    ("/files/a!*[]b", "escaped"),
    *((path, "escaped") for path in _any_case("/files/a%21%2A%5B%5Db")),
    *((path, "template") for path in _any_case("/files/%C3%A4/7/v1%3Alist")),
    ("/files/%c3%a4/7/v1:list", "template"),
    *((path, "regex") for path in _any_case("/files/%C3%B6")),
    ("/files/oo", "regex"),
    ("/rx/a@secret", "address"),
    ("/rx/a%40secret", "address"),
    *(
        (path, "action")
        for path in ("/rx/1:delete", *_any_case("/rx/1%3Adelete"), "/rx/%:delete", "/rx/a%40b%3adelete")
    ),
    *(
        (f"/rx/v{one}1{last}", "several")
        for one in ("(", ";", "%28", "%3B", "%3b")
        for last in ("x", ":", "%3a")
    ),
    *((f"/rx/v;1{last}", "others") for last in ("@", "%40")),
    *((path, "question") for path in _any_case("/files/what%3F")),
    ("/files/what?", "files"),
    ("/files/100%25", "percent"),
    ("/files/100%2525", "files"),
    ("/files/100%", "files"),
    ("/files/%22", "quote"),
    ('/files/"', "quote"),
]


@pytest.mark.parametrize(("path", "taken"), ONE)
def test_every_spelling_takes_the_same_route(gateway: Gateway, path: str, taken: str) -> None:
    assert _ask(gateway, path) == (200, taken)
    told = explain(gateway.compiled.gateway, Request(method="GET", url=f"http://x{path}"), "a-first")
    assert told.route == taken


def test_a_method_that_is_not_allowed_is_told_for_every_spelling(gateway: Gateway) -> None:
    assert {_ask(gateway, path, "POST")[0] for path in _any_case("/th%C3%A9")} == {405}


@pytest.mark.parametrize("path", _any_case("/files/a%2Fb%5Cc"))
def test_an_escaped_slash_is_matched_where_it_is_kept(gateway: Gateway, path: str) -> None:
    assert _ask(gateway, path, listener="kept") == (200, "slash")
    assert _ask(gateway, path)[0] == 307


@pytest.mark.parametrize("spelling", _any_case("%C3%A9"))
@pytest.mark.parametrize("rest", ["", "/", "/a%c3/b"])
def test_a_prefix_is_rewritten_in_every_spelling(gateway: Gateway, spelling: str, rest: str) -> None:
    status, body = _ask(gateway, f"/old/caf{spelling}{rest}?q=%c3")
    assert (status, json.loads(body)["path"]) == (200, f"/new{rest}?q=%c3")


@pytest.mark.parametrize("spelling", _any_case("%C3%A4"))
def test_a_template_is_rewritten_in_every_spelling(gateway: Gateway, spelling: str) -> None:
    status, body = _ask(gateway, f"/old/{spelling}/%c3%9F")
    assert (status, json.loads(body)["path"]) == (200, "/new/%c3%9F")
