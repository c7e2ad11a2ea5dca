"""Rules of Traefik: their alternatives match what the rule matches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from xds_server.imports.traefik_rules import Matcher, RuleError, alternatives, conditions

Rule = Any
"""A name of a matcher, or an operator with rules."""
NAMES = ("A", "B", "C", "D")
RULES: st.SearchStrategy[Rule] = st.recursive(
    st.sampled_from(NAMES),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["&&", "||"]), inner, inner), st.tuples(st.just("!"), inner)
    ),
    max_leaves=6,
)


def text(rule: Rule) -> str:
    if isinstance(rule, str):
        return f"Header(`{rule}`, `1`)"
    if rule[0] == "!":
        return f"!({text(rule[1])})"
    return f"({text(rule[1])} {rule[0]} {text(rule[2])})"


def holds(rule: Rule, true: frozenset[str]) -> bool:
    if isinstance(rule, str):
        return rule in true
    if rule[0] == "!":
        return not holds(rule[1], true)
    sides = (holds(rule[1], true), holds(rule[2], true))
    return all(sides) if rule[0] == "&&" else any(sides)


@given(RULES, st.frozensets(st.sampled_from(NAMES)))
def test_some_alternative_matches_if_and_only_if_the_rule_does(rule: Rule, true: frozenset[str]) -> None:
    try:
        found = alternatives(text(rule))
    except RuleError:
        reject()  # it has too many alternatives
    matches = any(all((one.values[0] in true) != one.negated for one in each) for each in found)
    assert matches == holds(rule, true)


def test_and_binds_more_than_or() -> None:
    found = alternatives("Host(`a`) || Host(`b`) && Path(`/c`)")
    assert found == [
        (Matcher("Host", ("a",)),),
        (Matcher("Host", ("b",)), Matcher("Path", ("/c",))),
    ]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("Host(`A.example.com`, `b`)", {"hosts": ["a.example.com", "b"]}),
        (r"HostRegexp(`^[^.]+\.example\.com$`)", {"hosts": ["*.example.com"]}),
        ("PathPrefix(`/`)", {"path": "/*"}),
        ("PathRegexp(`^/v[0-9]+`)", {"path": "~^/v[0-9]+.*"}),
        ("Method(`get`) && Query(`a`, `1`)", {"methods": ["GET"], "query": {"a": "1"}}),
        ("HeaderRegexp(`x`, `^a+$`)", {"headers": {"x": {"regex": "a+"}}}),
        ("!Query(`x`)", {"query": {"x": {"present": False}}}),
    ],
)
def test_matchers_are_conditions(rule: str, expected: dict[str, Any]) -> None:
    (found,) = alternatives(rule)
    assert conditions(found) == [expected]


def test_a_negated_matcher_matches_without_the_header_too() -> None:
    (found,) = alternatives("!Header(`x`, `1`)")
    assert conditions(found) == [
        {"headers": {"x": {"present": False}}},
        {"headers": {"x": {"exact": "1", "not": True}}},
    ]


@pytest.mark.parametrize(
    "rule", ["!Path(`/a`)", "ClientIP(`10.0.0.1`)", "Path(`/a`) && Path(`/b`)", "HostRegexp(`a|b`)"]
)
def test_matchers_without_an_equal_are_told(rule: str) -> None:
    (found,) = alternatives(rule)
    with pytest.raises(RuleError, match="no equal"):
        conditions(found)


@pytest.mark.parametrize(
    "rule", ["", "Host(`a`", "Host(`a`) &&", "(Host(`a`)", "Host(a)", "&&", "Host(`a`) Path(`/b`)"]
)
def test_what_is_no_rule_is_told(rule: str) -> None:
    with pytest.raises(RuleError):
        alternatives(rule)
