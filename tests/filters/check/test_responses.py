"""Decisions as Envoy is told of them."""

from __future__ import annotations

import pytest
from envoy.service.auth.v3 import external_auth_pb2

from filters.check.responses import decided
from filters.ext_authz import allow, deny
from filters.framing import HEADERS


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_what_frames_a_message_is_left_out(name: str) -> None:
    headers = {name.title(): "1", "x-own": "1"}
    passed = external_auth_pb2.CheckResponse.FromString(
        decided(allow(headers, remove=[name.upper(), "x-secret"], response_headers=headers))
    ).ok_response
    assert [one.header.key for one in passed.headers] == ["x-own"]
    assert list(passed.headers_to_remove) == ["x-secret"]
    assert [one.header.key for one in passed.response_headers_to_add] == ["x-own"]
    denied = external_auth_pb2.CheckResponse.FromString(decided(deny(headers=headers, body="no")))
    assert [one.header.key for one in denied.denied_response.headers] == ["x-own"]
