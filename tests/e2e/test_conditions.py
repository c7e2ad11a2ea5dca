"""Conditions of authorize in the real Envoy: every one lets one request pass and refuses another."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.identity_cases import sha256

KEY = {"x-api-key": "secret-of-acme"}


@dataclass(frozen=True)
class Case:
    """A condition, with the headers of a request that it allows and of one that it refuses."""

    when: str
    allows: dict[str, str] = field(default_factory=dict)
    refuses: dict[str, str] = field(default_factory=dict)


CASES = (
    Case("request.headers['x-a'] == 'yes'", {"x-a": "yes"}, {"x-a": "no"}),
    Case('request.headers["x-a"] != "no"', {"x-a": "yes"}, {"x-a": "no"}),
    Case("has(request.headers.a)", {"a": ""}),
    Case("'x-a' in request.headers", {"x-a": ""}),
    Case("!('x-a' in request.headers)", {}, {"x-a": ""}),
    Case("request.headers.a in ['one', 'two']", {"a": "two"}, {"a": "three"}),
    Case("request.headers.a.startsWith('ab')", {"a": "abc"}, {"a": "bab"}),
    Case("request.headers.a.endsWith('bc')", {"a": "abc"}, {"a": "abcd"}),
    Case("request.headers.a.contains('b')", {"a": "abc"}, {"a": "ac"}),
    Case(r"request.headers.a.matches('^\\d+$')", {"a": "12"}, {"a": "1b"}),
    Case(r"request.headers.a.matches(r'^\d+$')", {"a": "12"}, {"a": "1b"}),
    # of an expression whose program is larger than 100 instructions Envoy evaluates nothing
    Case("'aaaa'.matches(request.headers.a)", {"a": "^a{4}$"}, {"a": "^a{4}$|b{200}"}),
    Case("size(request.headers.a) > 2", {"a": "abc"}, {"a": "ab"}),
    Case("request.headers.a.size() == 2", {"a": "ab"}, {"a": "abc"}),
    Case("int(request.headers.a) >= 10", {"a": "10"}, {"a": "9"}),
    Case("int(request.headers.a) + 1 == 2 * 3 - 10 / 5 % 3", {"a": "3"}, {"a": "4"}),
    Case("-int(request.headers.a) < -5", {"a": "6"}, {"a": "5"}),
    Case("uint(request.headers.a) == 7u", {"a": "7"}, {"a": "8"}),
    Case("double(request.headers.a) < 2.5", {"a": "2.4"}, {"a": "2.6"}),
    # kinds of numbers that CEL's types keep apart
    Case("int(request.headers.a) > 2.5", {"a": "3"}, {"a": "2"}),
    Case("size(request.headers.a) == 2u", {"a": "ab"}, {"a": "a"}),
    Case("int(request.headers.a) == 0x10", {"a": "16"}, {"a": "10"}),
    Case(
        "timestamp(request.headers.a) > request.time",
        {"a": "2200-01-01T00:00:00Z"},
        {"a": "2001-01-01T00:00:00Z"},
    ),
    Case(
        "request.time - timestamp(request.headers.a) > duration('1h')",
        {"a": "2001-01-01T00:00:00Z"},
        {"a": "2200-01-01T00:00:00Z"},
    ),
    Case("[request.headers.a, 'b'][0] == 'a'", {"a": "a"}, {"a": "b"}),
    Case(
        "request.headers.a == 'a' ? true : request.headers.b == 'b'",
        {"a": "x", "b": "b"},
        {"a": "x", "b": "x"},
    ),
    Case("request.headers.a == 'a' || request.headers.b == 'b'", {"b": "b"}, {"a": "b"}),
    Case(
        "request.headers.a == 'a' && !(request.headers.b == 'b')", {"a": "a", "b": "c"}, {"a": "a", "b": "b"}
    ),
    Case(
        "request.query == 'q=1' && request.scheme == 'http' && request.headers.a == 'a'",
        {"a": "a"},
        {"a": "b"},
    ),
    Case(
        "request.size == 0 && !connection.mtls && source.address.startsWith('127.') && request.headers.a == 'a'",
        {"a": "a"},
    ),
    Case("has(consumer)", KEY),
    Case("has(consumer) && consumer == 'acme' && authenticated_by == 'api_key'", KEY),
    Case("!has(provider) && !has(claims)", KEY),
    Case("plan == 'free' // of acme", KEY),
    Case("'free' == plan\n&& request.headers.a == 'a'", {**KEY, "a": "a"}, KEY),
)


YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {echo: {endpoints: [$echo]}}
plans: {free: {}, pro: {}}
consumers: {acme: {plan: free, api_keys: [{sha256: $digest}]}}
routes: $routes
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend) -> Gateway:
    routes = {
        f"r{number}": {
            "path": f"/{number}",
            "upstream": "echo",
            "policies": {"api_key": {"optional": True}, "authorize": {"when": case.when}},
        }
        for number, case in enumerate(CASES)
    }
    digest = sha256(KEY["x-api-key"])
    return gateways.start(YAML, echo=backend.address, digest=digest, routes=json.dumps(routes))


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_condition_lets_one_request_pass_and_refuses_another(gateway: Gateway, number: int) -> None:
    case = CASES[number]
    path = f"/{number}?q=1"
    assert gateway.get(path, headers=case.allows).status_code == 200
    refused = gateway.get(path, headers=case.refuses)
    assert (refused.status_code, refused.json()["reason"]) == (403, "not_authorized")
