"""Events of a stream, as values: the meaning of a request that arrived, and news for an operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xds_server.discovery.snapshot import Resource
from xds_server.discovery.types import ResourceType


@dataclass(frozen=True, slots=True)
class Response:
    """A response to be sent. Only the delta protocol has `removed`."""

    type: ResourceType
    nonce: str
    version: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """The client changed its subscription, and it neither accepted nor rejected a response.

    `stale` is true if the request has an old nonce.
    """

    type: ResourceType
    added: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    stale: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Acked:
    """The client accepted a response. `versions` are its resources, with their versions by name."""

    type: ResourceType
    version: str
    nonce: str
    versions: Mapping[str, str]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nacked:
    """The client rejected a response. `message` is the client's own text.

    `blamed` are the resources that the message names, or the only resource of the response. For the other resources
    it is unknown whether the client applied them.
    """

    type: ResourceType
    version: str
    nonce: str
    versions: Mapping[str, str]
    removed: tuple[str, ...]
    message: str
    blamed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolViolation:
    """The request breaks the protocol. The stream ends with INVALID_ARGUMENT and this message."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """The client did not acknowledge in time, so responses that waited for it are sent now.

    `waited` is in seconds.
    """

    waited: float
    unacknowledged: tuple[str, ...]


Received = Subscribed | Acked | Nacked | ProtocolViolation
