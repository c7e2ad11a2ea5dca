"""What happens on a stream, as values: what receiving a request meant, and what an operator wants to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xds_server.discovery.snapshot import Resource
from xds_server.discovery.types import ResourceType


@dataclass(frozen=True, slots=True)
class Response:
    """What is to be sent. `removed` is of the delta protocol only."""

    type: ResourceType
    nonce: str
    version: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """The client said what it wants, and neither accepted nor rejected anything. `stale`: by an old nonce."""

    type: ResourceType
    added: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    stale: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Acked:
    """The client accepted a response: its resources by name with their versions, and what it removed."""

    type: ResourceType
    version: str
    nonce: str
    versions: Mapping[str, str]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nacked:
    """The client rejected a response, in its own words.

    `blamed` are the resources that its message names, or the only one that the response had. Of the others
    nobody knows whether they were applied.
    """

    type: ResourceType
    version: str
    nonce: str
    versions: Mapping[str, str]
    removed: tuple[str, ...]
    message: str
    blamed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The request breaks the protocol: the stream ends with INVALID_ARGUMENT and this message."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """The client took too long to acknowledge; what waited for that goes out now. `waited` in seconds."""

    waited: float
    unacknowledged: tuple[str, ...]


Received = Subscribed | Acked | Nacked | Refused
