"""What differs between what is expected and what happened."""

from __future__ import annotations

from typing import Any

import pytest

from filters.language import INVALID, Problems, decoder_for
from xds_server.testing.comparison import Difference, Outcome, Received, compare
from xds_server.testing.language import Expected

ASKED = Received(
    upstream="users",
    method="POST",
    path="/v1/users?x=1",
    headers=(("x-user", "ann"), ("accept", "a"), ("accept", "b")),
    body=b'{"name": "Ann"}',
)
OUTCOME = Outcome(
    status=200,
    headers=(("content-type", "application/json"), ("x-gateway-reason", "late")),
    body=b'{"id": 1, "tags": ["a", "b"], "on": true}',
    route="users",
    received=(ASKED,),
)


def _differences(expected: Any, outcome: Outcome = OUTCOME) -> list[Difference]:
    problems = Problems()
    decoded = decoder_for(Expected)(expected, (), problems)
    assert decoded is not INVALID, problems
    return list(compare(decoded, outcome))


@pytest.mark.parametrize(
    "expected",
    [
        200,
        {"headers": {"Content-Type": "application/json", "x-debug": {"present": False}}},
        {"json": {"id": 1}},
        {"json": {"tags": ["a", "b"], "on": True}},
        {"body": {"contains": '"id"'}},
        {"body": {"regex": r".*\[.*\].*"}},
        {"route": "users", "reason": "late"},
        {"upstream": "users"},
        {"upstream": {"name": "orders", "times": 0}},
        {"upstream": {"times": 1, "method": "POST", "path": "/v1/users"}},
        {"upstream": {"path": "/v1/users?x=1", "json": {"name": "Ann"}}},
        {"upstream": {"headers": {"accept": "a, b", "x-user": {"prefix": "a"}}}},
    ],
)
def test_nothing_differs(expected: Any) -> None:
    assert _differences(expected) == []


@pytest.mark.parametrize(
    ("expected", "path", "wanted", "found"),
    [
        (404, ("status",), "404", "200"),
        ({"headers": {"etag": "x"}}, ("headers", "etag"), "x", "nothing"),
        ({"headers": {"content-type": {"present": False}}}, ("headers", "content-type"), "nothing", "application/json"),
        ({"headers": {"content-type": {"exact": "application/json", "not": True}}},
         ("headers", "content-type"), "not: application/json", "application/json"),
        ({"json": {"id": 2}}, ("json", "id"), "2", "1"),
        ({"json": {"on": 1}}, ("json", "on"), "1", "true"),
        ({"json": {"name": "x"}}, ("json", "name"), '"x"', "nothing"),
        ({"json": {"tags": ["a", "c"]}}, ("json", "tags", 1), '"c"', '"b"'),
        ({"json": {"tags": ["a"]}}, ("json", "tags"), '["a"]', '["a", "b"]'),
        ({"body": "x"}, ("body",), "x", OUTCOME.body.decode()),
        ({"route": "off"}, ("route",), "nothing", "users"),
        ({"route": "orders"}, ("route",), "orders", "users"),
        ({"reason": "off"}, ("reason",), "nothing", "late"),
        ({"upstream": "off"}, ("upstream",), "no request to an upstream", "POST /v1/users?x=1 to users"),
        ({"upstream": "orders"}, ("upstream",), "a request to orders", "POST /v1/users?x=1 to users"),
        ({"upstream": {"name": "users", "times": 0}}, ("upstream", "times"), "0", "1"),
        ({"upstream": {"times": 2}}, ("upstream", "times"), "2", "1"),
        ({"upstream": {"method": "GET"}}, ("upstream", "method"), "GET", "POST"),
        ({"upstream": {"path": "/users"}}, ("upstream", "path"), "/users", "/v1/users?x=1"),
        ({"upstream": {"path": "/v1/users?x=2"}}, ("upstream", "path"), "/v1/users?x=2", "/v1/users?x=1"),
        ({"upstream": {"headers": {"x-user": "bob"}}}, ("upstream", "headers", "x-user"), "bob", "ann"),
        ({"upstream": {"json": {"name": "Bob"}}}, ("upstream", "json", "name"), '"Bob"', '"Ann"'),
    ],
)  # fmt: skip
def test_a_difference_has_the_path_of_the_expectation(
    expected: Any, path: tuple[str | int, ...], wanted: str, found: str
) -> None:
    assert _differences(expected) == [Difference(path, wanted, found)]


def test_a_body_that_is_not_json_is_shown() -> None:
    (difference,) = _differences({"json": {"id": 1}}, Outcome(status=200, body=b"<html>"))
    assert difference == Difference(("json",), '{"id": 1}', "<html>")


def test_a_line_end_at_the_end_of_a_body_does_not_count() -> None:
    assert _differences({"body": "a\nb\n"}, Outcome(status=200, body=b"a\nb")) == []


def test_without_a_response_nothing_else_is_compared() -> None:
    assert _differences({"status": 200, "route": "users"}, Outcome(status=0, error="no response: reset")) == [
        Difference((), "a response", "no response: reset")
    ]


def test_the_last_of_several_requests_is_compared() -> None:
    first = Received(upstream="users", method="POST", path="/first", headers=(), body=b"")
    outcome = Outcome(status=200, received=(first, ASKED))
    assert _differences({"upstream": {"times": 2, "path": "/v1/users"}}, outcome) == []
