"""KeyIndex of consumers as a policy server holds them: they come, change hands, expire and go."""

from __future__ import annotations

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2
from hypothesis import given
from hypothesis import strategies as st

from filters.check.api_keys import KeyIndex, KeyOwner, NotComplete, key_of
from filters.identity import api_key
from filters.identity.key_lookup import BUCKETS, CONSUMER, SUBSCRIBERS, Subscriber, with_api
from filters.identity.script import script
from filters.model.identity import ApiKey, Consumer
from filters.model.methods import MOST_KEYS, keys_in_policy_server
from filters.policy import Context
from tests.support.identity_cases import sha256

RULE = {"headers": ["x-api-key"], "query": ["api_key"], "cookies": ["key"]}


def consumer(*keys: str, plan: str | None = "pro", not_after: str | None = None) -> Consumer:
    return Consumer(
        plan=plan, api_keys=tuple(ApiKey(sha256=sha256(key), not_after=not_after) for key in keys)
    )


def body(name: str, one: Consumer) -> bytes:
    return CONSUMER.build(name, one).SerializeToString()


def find(keys: KeyIndex, key: str) -> KeyOwner | None:
    return keys.find(RULE, [base_pb2.HeaderValue(key="x-api-key", raw_value=key.encode())])


def test_a_key_names_its_consumer_and_plan() -> None:
    keys = KeyIndex()
    keys.table.replace({"a": body("a", consumer("one", "two")), "b": body("b", consumer("x", plan=None))}, ())
    assert find(keys, "two") == KeyOwner("a", "pro", 0)
    assert find(keys, "x") == KeyOwner("b", "", 0)
    assert find(keys, "three") is None


def test_a_key_that_was_taken_away_is_unknown_and_the_others_stay() -> None:
    keys = KeyIndex()
    keys.table.replace({"a": body("a", consumer("one", "two"))}, ())
    keys.table.replace({"a": body("a", consumer("two"))}, ())
    assert (find(keys, "one"), find(keys, "two")) == (None, KeyOwner("a", "pro", 0))
    keys.table.replace({}, ["a"])
    assert keys.current == {}


def test_a_key_that_changes_hands_belongs_to_the_new_owner() -> None:
    """The rules of both may come in any order."""
    keys = KeyIndex()
    keys.table.replace({"a": body("a", consumer("one"))}, ())
    keys.table.replace({"b": body("b", consumer("one"))}, ())
    keys.table.replace({}, ["a"])
    assert find(keys, "one") == KeyOwner("b", "pro", 0)


def test_the_end_of_a_key_is_in_unix_seconds() -> None:
    keys = KeyIndex()
    keys.table.replace({"a": body("a", consumer("one", not_after="2027-01-31"))}, ())
    found = find(keys, "one")
    assert found is not None
    assert found.not_after == 1801439999


def test_a_key_of_another_length_than_anybody_has_is_not_looked_up() -> None:
    keys = KeyIndex()
    keys.table.replace({"a": body("a", consumer("x" * 2000))}, ())
    assert find(keys, "x" * 2000) is None


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.sets(st.sampled_from("123456"), max_size=3)), max_size=8
    )
)
def test_whatever_changes_the_index_is_that_of_a_fresh_start(states: list[dict[str, set[str]]]) -> None:
    keys, before = KeyIndex(), dict[str, bytes]()
    for state in states:
        owned: set[str] = set()
        bodies = {}
        for name, wanted in state.items():
            bodies[name] = body(name, consumer(*sorted(wanted - owned)))
            owned |= wanted
        changed = {name: one for name, one in bodies.items() if before.get(name) != one}
        keys.table.replace(changed, before.keys() - bodies.keys())
        fresh = KeyIndex()
        fresh.table.replace(bodies, ())
        assert keys.current == fresh.current
        before = bodies


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"x-api-key": b"\xff"}, b"\xff"),
        ({"x-api-key": b"", ":path": b"/?api_key=a%2Bb+c"}, b"a+b c"),
        ({":path": b"/?x=1&api%5fkey=a"}, b"a"),
        ({":path": b"/", "cookie": b'a=b; key="c d" ; e=f'}, b"c d"),
        ({"cookie": b"key=c=d "}, b"c=d"),
        ({}, b""),
    ],
)
def test_the_key_is_found_where_the_script_finds_it(headers: dict[str, bytes], key: bytes) -> None:
    values = [base_pb2.HeaderValue(key=name, raw_value=value) for name, value in headers.items()]
    assert key_of(RULE, values) == key


