"""The state of every connected Envoy, from the events of the xDS streams, for `xds status` and the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, ItemsView, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from filters.language import Place
from xds_server.discovery.rejection import essence, is_bind_failure
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.types import (
    CLUSTER,
    ENDPOINT,
    EXTENSION_CONFIG,
    LISTENER,
    ROUTE,
    ResourceType,
)
from xds_server.serving.events import (
    Acked,
    Connected,
    Disconnected,
    Event,
    Held,
    Nacked,
    Overdue,
    Quarantined,
    Resumed,
)

log = logging.getLogger(__name__)

_KEPT = "it keeps its last accepted configuration, but a restarted Envoy cannot load this one"
_TAKEN = "port in use: stop the other process or change the listener's port; retrying"
_PROVED = "this is the proving Envoy, and no Envoy with traffic was sent this"

_WHOLE = (CLUSTER, ENDPOINT, LISTENER, ROUTE, EXTENSION_CONFIG)
"""The types of which an Envoy has every resource. Of secrets it has those that it uses."""

EnvoyState = Literal["current", "waiting", "rejecting"]
"""An Envoy has all that it is served, or not yet, or it has rejected a part of it."""
Served = Callable[[str, str], Snapshot | None]
"""The snapshot that an Envoy is served, by its release and its node id."""
PlaceOf = Callable[[str, ResourceType, str], Place | None]
"""The place in the YAML that made a resource of a group."""


@dataclass(slots=True)
class Rejection:
    """The last rejection by an Envoy. `mended` is true if it accepted that type afterwards."""

    type: str
    message: str
    resources: tuple[str, ...]
    places: tuple[str, ...]
    at: float
    mended: bool = False


@dataclass(slots=True)
class StreamStatus:
    """One stream of one Envoy. Times are Unix time.

    Versions are kept by type, because our own types have another name on a stream than in a snapshot.
    """

    node: str
    cluster: str
    group: str
    peer: str
    protocol: str
    release: str
    since: float
    versions: dict[ResourceType, str] = field(default_factory=dict)
    acknowledged: float = 0.0
    latency: float = 0.0
    rejection: Rejection | None = None


class Fleet:
    """Follows the events of a store. State is read and written in the thread of the event loop, or copied.

    The group `proving` belongs to the proving Envoy, which is not of the fleet. Clients of the `unseen` groups are not
    followed at all.
    """

    def __init__(
        self,
        place_of: PlaceOf,
        clock: Callable[[], float] = time.time,
        proving: str | None = None,
        unseen: Collection[str] = (),
    ) -> None:
        self._place_of = place_of
        self._clock = clock
        self._proving, self._unseen = proving, unseen
        self._streams: dict[int, StreamStatus] = {}
        self._by_group: dict[str, set[int]] = {}
        self._bell = asyncio.Event()

    async def until_acknowledged(
        self, group: str, versions: Callable[[], Mapping[ResourceType, str]]
    ) -> None:
        """Wait until a client of a group is connected, and all of its clients have acknowledged these versions.

        `versions` is called again after every event, because a rejection changes the versions to wait for.
        """
        while not self.has(group, versions()):
            self._bell.clear()
            await self._bell.wait()

    def has(self, group: str, versions: Mapping[ResourceType, str]) -> bool:
        """True if a client of a group is connected, and all of its clients have acknowledged these versions."""
        members = [self._streams[number] for number in self._by_group.get(group, ())]
        return bool(members) and all(versions.items() <= status.versions.items() for status in members)

    def observe(self, event: Event) -> None:
        """Handle one event."""
        self._bell.set()
        match event:
            case Connected() if event.group in self._unseen:
                return
            case Connected():
                self._connected(event)
            case Disconnected():
                status = self._streams.pop(event.stream, None)
                if status is not None:
                    self._leave(status.group, event.stream)
                    log.info("disconnected node=%s reason=%s", status.node, event.reason or "by the client")
            case Acked():
                self._acked(event)
            case Resumed() if event.stream in self._streams:
                self._streams[event.stream].versions[event.type] = event.version
            case Nacked():
                self._nacked(event)
            case Overdue():
                log.warning(
                    "acknowledgement overdue; responses that waited for it were sent "
                    "node=%s waited=%.1fs unacknowledged='%s'",
                    event.node.id,
                    event.waited,
                    ", ".join(event.unacknowledged),
                )
            case Quarantined() if event.group != self._proving:
                _held_back(event.held)
            case _:
                return

    def _connected(self, event: Connected) -> None:
        node = event.node
        self._streams[event.stream] = StreamStatus(
            node.id, node.cluster, event.group, event.peer, event.protocol, node.release, self._clock()
        )
        self._by_group.setdefault(event.group, set()).add(event.stream)
        log.info("connected node=%s cluster=%s protocol=%s", node.id, node.cluster, event.protocol)

    def _leave(self, group: str, stream: int) -> None:
        self._by_group[group].discard(stream)
        if not self._by_group[group]:
            del self._by_group[group]

    def _acked(self, event: Acked) -> None:
        status = self._streams.get(event.stream)
        if status is None:
            return
        status.versions[event.type] = event.version
        status.acknowledged, status.latency = self._clock(), event.convergence
        if status.rejection is not None and status.rejection.type == event.type.name:
            status.rejection.mended = True
        log.debug("acknowledged node=%s type=%s version=%s", event.node.id, event.type.name, event.version)

    def _nacked(self, event: Nacked) -> None:
        is_prover = event.group == self._proving
        if is_prover and event.type == ROUTE:
            return  # the bad routes are logged when the search has found them
        if is_prover and not event.blamed:
            return  # all resources are sent again one by one, so that the bad one is found
        names = tuple(sorted(event.blamed or event.versions))
        known_places = [self._place_of(event.group, event.type, name) for name in names]
        places = tuple(sorted({str(place) for place in known_places if place is not None}))
        status = self._streams.get(event.stream)
        if status is not None:
            status.rejection = Rejection(event.type.name, event.message, names, places, self._clock())
        log.error(
            "%srejected by Envoy; %s node=%s type=%s resources=%s reason=%s",
            f"{places[0]}: " if places else "",
            _PROVED if is_prover else _TAKEN if is_bind_failure(event.message) else _KEPT,
            event.node.id,
            event.type.name,
            ",".join(names) or "?",
            essence(event.message),
        )

    async def until_current(self, served: Served) -> None:
        """Wait until every connected Envoy of the fleet has what it is served. Returns at once if there is none.

        Each event costs a look at one Envoy that was late, and not at all of them: a change for 10,000 Envoys is more
        than 10,000 events.
        """
        while late := [number for number, state in self._states(served, "") if state != "current"]:
            for number in late:
                while (status := self._streams.get(number)) is not None:
                    if _State(served).of(status) == "current":
                        break
                    self._bell.clear()
                    await self._bell.wait()

    def states(self, served: Served, group: str = "") -> list[EnvoyState]:
        """Return the state of every Envoy of a group. It may be called in any thread."""
        return [state for _, state in self._states(served, group)]

    def _states(self, served: Served, group: str) -> list[tuple[int, EnvoyState]]:
        state = _State(served)
        return [(number, state.of(one)) for number, one in self._streams.copy().items() if one.group == group]

    def rejections(self, group: str) -> list[Rejection]:
        """Return the rejections by the Envoys of a group that are not mended. It may be called in any thread."""
        found = [one.rejection for one in self._streams.copy().values() if one.group == group]
        return [one for one in found if one is not None and not one.mended]

    def as_json(self, held: Collection[tuple[str, str]] = ()) -> list[dict[str, Any]]:
        """Return every stream of the fleet, for machines.

        `held` are type and name of quarantined resources. If an Envoy rejected one of them, the acknowledgement of
        the resource that is served instead does not count as a correction.
        """
        streams = [item for item in self._streams.copy().items() if item[1].group != self._proving]
        return [
            {"stream": number, **_fields(status, held)}
            for number, status in sorted(streams, key=lambda item: item[1].node)
        ]


class _State:
    """Returns the states of Envoys. What a snapshot wants of them is read once, and not for each Envoy."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._wanted: dict[Snapshot, ItemsView[ResourceType, str]] = {}

    def of(self, status: StreamStatus) -> EnvoyState:
        """Return the state of an Envoy."""
        if status.rejection is not None and not status.rejection.mended:
            return "rejecting"
        snapshot = self._served(status.release, status.node)
        if snapshot is None:
            return "waiting"
        wanted = self._wanted.get(snapshot)
        if wanted is None:
            versions = {type_: snapshot.version(type_) for type_ in _WHOLE if snapshot[type_]}
            wanted = self._wanted[snapshot] = versions.items()
        return "current" if wanted <= status.versions.items() else "waiting"


