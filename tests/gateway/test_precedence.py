"""Routes that no request can tell apart are errors, those that no request reaches are warnings."""

from __future__ import annotations

import pytest

from tests.support.reading import read, warnings
from xds_server.gateway.model.ports import ports
from xds_server.translate.virtual_hosts import by_host

LISTENERS = "listeners: {http: {port: 8080}, inner: {port: 8081}}\n"


def _routes(**routes: str) -> str:
    lines = [f"  {name}: {{{keys}, respond: {{}}}}" for name, keys in routes.items()]
    return LISTENERS + "routes:\n" + "\n".join(lines) + "\n"


def _order(**routes: str) -> list[str]:
    reading = read(_routes(**routes))
    assert reading.gateway is not None, reading.problems
    port = ports(reading.gateway.sections)[0]
    return [one.name for one in by_host(reading.gateway.ranked.values(), port, "http")["*"]]


def test_the_kind_of_path_decides_first() -> None:
    assert _order(a="path: /*", b="path: '~^/x'", c="path: '/{id}'", d="path: /x", e="path: /x/*") == [
        "d", "c", "b", "e", "a",
    ]  # fmt: skip


def test_then_method_headers_query_and_name_decide() -> None:
    order = _order(
        e="path: /x",
        d="path: /x, query: {q: 1}",
        c="path: /x, headers: {h: 1}",
        b="path: /x, headers: {h: 1, i: 1}",
        a="path: /x, methods: [GET]",
    )
    assert order == ["a", "b", "c", "d", "e"]


def test_the_longer_prefix_and_the_template_with_more_text_win() -> None:
    assert _order(a="path: /x/*", b="path: /x/y/*", c="path: '/{a}/{b}'", d="path: '/{a}/y'") == [
        "d", "c", "b", "a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("path: /x", "path: /x"),
        ("path: '/x/{a}'", "path: '/x/{b}'"),
        ("path: /x, hosts: [a.example, b.example]", "path: /x, hosts: [B.EXAMPLE]"),
        ("path: /x, methods: [GET, PUT]", "path: /x, methods: [PUT, GET]"),
        ("path: /x, headers: {X-One: 1}", "path: /x, headers: {x-one: '1'}"),
        ("path: /x, listeners: [http]", "path: /x"),
    ],
)
def test_routes_that_no_request_can_tell_apart_are_an_error(one: str, other: str) -> None:
    errors = read(_routes(one=one, other=other)).errors
    assert [f"{error.where}: {error.message}" for error in errors] == [
        "routes.other: no request can tell this route from 'one'"
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("path: /x", "path: /x/*"),
        ("path: /x, hosts: [a.example]", "path: /x"),
        ("path: /x, methods: [GET]", "path: /x, methods: [POST]"),
        ("path: /x, listeners: [http]", "path: /x, listeners: [inner]"),
        ("path: /x, headers: {h: 1}", "path: /x, query: {h: 1}"),
        ("path: /x, headers: {h: 1}", "path: /x, headers: {h: {prefix: 1}}"),
    ],
)
def test_routes_that_some_request_tells_apart_are_fine(one: str, other: str) -> None:
    assert warnings(read(_routes(one=one, other=other))) == []


@pytest.mark.parametrize(
    ("shadowed", "others"),
    [
        ("path: /x, methods: [GET]", ["path: /x, methods: [GET, POST]"]),
        ("path: /x, methods: [GET, PUT]", ["path: /x, methods: [GET, POST]", "path: /x, methods: [PUT]"]),
        (
            "path: /x, methods: [GET], hosts: [a.example, b.example]",
            ["path: /x, methods: [GET, HEAD], hosts: [a.example]", "path: /x, methods: [GET, PUT], hosts: [b.example]"],
        ),
        (
            "path: /x, methods: [GET]",
            ["path: /x, methods: [GET, HEAD], listeners: [http]", "path: /x, methods: [GET, PUT], listeners: [inner]"],
        ),
        ("path: /api/users/*", ["path: '~^/api/.*'"]),
        ("path: /api/*, methods: [GET]", ["path: '~^/api'"]),
    ],
)  # fmt: skip
def test_a_route_that_no_request_reaches_is_warned_of(shadowed: str, others: list[str]) -> None:
    routes = {f"a{number}": other for number, other in enumerate(others)} | {"z": shadowed}
    assert warnings(read(_routes(**routes))) == ["routes.z: no request reaches this route: 'a0' always wins"]


@pytest.mark.parametrize(
    ("route", "other"),
    [
        ("path: /x, methods: [GET, PUT]", "path: /x, methods: [GET]"),
        ("path: /x, methods: [GET]", "path: /x, methods: [GET, PUT], listeners: [http]"),
        ("path: /x, methods: [GET], hosts: ['*.example.com']", "path: /x, methods: [GET, PUT], hosts: [a.example.com]"),
        ("path: /x, methods: [GET]", "path: /x, methods: [GET, PUT], headers: {h: 1}"),
        ("path: /api/*", "path: '~^/api/$'"),
        ("path: /api/*", "path: '~^/api/v1'"),
        ("path: /api/*", "path: '~^/api/.*', methods: [GET]"),
        ("path: /api", "path: '~^/api.*'"),
    ],
)  # fmt: skip
def test_a_route_that_some_request_reaches_is_not_warned_of(route: str, other: str) -> None:
    assert warnings(read(_routes(a=other, z=route))) == []
