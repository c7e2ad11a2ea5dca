"""Key sets: which keys Envoy gets, and why the others are left out."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from filters.model.jwks import NOBODYS_KEY, key_set
from tests.support import key_sets, tokens
from tests.support.certificates import Authority


@pytest.mark.parametrize("name", key_sets.SINGLE)
def test_a_key_that_is_left_out_leaves_the_others(name: str) -> None:
    key, reason = key_sets.SINGLE[name]
    found = key_set(key_sets.key_set(key, key_sets.EC))
    assert [one["kid"] for one in found.keys] == ["ec"]
    assert len(found.faults) == 1
    assert reason in found.faults[0].reason
    alone = key_set(key_sets.key_set(key))
    assert (alone.keys, alone.fault) == ((), "none of its keys can be used")


@pytest.mark.parametrize("name", key_sets.WHOLE)
def test_what_is_no_key_set_says_what_it_is(name: str) -> None:
    content, reason = key_sets.WHOLE[name]
    assert key_set(content).keys == ()
    assert reason in key_set(content).fault


@pytest.mark.parametrize("name", key_sets.GOOD)
def test_what_envoy_gets_holds_only_what_it_reads(name: str) -> None:
    document = json.loads(key_set(key_sets.GOOD[name]).document())
    assert key_sets.RSA["n"] in [key.get("n") for key in document["keys"]]
    for key in document["keys"]:
        assert key.keys() <= {"kty", "kid", "alg", "n", "e", "crv", "x", "y"}


def test_a_left_out_key_is_named_by_its_kid_or_its_position() -> None:
    found = key_set(key_sets.key_set(key_sets.RSA, {"kty": "oct"}, {"kty": "oct", "kid": "shared"}))
    assert [fault.key for fault in found.faults] == ["number 2", "shared"]


def test_certificates_by_kid_are_a_key_set_too() -> None:
    found = key_set(json.dumps({"one": key_sets.certificate(), "two": key_sets.certificate()}).encode())
    assert [(key["kid"], key["n"]) for key in found.keys] == [
        (kid, key_sets.RSA["n"]) for kid in ("one", "two")
    ]


def test_a_certificate_without_an_rsa_key_is_left_out_alone() -> None:
    pem = Authority().pem.decode()
    found = key_set(json.dumps({"one": key_sets.certificate(), "two": pem}).encode())
    assert [key["kid"] for key in found.keys] == ["one"]
    assert [(fault.key, fault.reason) for fault in found.faults] == [
        ("two", "the certificate's key is not RSA")
    ]


def test_nobody_knows_the_private_half_of_the_key_that_stands_for_none() -> None:
    document: dict[str, Any] = json.loads(key_set(b"").document())
    assert document == {"keys": [NOBODYS_KEY]}
    x, y = (int.from_bytes(base64.urlsafe_b64decode(NOBODYS_KEY[name])) for name in "xy")
    assert x == int.from_bytes(hashlib.sha512(b"nobody's key 0").digest())
    ec.EllipticCurvePublicNumbers(x, y, ec.SECP521R1()).public_key()


def test_no_key_that_was_made_for_the_tests_is_taken_by_accident() -> None:
    assert len(key_set(tokens.jwks().encode()).keys) == 3
