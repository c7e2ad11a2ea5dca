"""Envoy's calls as messages, including calls with a client's header that is not UTF-8, because these must count too.

Such a value makes the whole message invalid, and Envoy lets a request pass if its call fails.
"""

from __future__ import annotations

import codecs

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.message import DecodeError

from filters.rate_limit.envoy import descriptors
from protos import limits_pb2

_MENDED = "xds.mended"
_KEY = descriptors.REQUEST_ID.encode()
_REQUEST_ID = bytes([0x0A, len(_KEY)]) + _KEY + b"\x12"
"""The beginning of a descriptor's entry: `key` (1) with its length, and the tag of `value` (2), whose length follows."""


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


def divided(message: bytes) -> tuple[bytes, str] | None:
    """A call as the part before the request's id, and the id, if the id is the last part of the message.

    Envoy's calls about one caller differ only in the id.
    """
    at = message.rfind(_REQUEST_ID) + len(_REQUEST_ID)
    if at < len(_REQUEST_ID) or at == len(message) or message[at] != len(message) - at - 1:
        return None
    return message[: at + 1], text(message[at + 1 :])


def text(value: bytes) -> str:
    """A header's value as Envoy sends it in text fields."""
    return value.decode("utf-8", _MENDED)


def _mended(message: bytes) -> bytes:
    unchecked = limits_pb2.UncheckedRequest.FromString(message)
    for descriptor in unchecked.descriptors:
        for entry in descriptor.entries:
            entry.value = text(entry.value).encode()
    return unchecked.SerializeToString()
