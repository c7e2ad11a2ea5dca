"""authorize: what is read, and what would allow nobody."""

from __future__ import annotations

import pytest

from filters.authorization.authorize import OVERRIDES, Authorize, Rule
from filters.identity.jwt import JwtSettings
from filters.language import Problems, decoder_for
from filters.policy import Context

AUTHENTICATED = Context(effective={"jwt": JwtSettings(provider="corp")})


def _read(value: object) -> tuple[object, Problems]:
    problems = Problems()
    return decoder_for(Authorize.settings)(value, ("authorize",), problems), problems


def test_claims_keep_the_types_of_their_values() -> None:
    rule, problems = _read({"claims": {"a": "1", "b": 1, "c": True, "d": ["x", 2, False]}})
    assert not problems
    assert isinstance(rule, Rule)
    assert dict(rule.claims) == {"a": "1", "b": 1, "c": True, "d": ("x", 2, False)}
    assert rule.claims["c"] is True


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"scopes": ["a b"]},
        {"methods": ["get"]},
        {"claims": {"a": []}},
        {"claims": {"": "x"}},
        {"claims": {"a": 9007199254740993}},
        {"claims": {"a": ["x", -1e16]}},
        {"when": "claim.x"},
        {"paths": ["orders"]},
        {"paths": ["/a/*/b"]},
        {"paths": ["/a/../b"]},
        {"paths": ["/a//b"]},
        {"paths": ["/%61"]},
        {"paths": ["/%"]},
        {"paths": ["/a?b"]},
        {"paths": []},
        {"deny": True},
        {"deny": True, "when": "request.method == 'GET'"},
        {"when": "consumer =="},
    ],
)
def test_a_rule_that_makes_no_sense_is_a_problem(value: object) -> None:
    assert len(_read(value)[1]) == 1


def test_consumers_and_plans_must_exist() -> None:
    named = [(section, name) for _, section, name in _read({"consumers": ["a"], "plans": ["b"]})[1].names]
    assert named == [("consumers", "a"), ("plans", "b")]


def test_a_rule_about_callers_needs_a_route_that_knows_them() -> None:
    rule = Rule(scopes=("read",))
    assert [one.message for one in Authorize().check(rule, Context())] == [
        "no caller is identified here, so no request would be allowed"
    ]
    assert not list(Authorize().check(rule, AUTHENTICATED))
    assert not list(Authorize().check(Rule(methods=("GET",)), Context()))


def test_rules_are_in_shadow_together_and_are_some() -> None:
    assert list(
        Authorize().check((Rule(methods=("GET",)), Rule(methods=("PUT",), shadow=True)), AUTHENTICATED)
    )
    assert list(Authorize().check((), AUTHENTICATED))


def test_where_the_method_decides_no_header_gives_the_upstream_another() -> None:
    assert Authorize().on_route(Rule(methods=("GET",)), Context()).request_headers_to_remove == OVERRIDES
    assert Authorize().on_route(Rule(scopes=("x",)), Context()).request_headers_to_remove == ()
