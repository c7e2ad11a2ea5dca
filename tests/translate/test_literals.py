"""The texts with which the values of a request begin that a route can match."""

from __future__ import annotations

import pytest
from envoy.config.route.v3 import route_components_pb2
from hypothesis import given
from hypothesis import strategies as st

from xds_server.gateway.model import regex
from xds_server.translate.literals import beginning, of_route

NO_PATH = {":path": ("", None)}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/v1/users/([^/]+)", "/v1/users/"),
        (r"/a\-b/([^/]+)", "/a-b/"),
        ("(?:^/v1/abc/[0-9]+).*", "/v1/abc/"),
        ("^/v1/x$", "/v1/x"),
        ("/ab?", "/a"),
        ("/ab*", "/a"),
        ("/ab{0,1}c", "/a"),
        ("/ab+", "/ab"),
        ("/a|/b", "/"),
        ("(?:/abc|/abd)x", "/ab"),
        ("(?i)/abc", "/"),
        (r"/\Qa.b\E.*", "/a.b"),
        (r"/a(?:\b/x|b)", "/a"),
        ("/a(?:$|b)", "/a"),
        (r"/caf\x{e9}/.*", "/caf"),
        (r"\b/ab", "/ab"),
        ("(/a)?/b", "/"),
        (".*secret.*", ""),
        ("", ""),
        (r"\C*", ""),
        ("(", ""),
    ],
)
def test_beginnings_of_expressions(pattern: str, expected: str) -> None:
    assert beginning(pattern) == expected


pieces = st.sampled_from(
    [
        "/",
        "a",
        "b",
        "(?:a|b)",
        "(?:a|)",
        "[ab]",
        "[^/]",
        "(?i:a)",
        ".",
        r"\b",
        r"\B",
        "^",
        "$",
        r"\Qa.\E",
        "é",
        r"\pL",
    ]
)
quantified = st.builds(str.__add__, pieces, st.sampled_from(["", "", "", "?", "*", "+", "{0,2}", "{2}"]))
patterns = st.lists(quantified, max_size=6).map("".join)


@given(st.lists(patterns, min_size=1, max_size=2).map("|".join), st.text("/abA.é", max_size=6))
def test_every_text_that_an_expression_matches_has_its_beginning(pattern: str, text: str) -> None:
    if regex.matches(pattern, text):
        assert text.startswith(beginning(pattern))


def _match(**match: object) -> route_components_pb2.RouteMatch:
    return route_components_pb2.RouteMatch(**match)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"path": "/a"}, {":path": ("/a", "?#")}),
        ({"prefix": "/a"}, {":path": ("/a", None)}),
        ({"path_separated_prefix": "/a"}, {":path": ("/a", "/?#")}),
        ({"path": "/a", "case_sensitive": {"value": False}}, NO_PATH),
        ({"path": "/a", "case_sensitive": {"value": True}}, {":path": ("/a", "?#")}),
        ({"path": "/é"}, {":path": ("/", None)}),
        ({"path": "/" + "a" * 200}, {":path": ("/" + "a" * 127, None)}),
        ({"connect_matcher": {}}, NO_PATH),
        ({"path_match_policy": {"name": "x"}}, NO_PATH),
    ],
)
def test_beginnings_of_paths(match: dict[str, object], expected: object) -> None:
    assert of_route(_match(**match)) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"name": "X-T", "string_match": {"exact": "a"}}, {"x-t": ("a", "")}),
        ({"name": ":method", "string_match": {"exact": "GET"}}, {":method": ("GET", "")}),
        ({"name": "x-t", "string_match": {"prefix": "a"}}, {"x-t": ("a", None)}),
        ({"name": "x-t", "string_match": {"exact": ""}}, {}),
        ({"name": "x-t", "string_match": {"suffix": "a"}}, {}),
        ({"name": "x-t", "string_match": {"exact": "a", "ignore_case": True}}, {}),
        ({"name": "x-t", "string_match": {"exact": "a"}, "invert_match": True}, {}),
        ({"name": "x-t", "string_match": {"exact": "a"}, "treat_missing_header_as_empty": True}, {}),
        ({"name": "x-t", "present_match": True}, {}),
        ({"name": "a b", "string_match": {"exact": "a"}}, {}),
        ({"name": ":path", "string_match": {"exact": "/a"}}, {}),
        ({"name": ":authority", "string_match": {"exact": "a"}}, {}),
    ],
)
def test_beginnings_of_headers(header: dict[str, object], expected: dict[str, object]) -> None:
    assert of_route(_match(prefix="/", headers=[header])) == {":path": ("/", None), **expected}
