"""Warnings for what was written and never takes part."""

from __future__ import annotations

import pytest

from tests.support.reading import read, warnings

USED = """
listeners:
  http: {port: 8080}
upstreams:
  users: {endpoints: ['127.0.0.1:1']}
  copies: {endpoints: ['127.0.0.1:2']}
  raw: {endpoints: ['127.0.0.1:3']}
identity:
  corp: {issuer: corp, jwks: {url: 'https://idp.example/jwks'}}
plans:
  pro: {rate_limit: 10/second}
consumers:
  acme: {plan: pro, jwt: {provider: corp, claim: azp, value: acme}}
policy_sets:
  partner: {jwt: corp}
routes:
  users: {path: /*, upstream: users, mirror: copies, use: [partner]}
  other: {path: /x, upstream: users, envoy: {route: {request_mirror_policies: [{cluster: raw}]}}}
"""


def test_nothing_is_said_of_what_is_used() -> None:
    assert warnings(read(USED)) == []


@pytest.mark.parametrize(
    ("written", "warning"),
    [
        ("upstreams:\n  idle: {endpoints: ['127.0.0.1:4']}\n", "upstreams.idle: no object uses this"),
        ("policy_sets:\n  idle: {request_id: true}\n", "policy_sets.idle: no object uses this"),
        ("plans:\n  idle: {rate_limit: 1/second}\n", "plans.idle: no object uses this"),
        (
            "identity:\n  idle: {jwks: {url: 'https://idp.example/jwks'}}\n",
            "identity.idle: no object uses this",
        ),
        ("consumers:\n  nobody: {plan: pro}\n", "consumers.nobody: this consumer has no credentials"),
        (
            "consumers:\n  keyed: {api_keys: [{sha256: " + "a" * 64 + "}]}\n",
            "consumers.keyed: no route has the policy api_key, which would identify this consumer",
        ),
    ],
)
def test_what_nothing_uses_is_warned_of(written: str, warning: str) -> None:
    reading = read({"a.yaml": USED, "b.yaml": written})
    assert warnings(reading) == [warning]
    assert str(reading.problems[0].place) == "b.yaml:2:3"


@pytest.mark.parametrize(
    ("route", "warning"),
    [
        (
            "idle_timeout: 1h",
            "routes.r.idle_timeout: the timeout ends every response after 15s, before this",
        ),
        (
            "idle_timeout: 1h, timeout: 30s",
            "routes.r.idle_timeout: the timeout ends every response after 30s, before this",
        ),
        (
            "headers: {Accept: {contains: text/event-stream}}",
            "routes.r.headers.Accept: the timeout ends every response after 15s, server-sent events too",
        ),
        (
            "headers: {Accept: {contains: event-stream}}",
            "routes.r.headers.Accept: the timeout ends every response after 15s, server-sent events too",
        ),
        (
            "headers: {Accept: {suffix: /event-stream}}",
            "routes.r.headers.Accept: the timeout ends every response after 15s, server-sent events too",
        ),
        (
            "headers: {Accept: {prefix: text/event}}",
            "routes.r.headers.Accept: the timeout ends every response after 15s, server-sent events too",
        ),
        (
            "headers: {Accept: {regex: 'text/event.stream.*'}}",
            "routes.r.headers.Accept: the timeout ends every response after 15s, server-sent events too",
        ),
        ("headers: {accept: {prefix: text/}}", None),
        ("headers: {accept: {contains: json}}", None),
        ("idle_timeout: 1h, timeout: 0", None),
        ("idle_timeout: 10s", None),
        ("idle_timeout: 1h, websocket: true", None),
        ("headers: {accept: text/event-stream}, timeout: 1h", None),
        ("headers: {accept: {prefix: text/event-stream, not: true}}", None),
    ],
)
def test_long_answers_that_a_timeout_ends_are_warned_of(route: str, warning: str | None) -> None:
    text = f"""
listeners: {{http: {{port: 8080}}}}
upstreams: {{u: {{endpoints: ['127.0.0.1:1']}}, g: {{endpoints: ['127.0.0.1:2'], protocol: grpc}}}}
routes:
  r: {{path: /*, upstream: u, {route}}}
  g: {{path: /g, upstream: g, idle_timeout: 1h}}
"""
    assert warnings(read(text)) == ([] if warning is None else [warning])


