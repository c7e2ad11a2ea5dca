"""The filter chains of a listener, each of one listener of the gateway, read, removed and replaced by name."""

from __future__ import annotations

from collections.abc import Mapping

from envoy.config.listener.v3 import listener_pb2

from xds_server.discovery.snapshot import Resource


def chains(listener: Resource) -> dict[str, bytes]:
    """Return the serialized filter chains of a listener by name."""
    message = listener_pb2.Listener.FromString(listener.body)
    return {one.name: one.SerializeToString(deterministic=True) for one in message.filter_chains}


def only(listener: Resource, name: str, version: str) -> Resource:
    """Return a listener with one of its filter chains, with a version of its own."""
    message = listener_pb2.Listener.FromString(listener.body)
    kept = [one for one in message.filter_chains if one.name == name]
    del message.filter_chains[:]
    message.filter_chains.extend(kept)
    return Resource.from_bytes(listener.name, message.SerializeToString(deterministic=True), version)


def replaced(listener: Resource, instead: Mapping[str, bytes | None]) -> Resource | None:
    """Return a listener with other filter chains instead of some, by name; None removes one.

    It is None if no filter chain is left.
    """
    message = listener_pb2.Listener.FromString(listener.body)
    found = list(message.filter_chains)
    del message.filter_chains[:]
    for chain in found:
        body = instead.get(chain.name, b"")
        if body is not None:
            message.filter_chains.add().MergeFromString(body or chain.SerializeToString(deterministic=True))
    return Resource.of(message) if message.filter_chains else None
