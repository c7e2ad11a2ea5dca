"""Credentials: the tables that the script gets, and what cannot be told apart."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.identity.authentication import FILTER, Authentication, protected
from filters.identity.htpasswd import read
from filters.identity.script import script
from filters.language import Mistake
from filters.lua_literals import lua
from filters.model.identity import ApiKey, Consumer, ConsumerJwt, ConsumerPassword, Jwks, Provider
from filters.model.shared_credentials import conflicts
from filters.policy import Context

KEY = ApiKey(sha256="a" * 64)


def _table(name: str, text: str) -> list[list[str]]:
    found = re.search(rf"^{name} = \[==\[\n(.*?)\]==\]$", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return [line.split("\t") for line in found[1].splitlines()]


def test_every_credential_points_to_its_consumer() -> None:
    text = script({"b": Consumer(api_keys=(KEY,)), "a": Consumer(plan="pro")}, {}, {})
    assert _table("CONSUMERS", text) == [["a", "pro", "", ""], ["b", "", "", ""]]
    assert _table("KEYS", text) == [["a" * 64, "2", "", ""]]


@pytest.mark.parametrize(
    ("not_after", "last"),
    [("1970-01-02", 2 * 86400 - 1), ("1970-01-01T00:00:10Z", 10), ("1970-01-01T02:00:10+02:00", 10)],
)
def test_a_date_alone_lasts_to_its_end(not_after: str, last: int) -> None:
    text = script({"a": Consumer(api_keys=(ApiKey(sha256="a" * 64, not_after=not_after),))}, {}, {})
    assert _table("KEYS", text)[0][2] == str(last)


@given(st.text(st.characters(codec="utf-8")))
def test_no_value_leaves_its_cell_of_the_table(value: str) -> None:
    consumer = Consumer(jwt=ConsumerJwt(provider="corp", claim=value, value=value))
    (row,) = _table("CLAIMS", script({"a": consumer}, {}, {}))
    assert row[0] == "corp"
    assert row[3] == "1"
    plain = re.sub(rb"%(..)", lambda match: bytes([int(match[1], 16)]), row[2].encode())
    assert plain == value.encode()


def test_equal_consumers_are_an_equal_script_in_whatever_order() -> None:
    one = {"a": Consumer(api_keys=(KEY,)), "b": Consumer()}
    assert script(one, {}, {}) == script(dict(reversed(one.items())), {}, {})


@pytest.mark.parametrize(
    "consumer",
    [
        Consumer(api_keys=(KEY,)),
        Consumer(jwt=ConsumerJwt(provider="corp", claim="sub", value="x")),
        Consumer(basic_auth=(ConsumerPassword(username="x", sha256="a" * 64),)),
        Consumer(certificates=("x.test",)),
    ],
)
def test_a_credential_of_two_consumers_is_a_mistake(consumer: Consumer) -> None:
    (mistake,) = conflicts({"a": consumer, "b": consumer})
    assert mistake.path[0] == "b"
    assert "'a'" in mistake.message
    assert list(conflicts({"a": consumer})) == []


def test_a_day_that_does_not_exist_is_a_mistake() -> None:
    key = ApiKey(sha256="a" * 64, not_after="2027-02-30")
    assert [mistake.path for mistake in conflicts({"a": Consumer(api_keys=(key,))})] == [
        ("a", "api_keys", 0, "not_after")
    ]


def test_an_htpasswd_file_is_read_and_what_nobody_verifies_is_refused_by_line() -> None:
    digest = hashlib.sha1(b"secret").digest()
    line = b"ann:{SHA}" + base64.b64encode(digest)
    assert list(read(b"# users\n\n" + line)) == [("ann", f"sha1:{digest.hex()}")]
    for form in (b"$2y$", b"$2b$", b"$2a$"):
        slow = form + b"10$" + b"." * 53
        assert list(read(b"bob:" + slow)) == [("bob", f"bcrypt:{slow.decode()}")]
    wrong_lines = (
        b"bob:$2y$05$abc",
        b"bob:$2x$05$" + b"." * 53,
        b"bob:$2y$03$" + b"." * 53,
        b"bob:$2y$15$" + b"." * 53,
        b"bob:$2y$05$" + b"." * 21 + b"z" + b"." * 31,
        b"bob:$apr1$x$y",
        b"bob",
        b"bob:plain",
        b"bob:{SHA}x",
    )
    for wrong in wrong_lines:
        with pytest.raises(Mistake, match="line 2"):
            list(read(line + b"\n" + wrong))


def test_headers_that_only_the_gateway_sets_are_known_with_every_underscore() -> None:
    provider = Provider(jwks=Jwks(inline="{}"), claim_headers={"sub": "X-User-Id"})
    names = protected(Context(providers={"corp": provider}))
    assert {"x-consumer", "x_consumer", "x-consumer_plan", "x_user_id", "x-user-id", "x_user-id"} <= set(
        names
    )
    assert list(names) == sorted(names)


def test_the_filter_of_identity_headers_runs_only_if_it_has_something_to_remove() -> None:
    claiming = Provider(jwks=Jwks(inline="{}"), claim_headers={"sub": "X-User-Id"})
    silent = Provider(jwks=Jwks(inline="{}"))
    policy = Authentication()
    assert not policy.on_all_routes(Context(providers={"corp": silent}))
    assert set(policy.on_all_routes(Context(providers={"corp": claiming}))) == {FILTER}
    assert set(policy.on_all_routes(Context(trailers=True))) == {FILTER}


@pytest.mark.parametrize(
    "header", ["Host", "x-consumer", "x_user", "", ":path", "a-b-c-d-e-f-g", "authorization"]
)
def test_a_claim_header_must_not_take_away_a_client_s_own(header: str) -> None:
    provider = Provider(jwks=Jwks(inline="{}"), claim_headers={"sub": header})
    assert len(list(provider.check())) == 1


def test_a_rule_is_written_as_lua_writes_it() -> None:
    rule = {"b": [True, False], "a": 'x"\\\n☃', "c": {}}
    assert lua(rule) == r'{["a"]="x\034\092\010\226\152\131",["b"]={true,false},["c"]={}}'


def test_an_htpasswd_file_with_a_byte_order_mark_is_refused() -> None:
    line = b"\xef\xbb\xbfuser:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n"
    with pytest.raises(Mistake, match="line 1: there is a byte order mark before the first name"):
        list(read(line))
