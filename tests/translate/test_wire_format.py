"""Splitting a serialized message gives the values of a field, and the message without them."""

from __future__ import annotations

import pytest
from envoy.config.route.v3 import route_pb2
from hypothesis import given
from hypothesis import strategies as st

from protos.wire_format import delimited, split
from xds_server.translate.protobuf import uint32

FIELD = route_pb2.RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER


def test_the_rest_and_the_values_are_the_message() -> None:
    message = route_pb2.RouteConfiguration(
        name="n", ignore_port_in_host_matching=True, max_direct_response_body_size_bytes=uint32(1 << 20)
    )
    for name in ("a", "b" * 300):
        message.virtual_hosts.add(name=name, domains=[name])
    rest, values = split(message.SerializeToString(), FIELD)
    assert values == [host.SerializeToString() for host in message.virtual_hosts]
    again = route_pb2.RouteConfiguration.FromString(
        rest + b"".join(delimited(FIELD, value) for value in values)
    )
    assert again == message


@given(st.binary())
def test_bytes_that_are_no_message_are_an_error(body: bytes) -> None:
    try:
        rest, values = split(body, 1)
    except ValueError:
        return
    assert len(rest) + sum(map(len, values)) <= len(body)


@pytest.mark.parametrize("body", [b"\x0a", b"\x0a\x05abc", b"\x0b", b"\x80", b"\x09abc", b"\xff" * 12])
def test_an_incomplete_message_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"wire type|ends within|not a varint"):
        split(body, 1)
