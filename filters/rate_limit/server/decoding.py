"""Envoy's calls as messages, including calls with a client's header that is not UTF-8, because these must count too.

Such a value makes the whole message invalid, and Envoy lets a request pass if its call fails.
"""

from __future__ import annotations

import codecs

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.message import DecodeError

from protos import limits_pb2

_MENDED = "xds.mended"


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    """Replace each invalid byte by `!`, as Envoy does in a Check."""
    assert isinstance(error, UnicodeDecodeError)
    return "!" * (error.end - error.start), error.end


codecs.register_error(_MENDED, _each_byte)


def parse(message: bytes) -> rls_pb2.RateLimitRequest:
    """A RateLimitRequest. Raises DecodeError for any other message."""
    try:
        return rls_pb2.RateLimitRequest.FromString(message)
    except DecodeError:
        return rls_pb2.RateLimitRequest.FromString(_mended(message))


def text(value: bytes) -> str:
    """A header's value as Envoy sends it in text fields."""
    return value.decode("utf-8", _MENDED)


def _mended(message: bytes) -> bytes:
    unchecked = limits_pb2.UncheckedRequest.FromString(message)
    for descriptor in unchecked.descriptors:
        for entry in descriptor.entries:
            entry.value = text(entry.value).encode()
    return unchecked.SerializeToString()
