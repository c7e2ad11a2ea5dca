"""jwt: what is read, and which requirements Envoy gets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from filters.identity import Jwks, Provider
from filters.jwt import FILTER, Jwt, JwtSettings, jwks_fault, requirement_name
from filters.language import Problems, decoder_for
from filters.policy import Context

JWKS = Jwks(inline='{"keys": [{"kty": "RSA"}]}')
CONTEXT = Context(
    providers={name: Provider(jwks=JWKS) for name in ("corp", "partner")},
    contents={JWKS: b'{"keys": [{"kty": "RSA"}]}'},
)


def _read(value: object) -> tuple[object, Problems]:
    problems = Problems()
    return decoder_for(JwtSettings)(value, ("jwt",), problems), problems


def test_a_name_and_a_list_are_the_short_forms() -> None:
    assert _read("corp")[0] == JwtSettings(provider="corp")
    assert _read(["corp", "partner"])[0] == JwtSettings(any=("corp", "partner"))


def test_every_provider_that_is_named_must_exist() -> None:
    named = [(section, name) for _, section, name in _read({"all": ["corp", "other"]})[1].names]
    assert named == [("identity", "corp"), ("identity", "other")]
    assert [name for *_, name in _read(["corp"])[1].names] == ["corp"]


@pytest.mark.parametrize(
    "value",
    [
        [],
        [1],
        {},
        {"provider": "a", "any": ["b"]},
        {"any": ["a", "a"]},
        {"all": ["a", "b"], "optional": True},
    ],
)
def test_what_makes_no_sense_is_a_problem(value: object) -> None:
    assert len(_read(value)[1]) == 1


def test_the_name_of_a_requirement_does_not_depend_on_the_order_of_its_providers() -> None:
    one, other = JwtSettings(any=("a", "b")), JwtSettings(any=("b", "a"))
    assert requirement_name(one, judge=True) == requirement_name(other, judge=True)
    assert requirement_name(one, judge=True) != requirement_name(JwtSettings(all=("a", "b")), judge=True)


def test_every_requirement_is_there_before_any_route_uses_it_and_after_none_does() -> None:
    (one,) = Jwt().http_filters((), CONTEXT)
    assert one.name == FILTER
    assert one.dynamic
    judged = {
        "corp",
        "corp ?",
        "partner",
        "partner ?",
        "corp | partner",
        "corp | partner ?",
        "corp & partner",
    }
    assert set(one.config.requirement_map) == judged | {f"{name} *" for name in judged}
    (used,) = Jwt().http_filters([JwtSettings(all=("partner", "corp"))], CONTEXT)
    assert used.config == one.config


def test_of_many_providers_each_alone_is_there() -> None:
    names = [f"p{number}" for number in range(50)]
    context = replace(CONTEXT, providers=dict.fromkeys(names, CONTEXT.providers["corp"]))
    (one,) = Jwt().http_filters([JwtSettings(any=("p1", "p2"))], context)
    expected = {
        f"{name}{optional}{judge}" for name in names for optional in ("", " ?") for judge in ("", " *")
    }
    assert set(one.config.requirement_map) == expected | {"p1 | p2", "p1 | p2 *"}


def test_a_key_set_that_cannot_be_used_is_a_problem_of_its_route_and_spoils_no_other_provider() -> None:
    broken = Jwks(inline="<html>")
    providers = {**CONTEXT.providers, "broken": Provider(jwks=broken)}
    context = Context(providers=providers, contents={**CONTEXT.contents, broken: b"<html>"})
    assert len(list(Jwt().check(JwtSettings(provider="broken"), context))) == 1
    (one,) = Jwt().http_filters((), context)
    assert sorted(one.config.providers) == ["corp", "partner"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": [1]}', b'{"keys": [{"kty": "oct"}]}', b"\xff"]
)
def test_what_is_no_set_of_public_keys(content: bytes) -> None:
    assert jwks_fault(content) is not None
