"""The filter chains of a listener, each of one listener of the gateway, read, closed and replaced by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.listener.v3.listener_components_pb2 import FilterChain

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
    """Return a listener with other filter chains instead of some, by name; None closes its connections.

    It is None if no filter chain is left.
    """
    message = listener_pb2.Listener.FromString(listener.body)
    chains = [
        FilterChain.FromString(body) if (body := instead.get(chain.name)) is not None else chain
        for chain in message.filter_chains
    ]
    closed = {name for name, body in instead.items() if body is None}
    return Resource.of(message) if close(message, chains, closed) else None


def close(message: listener_pb2.Listener, chains: Iterable[FilterChain], names: Collection[str]) -> bool:
    """Give a listener these filter chains, of which some close their connections. Returns True if any serves some.

    The server names of a closed one stay with it, or a filter chain for all other names would take its connections.
    Over QUIC that one takes them, because Envoy rejects a filter chain without TLS there.
    """
    found = list(chains)
    serving = [one for one in found if one.name not in names]
    tcp = message.address.socket_address.protocol == address_pb2.SocketAddress.TCP
    closing = [
        FilterChain(name=one.name, filter_chain_match=one.filter_chain_match)
        for one in found
        if one.name in names and tcp and one.HasField("filter_chain_match")
    ]
    del message.filter_chains[:]
    message.filter_chains.extend(sorted([*serving, *closing], key=lambda one: one.name))
    return bool(serving)
