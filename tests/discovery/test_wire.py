"""What is joined as bytes is the message that protobuf would have made."""

from __future__ import annotations

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from xds_server.discovery import wire
from xds_server.discovery.events import Response
from xds_server.discovery.snapshot import Resource
from xds_server.discovery.types import CLUSTER

_bodies = st.lists(st.binary(max_size=300), max_size=4)
_removed = st.lists(st.text(st.characters(codec="utf-8"), max_size=9), max_size=3)


@given(bodies=_bodies, removed=_removed)
def test_a_delta_response_is_what_protobuf_would_write(bodies: list[bytes], removed: list[str]) -> None:
    resources = tuple(Resource.from_bytes(f"r{n}", body) for n, body in enumerate(bodies))
    response = Response(CLUSTER, "7", "v", resources, tuple(removed))
    parsed = discovery_pb2.DeltaDiscoveryResponse.FromString(wire.delta(response))
    expected = discovery_pb2.DeltaDiscoveryResponse(
        system_version_info="v", type_url=CLUSTER.url, nonce="7", removed_resources=removed
    )
    expected.control_plane.identifier = "xds-gateway"
    for one in resources:
        entry = expected.resources.add(name=one.name, version=one.version)
        entry.resource.type_url, entry.resource.value = CLUSTER.url, one.body
    assert parsed == expected


@pytest.mark.parametrize("size", [0, 127, 128, 70_000])
def test_a_state_is_what_protobuf_would_write(size: int) -> None:
    response = Response(CLUSTER, "7", "v", (Resource.from_bytes("a", b"x" * size),))
    parsed = discovery_pb2.DiscoveryResponse.FromString(wire.sotw(response))
    assert (parsed.version_info, parsed.nonce, parsed.type_url) == ("v", "7", CLUSTER.url)
    assert [(one.type_url, len(one.value)) for one in parsed.resources] == [(CLUSTER.url, size)]
