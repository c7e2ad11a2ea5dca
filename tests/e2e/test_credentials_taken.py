"""The upstream and the access log see no credential but one that was verified and is forwarded."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.identity_cases import ACME, CONSUMERS, HTPASSWD, PROVIDERS, partner
from tests.support.wait import wait_for

ROUTES = """
  places: {path: /places, upstream: echo, policies: {api_key: {header: x-key, query: api_key, cookie: key}}}
  forward:
    path: /forward
    upstream: echo
    policies: {api_key: {header: x-key, query: api_key, cookie: key, forward: true}, basic_auth: {forward: true}}
  header: {path: /header, upstream: echo, policies: {api_key: {header: authorization}, basic_auth: true}}
  any: {path: /any, upstream: echo, policies: {jwt: [corp, partner], api_key: {header: x-key, query: key}, basic_auth: true}}
  optional:
    path: /optional
    upstream: echo
    policies: {jwt: {provider: partner, optional: true}, basic_auth: {optional: true}}
  both: {path: /both, upstream: echo, policies: {jwt: partner, api_key: {query: key}, authentication: all}}
  token: {path: /token, upstream: echo, policies: {jwt: partner}}
  open: {path: /open, upstream: echo}
"""
PASSWORD = "Basic " + base64.b64encode(b"acme:acme:password").decode()
Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """`send` makes the headers, `path` may have {names} of tokens; `seen` is what the upstream sees of both."""

    name: str
    path: str
    send: Callable[[], Headers] = tuple
    status: int = 200
    seen_path: str | None = None
    seen: Mapping[str, str | None] = field(default_factory=dict)


GONE = {"x-key": None, "authorization": None, "cookie": None, "x-token": None}
CASES = (
    Case(
        name="a key at three places",
        path=f"/places?a=1&api_key={ACME}&b=2",
        send=lambda: [("x-key", ACME), ("cookie", f"a=b; key={ACME}; c=d")],
        seen_path="/places?a=1&b=2",
        seen={"x-key": None, "cookie": "a=b; c=d"},
    ),
    Case(
        name="other values at the places that did not win",
        path="/places?api_key=x&api%5Fkey=y&api_keys=z",
        send=lambda: [("x-key", ACME), ("cookie", "key=x"), ("cookie", "keys=y; key=z")],
        seen_path="/places?api_keys=z",
        seen={"x-key": None, "cookie": "keys=y"},
    ),
    Case(
        name="a parameter that is all of the query",
        path=f"/places?api_key={ACME}",
        seen_path="/places",
        seen=GONE,
    ),
    Case(
        name="a query without a credential stays as it is",
        path="/places?&a&&b=%zz+",
        send=lambda: [("x-key", ACME)],
        seen_path="/places?&a&&b=%zz+",
        seen=GONE,
    ),
    Case(
        name="a forwarded key stays where it was found alone",
        path="/forward?api_key=x",
        send=lambda: [("x-key", ACME), ("cookie", "key=y"), ("authorization", PASSWORD)],
        seen_path="/forward",
        seen={**GONE, "x-key": ACME},
    ),
    Case(
        name="a forwarded password",
        path="/forward",
        send=lambda: [("authorization", PASSWORD)],
        seen={**GONE, "authorization": PASSWORD},
    ),
    Case(
        name="a scheme that the route does not look at",
        path="/forward",
        send=lambda: [("x-key", ACME), ("authorization", "Digest x")],
        seen={"x-key": ACME, "authorization": "Digest x"},
    ),
    *(
        Case(
            name=f"a password behind another scheme, {name}",
            path=path,
            send=lambda headers=headers: [("x-key", ACME), *headers],
            seen={"authorization": None},
        )
        for path in ("/forward", "/any")
        for name, headers in (
            ("on another line", [("authorization", "Digest a"), ("authorization", PASSWORD)]),
            ("on the line before", [("authorization", PASSWORD), ("authorization", "Digest a")]),
            ("on one line", [("authorization", f"Digest a,{PASSWORD}")]),
            ("after a space", [("authorization", f"Digest a {PASSWORD}")]),
            ("with a tab", [("authorization", PASSWORD.replace(" ", "\t"))]),
            ("in other letters", [("authorization", f"Digest a=b, bASIC{PASSWORD[5:]}")]),
        )
    ),
    *(
        Case(
            name=f"an expired token behind another scheme, {name}",
            path="/any",
            send=lambda between=between: [
                ("x-key", ACME),
                ("authorization", f"Digest a{between}{tokens.token(exp=1)}"),
            ],
            seen=GONE,
        )
        for name, between in (
            ("after a comma", ", Bearer "),
            ("with a tab", ",Bearer\t"),
            ("small", ",bearer "),
        )
    ),
    *(
        Case(
            name=f"a cookie that is written {written}",
            path=path,
            send=lambda written=written: [("x-key", ACME), ("cookie", f"a=b; {written}{ACME}; c=d")],
            seen={"cookie": "a=b; c=d"},
        )
        for path in ("/places", "/forward")
        for written in ("key =", '"key"=', "key\t=", ' "key" = ')
    ),
    Case(
        name="a cookie that nobody verified beside a token that is forwarded",
        path="/optional?token={partner}",
        send=lambda: [("cookie", f'a=b; "session"={partner(exp=1)}')],
        seen_path="/optional",
        seen={"cookie": "a=b"},
    ),
    Case(name="a key without a scheme", path="/header", send=lambda: [("authorization", ACME)], seen=GONE),
    Case(
        name="a password beside a key",
        path=f"/any?key={ACME}",
        send=lambda: [("authorization", PASSWORD)],
        seen_path="/any",
        seen=GONE,
    ),
    Case(
        name="a key and another issuer's token beside a token that is forwarded",
        path=f"/any?key={ACME}&token={{partner}}",
        send=lambda: [("authorization", f"Bearer {tokens.token()}"), ("x-key", ACME), ("x-token", partner())],
        seen_path="/any",
        seen={"x-key": None, "x-token": None},
    ),
    Case(
        name="a token that nobody verified beside a key",
        path="/any",
        send=lambda: [("x-key", ACME), ("authorization", f"Bearer {tokens.token(exp=1)}")],
        seen=GONE,
    ),
    Case(
        name="a forged token beside a token",
        path="/any",
        send=lambda: [("x-token", partner()), ("authorization", f"Bearer {tokens.forged_with_public_key()}")],
        seen=GONE,
    ),
    Case(
        name="a password beside a token of the query and of a cookie",
        path="/optional?token={partner}",
        send=lambda: [("authorization", PASSWORD), ("cookie", f"session={partner()}; a=b")],
        seen_path="/optional",
        seen={"authorization": None, "cookie": "a=b"},
    ),
    Case(
        name="optional, none",
        path="/optional?a=b",
        send=lambda: [("authorization", "Digest x")],
        seen_path="/optional?a=b",
        seen={"authorization": "Digest x"},
    ),
    Case(
        name="all that is needed",
        path=f"/both?key={ACME}&token={{partner}}&a=1",
        seen_path="/both?a=1",
        seen=GONE,
    ),
    Case(
        name="an open route",
        path=f"/open?key={ACME}",
        send=lambda: [("authorization", PASSWORD)],
        seen_path=f"/open?key={ACME}",
        seen={"authorization": PASSWORD},
    ),
)
REFUSED = (
    Case(name="an unknown key", path="/places?api_key=secret-1", status=401),
    Case(name="two keys", path="/places?api_key=secret-2&api_key=secret-2", status=401),
    Case(name="an expired token", path="/token?token={expired}", status=401),
    Case(name="an expired token beside others", path="/any?token={expired}", status=401),
    Case(name="no token at all", path="/token?token=secret-3", status=401),
    Case(name="one of two is missing", path=f"/both?key={ACME}", status=401),
)
DOUBTFUL = (
    Case(
        name="a key in two spellings of a cookie",
        path="/places",
        send=lambda: [("cookie", f'key={ACME}; "key"=x')],
        status=401,
    ),
    Case(
        name="a password behind another scheme",
        path="/optional",
        send=lambda: [("authorization", "Digest a"), ("authorization", PASSWORD)],
        status=401,
    ),
)


YAML = """
listeners: {http: {port: $port}}
telemetry: {access_logs: {lines: {query: [case]}}}
upstreams: {echo: {endpoints: [$echo]}}
$providers$consumers
routes:$routes
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend) -> Gateway:
    return gateways.start(
        YAML,
        files={"jwks.json": tokens.jwks(), "htpasswd": HTPASSWD},
        echo=backend.address,
        providers=PROVIDERS,
        consumers=CONSUMERS,
        routes=ROUTES,
    )


