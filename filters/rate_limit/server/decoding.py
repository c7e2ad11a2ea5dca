"""Calls of Envoy as they come: also those with a client's header that is no text, which must not go uncounted.

A value that is no UTF-8 makes a whole message unreadable, and a call that cannot be read is one that lets a request pass.
"""

from __future__ import annotations

import codecs

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.message import DecodeError

from protos import limits_pb2

_MENDED = "xds.mended"


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    """As Envoy mends what it tells a Check."""
    assert isinstance(error, UnicodeDecodeError)
    return "!" * (error.end - error.start), error.end


codecs.register_error(_MENDED, _each_byte)


def parse(message: bytes) -> rls_pb2.RateLimitRequest:
    """A RateLimitRequest. Raises DecodeError for what is none."""
    try:
        return rls_pb2.RateLimitRequest.FromString(message)
    except DecodeError:
        return rls_pb2.RateLimitRequest.FromString(_mended(message))


def text(value: bytes) -> str:
    """A header's value as Envoy tells it where it has to be text."""
    return value.decode("utf-8", _MENDED)


def _mended(message: bytes) -> bytes:
    unchecked = limits_pb2.UncheckedRequest.FromString(message)
    for descriptor in unchecked.descriptors:
        for entry in descriptor.entries:
            entry.value = text(entry.value).encode()
    return unchecked.SerializeToString()
