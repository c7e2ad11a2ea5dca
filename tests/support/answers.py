"""What a client makes of a response, as the store is told of it."""

from __future__ import annotations

from collections.abc import Mapping

from xds_server.discovery.node import Node
from xds_server.discovery.types import ResourceType
from xds_server.serving.events import Acked, Nacked


def acked(
    type_: ResourceType, versions: Mapping[str, str], group: str = "", node: Node | None = None
) -> Acked:
    """A client of `group` accepted these versions by name."""
    return Acked(
        stream=1,
        node=node or Node(id="n"),
        group=group,
        type=type_,
        version="",
        versions=versions,
        removed=(),
        latency=0,
        convergence=0,
    )


def nacked(
    type_: ResourceType,
    versions: Mapping[str, str],
    group: str = "",
    node: Node | None = None,
    message: str = "no",
) -> Nacked:
    """A client of `group` rejected these versions, and names all of them."""
    return Nacked(
        stream=1,
        node=node or Node(id="n"),
        group=group,
        type=type_,
        version="",
        versions=versions,
        message=message,
        blamed=versions,
    )
