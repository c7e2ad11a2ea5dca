"""jwt: what is read, and which requirements Envoy gets."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from filters.identity.jwt import FILTER, Jwt, JwtSettings, requirement_name
from filters.language import Problems, decoder_for
from filters.model.identity import Jwks, Provider
from filters.model.jwks import NOBODYS_KEY
from filters.policy import Context
from tests.support.key_sets import RSA, key_set

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


def test_a_key_set_that_cannot_be_used_is_a_warning_and_spoils_no_other_provider() -> None:
    broken = Jwks(file="keys.json")
    providers = {**CONTEXT.providers, "broken": Provider(jwks=broken)}
    context = Context(providers=providers, contents={**CONTEXT.contents, broken: b"<html>"})
    (*_, doubt) = Jwt().cross_checks(context)
    assert (doubt.path, doubt.severity) == (("identity", "broken", "jwks"), "warning")
    assert doubt.message == "keys.json has no usable key: it is not JSON; tokens of 'broken' are answered 503"
    (one,) = Jwt().http_filters((), context)
    assert sorted(one.config.providers) == ["broken", "corp", "partner"]
    given = one.config.providers["broken"].local_jwks.inline_bytes
    assert json.loads(given) == {"keys": [NOBODYS_KEY]}


def test_each_key_that_is_left_out_is_told() -> None:
    keys = Jwks(file="keys.json")
    content = key_set(RSA, {"kty": "oct", "kid": "shared"}, {"kty": "RSA"})
    context = Context(providers={"corp": Provider(jwks=keys)}, contents={keys: content})
    messages = [one.message for one in Jwt().cross_checks(context)]
    assert messages == [
        "the key 'shared' of keys.json is left out: its 'kty' is 'oct': a secret that both sides share is no public key",
        "the key 'number 3' of keys.json is left out: it has no 'n'",
    ]
