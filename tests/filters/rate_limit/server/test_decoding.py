"""Calls that hold what is no text are read all the same."""

from __future__ import annotations

import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.message import DecodeError

from filters.rate_limit.server.decoding import parse

REQUEST = rls_pb2.RateLimitRequest(domain="xds", hits_addend=3)
_ENTRIES = REQUEST.descriptors.add(hits_addend={"value": 7}).entries
_ENTRIES.add(key="rule", value="r")
_ENTRIES.add(key="header:x", value="@@@@")
REQUEST.descriptors.add(limit={"requests_per_unit": 9})


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b"abcd", "abcd"),
        ("ä€"[:1].encode() + b"cd", "äcd"),
        (b"\xff\xfe\xfd\xfc", "!!!!"),
        (b"a\xe2\x82b", "a!!b"),
        (b"\xc0\xafab", "!!ab"),
        (b"\xed\xa0\x80a", "!!!a"),
    ],
)
def test_what_is_no_text_is_mended_and_everything_else_is_kept(value: bytes, read: str) -> None:
    expected = rls_pb2.RateLimitRequest()
    expected.CopyFrom(REQUEST)
    expected.descriptors[0].entries[1].value = read
    assert parse(REQUEST.SerializeToString().replace(b"@@@@", value)) == expected


def test_what_is_no_call_is_still_an_error() -> None:
    with pytest.raises(DecodeError):
        parse(b"\xff\xff")
