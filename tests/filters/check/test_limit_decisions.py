"""Limits in a Check, without a server: what is counted by, and what happens where nobody counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from envoy.service.auth.v3 import external_auth_pb2
from google.protobuf import json_format
from prometheus_client import CollectorRegistry

from filters.check import responses
from filters.check.api_keys import KeyOwner
from filters.check.descriptor_entries import after_policy
from filters.check.lazy_request import client_address
from filters.check.limit_decisions import decide, decide_for_key
from filters.ext_authz import Decision as PolicyDecision
from filters.ext_authz import allow
from filters.model.identity import NAMESPACE
from filters.rate_limit import one_call
from filters.rate_limit.engine.decision import Hit, LimitDecision
from filters.rate_limit.engine.memory import Memory
from filters.rate_limit.envoy import descriptors
from filters.rate_limit.server.service import RateLimits
from filters.unary import Undoable
from protos import limits_pb2

ROUTE = one_call.LimitsQuestion(
    rules=("rate_limit:route/r",), plans=True, styles=("ietf",), inputs=(), lease=False, strict=False
)


PASSES = allow()


class Broken(Memory):
    """Counters that fail."""

    def decide(self, now: int, hits: Sequence[Hit]) -> LimitDecision:
        raise OSError("gone")


class Hanging(Memory):
    """Counters that never answer."""

    def decide(self, now: int, hits: Sequence[Hit]) -> Awaitable[LimitDecision]:  # type: ignore[override]
        return asyncio.get_running_loop().create_future()


def asked(route: one_call.LimitsQuestion = ROUTE, **headers: str) -> Any:
    found = external_auth_pb2.CheckRequest().attributes
    found.source.address.socket_address.address = "10.0.0.9"
    found.request.http.host = "shop.test"
    found.request.http.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    found.context_extensions.update({"route": "r", one_call.EXTENSION: route.as_json()})
    return found


def limits(store: Memory | None = None, time_limit: timedelta = one_call.TIME) -> RateLimits:
    """One request a day on the route."""
    found = RateLimits(CollectorRegistry(), store, time_limit=time_limit)
    rule = limits_pb2.Limits(name="rate_limit:route/r", place="route/r")
    rule.limits.add(name="l", algorithm="fixed_window", amount=1, per="day", unit="requests")
    assert found.rules.replace({rule.name: rule.SerializeToString()}, ()) == {}
    return found


PASSED = external_auth_pb2.CheckResponse(ok_response=external_auth_pb2.OkHttpResponse()).SerializeToString()


async def decided(
    counting: RateLimits | None, request: Any, decision: PolicyDecision = PASSES, passed: bytes = PASSED
) -> external_auth_pb2.CheckResponse:
    found = decide(counting, request, decision, passed)
    answer = await found if isinstance(found, Awaitable) else found
    said = answer.response if isinstance(answer, Undoable) else answer
    return external_auth_pb2.CheckResponse.FromString(said)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("0:0:1::", "0:0:1::/64"),
    ],
)
def test_an_address_is_masked_as_envoy_masks_it(address: str, network: str) -> None:
    found = after_policy(ROUTE, asked(x_envoy_external_address=address), allow())
    assert found[descriptors.ADDRESS] == network


def test_without_a_word_of_envoy_the_address_is_that_of_the_connection() -> None:
    assert client_address(asked(), {}) == "10.0.0.9"
    assert client_address(asked(), {"x-envoy-external-address": "192.0.2.7"}) == "192.0.2.7"


def test_what_is_looked_at_is_what_the_policy_has_made_of_the_request() -> None:
    route = replace(ROUTE, inputs=("header:X-A", "header:x-b", "header:x-c", "header:host", "claim:no"))
    request = asked(route, x_a="a", x_b="b", x_c="c")
    found = after_policy(route, request, allow({"X-B": "new"}, remove=["X-C"]))
    assert {name: value for name, value in found.items() if ":" in name} == {
        "header:X-A": "a",
        "header:x-b": "new",
        "header:host": "shop.test",
    }


def test_who_calls_is_what_the_identity_script_told() -> None:
    request = asked()
    request.metadata_context.filter_metadata[NAMESPACE].update({"consumer": "acme", "plan": "free"})
    found = after_policy(ROUTE, request, allow())
    assert (found[descriptors.CONSUMER], found[descriptors.PLAN], found[descriptors.PLANS]) == (
        "acme",
        "free",
        "true",
    )


async def test_a_rejection_has_what_the_policy_adds_to_responses_and_to_the_metadata() -> None:
    counting = limits()
    decision = allow({"x-new": "1"}, response_headers={"X-Own": "1", "RateLimit": "own"}, metadata={"a": "b"})
    first = await decided(counting, asked(), decision, responses.decided(decision))
    names = [one.header.key for one in first.ok_response.response_headers_to_add]
    assert names == ["x-own", "ratelimit", "ratelimit-policy"]
    assert [one.header.key for one in first.ok_response.headers] == ["x-new"]
    second = await decided(counting, asked(), decision, responses.decided(decision))
    told = {one.header.key: one.header.value for one in second.denied_response.headers}
    assert second.denied_response.status.code == 429
    assert (told["x-own"], told["ratelimit"], told["x-gateway-reason"]) == ("1", "own", "rate_limited")
    assert len(told) == len(second.denied_response.headers)
    assert dict(second.dynamic_metadata) == {"a": "b", "limited": "rate_limited"}
    assert json.loads(second.denied_response.body)["reason"] == "rate_limited"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("store", [None, Broken, Hanging], ids=["no limits", "broken", "hanging"])
async def test_where_nobody_counts_the_limits_say_what_happens(
    store: type[Memory] | None, strict: bool
) -> None:
    request = asked(replace(ROUTE, strict=strict))
    response = await decided(
        limits(store(), timedelta(milliseconds=1)) if store is not None else None, request
    )
    assert response.denied_response.status.code == (503 if strict else 0)
    assert response.HasField("ok_response") is not strict


async def test_rules_that_are_not_here_yet_count_nothing() -> None:
    request = asked(replace(ROUTE, rules=("rate_limit:route/new",)))
    assert (await decided(limits(), request)).HasField("ok_response")


async def test_each_slot_has_a_name_of_its_own() -> None:
    request = asked(replace(ROUTE, rules=(), lease=True))
    names = {
        (await decided(limits(), request)).dynamic_metadata[descriptors.CHECKED_LEASE] for _ in range(10)
    }
    assert len(names) == 10


def looked_up(counting: RateLimits, not_after: int = 0, *keys: str) -> dict[str, Any]:
    """What the script in Envoy is told of a request that holds acme's key, once or more often."""
    request = asked()
    for value in keys or ("k",):
        request.request.http.header_map.headers.add(key="x-api-key", raw_value=value.encode())
    answer = decide_for_key(counting, request, KeyOwner("acme", "", not_after), "x-api-key")
    assert isinstance(answer, bytes)
    response = external_auth_pb2.CheckResponse.FromString(answer)
    assert response.HasField("ok_response")
    told = json_format.MessageToDict(response.dynamic_metadata)
    return {**told, "headers": {one.header.key for one in response.ok_response.response_headers_to_add}}