def test_beyond_the_limit_the_script_knows_no_keys_and_changes_with_none() -> None:
    many = {"many": consumer(*map(str, range(MOST_KEYS + 1)))}
    assert keys_in_policy_server(many, subscribers=False)
    assert not keys_in_policy_server({"few": consumer("one")}, subscribers=False)
    assert keys_in_policy_server({}, subscribers=True)
    assert script(many, {}, {}) == script({**many, "new": consumer("new")}, {}, {})


def _shown(*settings: api_key.ApiKeySettings) -> list[str]:
    (found,) = api_key.ApiKey().http_filters(settings, Context())
    config = found.config
    assert isinstance(config, ext_authz_pb2.ExtAuthz)
    return [one.exact for one in config.allowed_headers.patterns]


def test_of_a_request_only_what_may_hold_a_key_or_is_counted_by_is_shown() -> None:
    counted_by = ["x-envoy-external-address", "x-request-id"]
    assert _shown(api_key.ApiKeySettings()) == ["x-api-key", *counted_by]
    several = (
        api_key.ApiKeySettings(header="X-Key"),
        api_key.ApiKeySettings(query="key"),
        api_key.ApiKeySettings(cookie="key"),
    )
    assert _shown(*several) == [":path", "cookie", *counted_by[:1], "x-key", *counted_by[1:]]
    assert _shown() == []


def bucket(*subscribers: Subscriber) -> bytes:
    return SUBSCRIBERS.build("0", subscribers).SerializeToString()


def subscriber(name: str, *keys: str, apis: tuple[str, ...] = ("orders",)) -> Subscriber:
    return Subscriber(name, "gold", apis, tuple((bytes.fromhex(sha256(key)), 0) for key in keys))


def owner(keys: KeyIndex, key: str, api: str | None = "orders") -> KeyOwner | None:
    header = base_pb2.HeaderValue(key="x-api-key", raw_value=key.encode())
    return keys.find(with_api(RULE, api), [header])


def test_a_subscription_covers_its_apis_and_nothing_else() -> None:
    keys = KeyIndex(follows=True)
    keys.subscribers.replace({"0": bucket(subscriber("s", "one", apis=("orders", "payments")))}, ())
    for api, covered in (("orders", True), ("payments", True), ("other", False), (None, False)):
        found = owner(keys, "one", api)
        assert found is not None
        assert (found.consumer, found.plan, found.covered) == ("s", "gold", covered)
    assert find(keys, "one") is None  # a gateway without subscriptions


def test_an_unknown_key_may_be_one_that_has_not_arrived() -> None:
    keys = KeyIndex(follows=True)
    keys.table.replace({"a": body("a", consumer("written"))}, ())
    assert owner(keys, "written") == KeyOwner("a", "pro", 0)
    with pytest.raises(NotComplete):
        owner(keys, "one")
    keys.subscribers.replace({str(number): bucket() for number in range(BUCKETS)}, ())
    assert owner(keys, "one") is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 3), max_size=3)
        )
    )
)
def test_subscriptions_are_those_of_the_last_state_of_each_bucket(
    changes: list[tuple[str, dict[str, int]]],
) -> None:
    """Each change gives a bucket other subscriptions. A key has a number, so that it differs from that of others."""
    keys = KeyIndex(follows=True)
    state: dict[str, dict[str, int]] = {}
    for name, subscriptions in changes:
        state[name] = subscriptions
        made = [subscriber(name + one, f"{name}{one}{number}") for one, number in subscriptions.items()]
        keys.subscribers.replace({name: bucket(*made)}, ())
        expected = {
            bytes.fromhex(sha256(f"{of}{one}{number}")): of + one
            for of, held in state.items()
            for one, number in held.items()
        }
        assert {digest: found.consumer for digest, found in keys.subscribed.items()} == expected
