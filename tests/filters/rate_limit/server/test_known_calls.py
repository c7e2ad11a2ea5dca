"""Calls that differ only in the request's id: what they ask is worked out once, and is always right."""

from __future__ import annotations

from typing import Any

from envoy.service.ratelimit.v3 import rls_pb2
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from filters.model.limits import ConcurrencyLimit, Limit
from filters.rate_limit.limit_rules import LIMITS
from filters.rate_limit.server import decoding
from filters.rate_limit.server.service import RateLimits

RULE = "rate_limit:route/r"


def service(written: Any) -> RateLimits:
    found = RateLimits(CollectorRegistry(), clock=lambda: 1_792_890_000_000_000)
    use(found, written)
    return found


def use(limits: RateLimits, written: Any) -> None:
    assert limits.rules.replace({RULE: LIMITS.build(RULE, written).SerializeToString()}, ()) == {}


def message(*entries: tuple[str, str], rule: str = RULE) -> bytes:
    request = rls_pb2.RateLimitRequest(domain="xds")
    for key, value in (("rule", rule), ("style", "x-ratelimit"), *entries):
        request.descriptors.add() if not request.descriptors else None
        request.descriptors[0].entries.add(key=key, value=value)
    return request.SerializeToString()


def call(limits: RateLimits, *entries: tuple[str, str]) -> rls_pb2.RateLimitResponse:
    answer: Any = limits.call(message(*entries))
    return rls_pb2.RateLimitResponse.FromString(getattr(answer, "response", answer))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=140)


@given(st.lists(st.tuples(st.sampled_from(["header:x", "consumer", "request_id"]), TEXTS), max_size=4), TEXTS)
def test_a_call_is_divided_before_the_value_of_the_last_id(entries: list[tuple[str, str]], id_: str) -> None:
    found = decoding.divided(message(*entries, ("request_id", id_)))
    if len(id_.encode()) in range(1, 128):
        assert found is not None
        assert found[1] == id_
        # The part before decides everything else, also the length of the id.
        assert found[0] + id_.encode() == message(*entries, ("request_id", id_))
    else:
        assert found is None or found[1] != id_


def test_only_the_last_part_of_a_message_is_an_id() -> None:
    assert decoding.divided(message(("request_id", "1"), ("done", "true"))) is None
    assert decoding.divided(message(("consumer", "acme"))) is None
    assert decoding.divided(b"") is None


def test_each_caller_has_its_own_count() -> None:
    limits = service(Limit(requests=2, per="day", by="header:x"))
    codes = [
        call(limits, ("header:x", who), ("request_id", str(number))).overall_code
        for number, who in enumerate("aabab")
    ]
    ok, over = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT
    assert codes == [ok, ok, ok, over, ok]


def test_a_changed_limit_holds_for_the_next_call() -> None:
    limits = service(Limit(requests=1, per="day", by="header:x"))
    asked = (("header:x", "a"), ("request_id", "1"))
    assert call(limits, *asked).overall_code == rls_pb2.RateLimitResponse.OK
    assert call(limits, *asked).overall_code == rls_pb2.RateLimitResponse.OVER_LIMIT
    use(limits, Limit(requests=3, per="day", by="header:x"))
    assert call(limits, *asked).overall_code == rls_pb2.RateLimitResponse.OK


def test_a_rejection_names_its_own_request() -> None:
    limits = service(Limit(requests=1, per="day", by="header:x"))
    bodies = [call(limits, ("header:x", "a"), ("request_id", f"id-{number}")).raw_body for number in range(3)]
    assert [b'"id-1"' in bodies[1], b'"id-2"' in bodies[2]] == [True, True]


def test_each_request_holds_a_slot_of_its_own() -> None:
    limits = service(ConcurrencyLimit(requests=2, by="header:x"))
    codes = [call(limits, ("header:x", "a"), ("request_id", str(number))).overall_code for number in range(3)]
    assert codes == [rls_pb2.RateLimitResponse.OK] * 2 + [rls_pb2.RateLimitResponse.OVER_LIMIT]


def test_many_callers_are_not_remembered_for_ever() -> None:
    limits = service(Limit(requests=1, per="day", by="header:x"))
    for number in range(10_050):
        assert call(limits, ("header:x", str(number)), ("request_id", "1")).overall_code == 1
    assert len(limits._questions) <= 10_000