def test_a_lookup_tells_the_script_that_a_limit_rejects() -> None:
    counting = limits()
    first, second = looked_up(counting), looked_up(counting)
    assert (first["api_key"], first["headers"]) == ({"consumer": "acme"}, {"ratelimit", "ratelimit-policy"})
    assert "limits" not in first
    assert second["limits"]["reason"] == "rate_limited"
    assert json.loads(second["limits"]["body"])["status"] == 429
    assert second["headers"] == {"ratelimit", "ratelimit-policy", "retry-after"}


@pytest.mark.parametrize(
    ("not_after", "keys", "told"),
    [(1, ("k",), 1), (2**31, ("k", "k"), 2**31)],
    ids=["a key that has ended", "two keys"],
)
def test_what_the_script_refuses_takes_nothing(not_after: int, keys: tuple[str, ...], told: int) -> None:
    counting = limits()
    for _ in range(2):
        found = looked_up(counting, not_after, *keys)
        assert found["api_key"] == {"consumer": "acme", "not_after": told}
        assert (found["headers"], "limits" in found) == (set(), False)
    assert looked_up(counting, 2**31)["api_key"] == {"consumer": "acme"}


def test_a_lookup_that_nobody_counts_is_refused_where_limits_are_strict() -> None:
    request = asked(replace(ROUTE, strict=True))
    request.request.http.header_map.headers.add(key="x-api-key", raw_value=b"k")
    answer = decide_for_key(limits(Broken()), request, KeyOwner("acme", "", 0), "x-api-key")
    assert isinstance(answer, bytes)
    response = external_auth_pb2.CheckResponse.FromString(answer)
    assert response.dynamic_metadata["limits"]["reason"] == "rate_limit_unavailable"


def test_a_slot_is_given_back_where_envoy_has_given_up() -> None:
    counting = RateLimits(CollectorRegistry())
    rule = limits_pb2.Limits(name="concurrency:route/r", place="route/r")
    rule.limits.add(name="l", algorithm="concurrency", amount=1, unit="concurrent-requests", lease=10**9)
    counting.rules.replace({rule.name: rule.SerializeToString()}, ())
    request = asked(replace(ROUTE, rules=(rule.name,), lease=True))
    first = decide(counting, request, PASSES, PASSED)
    assert isinstance(first, Undoable)
    assert isinstance(decide(counting, request, PASSES, PASSED), bytes)
    first.undo()
    assert isinstance(decide(counting, request, PASSES, PASSED), Undoable)