def _send(gateway: Gateway, case: Case) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    try:
        path = case.path.format(partner=partner(), expired=partner(exp=1))
        connection.putrequest("GET", path)
        for name, value in case.send():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_upstream_sees_no_credential_that_did_not_win(gateway: Gateway, case: Case) -> None:
    status, request = _send(gateway, case)
    assert status == case.status, request
    if case.seen_path is not None:
        assert request["path"] == case.seen_path
    assert {name: request["headers"].get(name) for name in case.seen} == dict(case.seen)


@pytest.mark.parametrize("case", DOUBTFUL, ids=lambda case: case.name)
def test_a_credential_that_services_could_read_otherwise_is_refused(gateway: Gateway, case: Case) -> None:
    assert _send(gateway, case)[0] == case.status


def test_what_is_refused_stands_in_no_access_log(gateway: Gateway) -> None:
    for number, case in enumerate(REFUSED):
        numbered = replace(case, path=f"{case.path}&case={number}")
        assert _send(gateway, numbered)[0] == case.status, case.name
    wanted = [(case.path.partition("?")[0], str(number)) for number, case in enumerate(REFUSED)]
    wait_for(lambda: len(_logged(gateway)) == len(REFUSED), "Envoy to write its access log")
    assert _logged(gateway) == wanted


def _logged(gateway: Gateway) -> list[tuple[str, str]]:
    """The paths and the cases in the access log."""
    return [(one["path"], one["query"]["case"]) for one in gateway.envoy.access_log() if "query" in one]