def test_routes_without_any_listener_are_warned_of() -> None:
    reading = read("routes:\n  ping: {path: /ping, respond: {}}\n")
    assert warnings(reading) == ["routes: no listener answers, so no request reaches these routes"]


@pytest.mark.parametrize(
    ("route", "warned"),
    [
        ("hosts: [other.test]", False),
        ("hosts: [other.test], listeners: [a, wild]", True),
        ("hosts: [a.example.com], listeners: [wild]", True),
        ("hosts: ['*.example.com'], listeners: [a]", False),
        ("listeners: [a]", False),
        ("hosts: [x.a.example.com], listeners: [a]", True),
        ("hosts: [x.example.com, a.example.com], listeners: [wild]", False),
        ("hosts: ['*.example.com'], listeners: [rest]", True),
    ],
)
def test_a_route_whose_hosts_belong_to_no_listener_of_it_is_warned_of(route: str, warned: bool) -> None:
    text = f"""
listeners:
  a: {{port: 80, hosts: [a.example.com]}}
  wild: {{port: 80, hosts: ['*.example.com']}}
  rest: {{port: 80}}
routes:
  r: {{{route}, respond: {{}}}}
"""
    message = "routes.r.hosts: no listener of this route has its hosts, so no request reaches it"
    assert warnings(read(text)) == ([message] if warned else [])


@pytest.mark.parametrize(
    ("stream_route", "warned"),
    [
        ("server_names: [far.test]", True),
        ("server_names: [far.test, x.example.com]", False),
        ("server_names: ['*.test', '*.com']", False),
        ("listeners: [tcp]", False),
    ],
)
def test_a_stream_route_whose_names_its_listeners_do_not_have_is_warned_of(
    stream_route: str, warned: bool
) -> None:
    text = f"""
listeners: {{tcp: {{port: 443, protocol: tcp, hosts: ['*.example.com']}}}}
upstreams: {{u: {{endpoints: ['127.0.0.1:1']}}}}
stream_routes: {{s: {{{stream_route}, upstream: u}}}}
"""
    message = (
        "stream_routes.s.server_names: no listener of this stream route has these hosts, so no connection "
        "reaches it"
    )
    assert warnings(read(text)) == ([message] if warned else [])


def test_listeners_and_stream_routes_without_each_other_are_warned_of() -> None:
    upstreams = "upstreams: {u: {endpoints: ['127.0.0.1:1']}}\n"
    assert warnings(read(upstreams + "stream_routes: {s: {upstream: u}}\n")) == [
        "stream_routes.s: no listener forwards connections, so none reaches this stream route"
    ]
    assert warnings(read("listeners: {t: {port: 1, protocol: tcp}}\n")) == [
        "listeners.t: no stream route is on this listener, so every connection is closed"
    ]
    assert warnings(read("listeners: {t: {port: 1, protocol: tcp}}\nroutes: {r: {respond: {}}}\n"))[1:] == [
        "routes: no listener answers, so no request reaches these routes"
    ]


def test_a_file_that_is_no_yaml_makes_no_other_file_look_wrong() -> None:
    reading = read({
        "a.yaml": "listeners: {http: {port: 8080}}\nroutes:\n  users: {path: /*, upstream: users}\n",
        "b.yaml": "upstreams:\n\tusers: {endpoints: ['127.0.0.1:1']}\n",
    })  # fmt: skip
    assert [str(problem.place) for problem in reading.problems] == ["b.yaml:2:1"]


def test_a_segment_that_other_gateways_take_for_a_name_is_told() -> None:
    reading = read(
        USED
        + "  named: {path: '/items/:id/x', upstream: users}\n  verb: {path: '/items:get', upstream: users}\n"
    )
    assert warnings(reading) == ["routes.named.path: ':id' is plain text here, and matches no other segment"]


def test_sections_for_anchors_are_not_read() -> None:
    reading = read(
        "x-common: &common {path: /common, upstream: users}\nx-list: [1, 2]\n" + USED + "  common: *common\n"
    )
    assert warnings(reading) == []
    assert reading.gateway is not None
    assert reading.gateway.sections.routes["common"].match.value == "/common"
