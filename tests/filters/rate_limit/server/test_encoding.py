"""Responses written as bytes, beside protobuf's own."""

from __future__ import annotations

from envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from envoy.service.ratelimit.v3 import rls_pb2
from hypothesis import given
from hypothesis import strategies as st

from filters.policy import header
from filters.rate_limit.server.encoding import checked, passed, response

RESPONSE = rls_pb2.RateLimitResponse
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20).map(lambda text: text * 20)


@given(st.booleans(), st.lists(st.tuples(TEXTS, TEXTS), max_size=5), st.binary(max_size=20_000))
def test_a_response_is_what_protobuf_would_write(
    admitted: bool, headers: list[tuple[str, str]], body: bytes
) -> None:
    code = RESPONSE.OK if admitted else RESPONSE.OVER_LIMIT
    message = RESPONSE(overall_code=code, statuses=[RESPONSE.DescriptorStatus(code=code)], raw_body=body)
    for name, value in headers:
        message.response_headers_to_add.add(key=name, value=value)
    assert RESPONSE.FromString(response(admitted, headers, body)) == message


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5))
def test_headers_for_whom_a_check_lets_pass_are_what_protobuf_would_write(
    headers: list[tuple[str, str]],
) -> None:
    message = CheckResponse()
    message.ok_response.response_headers_to_add.extend(header(name, value) for name, value in headers)
    assert CheckResponse.FromString(checked(headers)) == message


def test_a_yes_has_a_status_for_each_descriptor() -> None:
    for count in range(3):
        message = RESPONSE.FromString(passed(count))
        assert (message.overall_code, [one.code for one in message.statuses]) == (1, [1] * count)