def _fields(status: StreamStatus, held: Collection[tuple[str, str]]) -> dict[str, Any]:
    rejection = status.rejection
    return {
        "node": status.node,
        "cluster": status.cluster,
        "group": status.group,
        "peer": status.peer,
        "protocol": status.protocol,
        "release": status.release or None,
        "connected_since": status.since,
        "acknowledged_at": status.acknowledged or None,
        "convergence_seconds": status.latency,
        "versions": dict(sorted((type_.name, version) for type_, version in status.versions.items())),
        "rejection": None
        if rejection is None
        else {
            "type": rejection.type,
            "message": rejection.message,
            "resources": list(rejection.resources),
            "places": list(rejection.places),
            "at": rejection.at,
            "mended": rejection.mended
            and not any((rejection.type, name) in held for name in rejection.resources),
        },
    }


def _held_back(held: Held) -> None:
    if not held.node:
        _lacking(held)
        return
    instead = "is left out" if held.standing is None else "is served in its last accepted form"
    log.warning(
        "%s '%s' was rejected and %s for every %s until it changes node=%s place=%s reason=%s",
        held.type.name,
        held.name,
        "answers 503" if held.closed else instead,
        held.release or "Envoy",
        held.node,
        held.place or "unknown",
        essence(held.message),
    )


def _lacking(held: Held) -> None:
    log.warning(
        "%s '%s' %s for every %s, which does not support it place=%s reason=%s",
        held.type.name,
        held.name,
        "answers 503" if held.closed else "is left out",
        held.release,
        held.place or "unknown",
        held.message,
    )
