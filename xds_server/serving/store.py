"""The current snapshot of every node group, and the streams that wait for the next one.

Only the thread of the event loop may use it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from xds_server.discovery.node import Node
from xds_server.discovery.snapshot import EMPTY, Difference, Resource, Snapshot
from xds_server.discovery.types import ResourceType
from xds_server.serving.events import Acked, Event, Held, Nacked, Published, Quarantined
from xds_server.serving.quarantine import Key, Place, Quarantine, StandIn

Observer = Callable[[Event], None]
Adapted = tuple[Snapshot, tuple[Held, ...]]
"""A snapshot reduced to what a release supports, and the parts that were left out."""

_REMEMBERED = 16
"""Earlier snapshots of a group. They share unchanged resources with the current one."""

_RELEASES = 64
"""Releases of a group that are distinguished. Clients of further releases are served like those without a release."""


@dataclass(slots=True)
class _Audience:
    """The clients of one release in a group, and the snapshot that they are served."""

    quarantine: Quarantine
    wanted: Snapshot | None = None
    """The published snapshot, reduced to what the release supports."""
    lacking: tuple[Held, ...] = ()
    """The parts that were left out."""
    snapshot: Snapshot | None = None
    before: deque[Snapshot] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """Earlier snapshots, the newest first. Slow clients may still acknowledge them."""


@dataclass(slots=True)
class _Group:
    audiences: dict[str, _Audience]
    """By release. The release "" is that of clients that name no program."""
    wanted: Snapshot | None = None
    proved_by: str | None = None
    left_out: tuple[Held, ...] = ()
    reported: frozenset[tuple[object, ...]] = frozenset()
    published: float = 0.0
    bells: set[asyncio.Event] = field(default_factory=set)


class Store:
    """Snapshots by node group. Without rules for groups, all clients belong to the group ``""``.

    `observers` are called with every event, in the given order and in the event loop, so they must not block.

    `quarantine` makes the store replace a rejected resource by its last accepted form, for the whole group.
    `stand_in` makes the resource that is served if no accepted form is known. `place` returns the position that a
    resource of a group came from. `clock` returns monotonic seconds.

    `release_of` returns the release of a client by group and node. A rejection then counts for clients of the same
    release, and `adapt` reduces a snapshot to what a release supports.
    """

    def __init__(
        self,
        *observers: Observer,
        quarantine: bool = False,
        place: Callable[[str], Place] = lambda _group: lambda _type, _name: "",
        stand_in: StandIn = lambda _type, _resource: None,
        release_of: Callable[[str, Node], str] = lambda _group, _node: "",
        adapt: Callable[[Snapshot, str], Adapted] = lambda snapshot, _release: (snapshot, ()),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.numbers = itertools.count(1)
        """Numbers of streams: one number is one stream, however many servers use the store."""
        self.release_of = release_of
        self._observers = list(observers)
        self._quarantine = quarantine
        self._place = place
        self._stand_in = stand_in
        self._adapt = adapt
        self._groups: dict[str, _Group] = {}
        self._clock = clock

    def publish(
        self,
        snapshot: Snapshot,
        group: str = "",
        *,
        proved_by: str | None = None,
        left_out: Sequence[Held] = (),
    ) -> bool:
        """Make a snapshot current as a whole. Returns False if it changes nothing.

        Resources that the group `proved_by` rejected are quarantined here too; a version that it accepted is
        quarantined for no client. `left_out` are parts of resources that were replaced earlier; they are reported
        with the quarantined resources.
        """
        entry = self._group(group)
        if entry.wanted is not None and not snapshot.diff(entry.wanted):
            return False
        entry.wanted, entry.published, entry.proved_by = snapshot, self._clock(), proved_by
        for release, audience in entry.audiences.items():
            self._want(entry, audience, release)
        entry.left_out = tuple(left_out)
        self._serve(group, entry)
        return True

    def _want(self, entry: _Group, audience: _Audience, release: str) -> None:
        """Give a release the group's wanted snapshot, with the verdict of the group that proved it."""
        if entry.wanted is None:
            return
        audience.wanted, audience.lacking = self._adapt(entry.wanted, release)
        if entry.proved_by is not None:
            prover = self._group(entry.proved_by).audiences[""].quarantine
            audience.quarantine.adopt(prover, audience.snapshot or EMPTY, audience.wanted)

    def restore(self, snapshot: Snapshot, group: str = "") -> None:
        """Publish the snapshot of before a restart. Rejections fall back on it until a client accepts something else."""
        for audience in self._group(group).audiences.values():
            audience.quarantine.keep(snapshot)
        self.publish(snapshot, group)

    def _serve(self, group: str, entry: _Group) -> None:
        """Make the wanted snapshot, without quarantined resources, the current one of every release."""
        changes = [_renew(audience) for audience in entry.audiences.values()]
        self._notify(
            Published(
                group=group,
                changed={type_: len(change.changed) for type_, change in changes[0].items()},
                removed={type_: len(change.removed) for type_, change in changes[0].items()},
            )
        )
        for bell in entry.bells:
            bell.set()
        self._report(group, entry)

    def _report(self, group: str, entry: _Group) -> None:
        """Report resources that are not served as published, each once."""
        held = {_report_key(report): report for report in _reportable(entry)}
        news, entry.reported = held.keys() - entry.reported, frozenset(held)
        for key, report in held.items():
            if key in news:
                self._notify(Quarantined(group=group, held=report))

    def join(self, group: str, node: Node) -> str:
        """Note that a client belongs to a group. Returns its release, which `current` and `before` need."""
        release, entry = self.release_of(group, node), self._group(group)
        if release in entry.audiences:
            return release
        if len(entry.audiences) > _RELEASES:
            return ""
        audience = entry.audiences[release] = _Audience(entry.audiences[""].quarantine.another())
        self._want(entry, audience, release)
        if audience.wanted is not None:
            _renew(audience)
        self._report(group, entry)
        return release

    def withdraw(self, group: str = "") -> None:
        """Serve a group nothing more, not even an empty response. Its clients keep what they have."""
        entry = self._group(group)
        entry.wanted = None
        for audience in entry.audiences.values():
            audience.wanted = audience.snapshot = None
            audience.before.clear()

    def wanted(self, group: str = "") -> Snapshot | None:
        """Return the snapshot that was published last, with the resources that are quarantined now."""
        return self._group(group).wanted

    def held(self, group: str = "") -> tuple[Held, ...]:
        """Return the quarantined resources. A resource is listed once for all releases with the same state."""
        distinct: dict[tuple[object, ...], Held] = {}
        for held in _reportable(self._group(group)):
            distinct.setdefault((*_report_key(held), held.standing), held)
        return tuple(distinct.values())

    def falls_back(self, type_: ResourceType, name: str, version: str, group: str = "") -> bool:
        """True if a group has a good form of a resource that can be served if this version is rejected."""
        audiences = self._group(group).audiences.values()
        return any(audience.quarantine.falls_back((type_, name), version) for audience in audiences)

    def current(self, group: str = "", release: str = "") -> Snapshot | None:
        """Return the snapshot that clients of a release in a group are served, or None before the first publication."""
        entry = self._groups.get(group)
        return entry.audiences[release].snapshot if entry is not None else None

    def before(self, group: str = "", release: str = "") -> Iterable[Snapshot]:
        """Return the earlier snapshots of a release, the newest first."""
        return self._group(group).audiences[release].before

    def published_at(self, group: str = "") -> float:
        """Return the time of the last publication, in seconds of the clock."""
        return self._group(group).published

    @property
    def groups(self) -> Mapping[str, Snapshot]:
        """The snapshot of every group that has one, as it is served to clients that name no program."""
        snapshots = {name: group.audiences[""].snapshot for name, group in self._groups.items()}
        return {name: snapshot for name, snapshot in snapshots.items() if snapshot is not None}

    def accepted(self, group: str = "") -> Snapshot | None:
        """Return the served snapshot of a group, without resources that some release of it has rejected."""
        entry = self._group(group)
        snapshot = entry.audiences[""].snapshot
        if snapshot is None:
            return None
        changed: dict[ResourceType, dict[str, Resource]] = {}
        for release, (type_, name), held in _held(entry):
            served = (entry.audiences[release].snapshot or EMPTY)[type_]
            items = changed.setdefault(type_, dict(snapshot[type_]))
            items.pop(name, None)
            if held.standing is not None:
                items[name] = served[name]
        return snapshot.replacing(changed) if changed else snapshot

    @contextmanager
    def notify_on_publish(self, bell: asyncio.Event, group: str = "") -> Iterator[None]:
        """Set `bell` at every publication in a group until the context ends."""
        bells = self._group(group).bells
        bells.add(bell)
        try:
            yield
        finally:
            bells.discard(bell)

    def observe(self, observer: Observer) -> None:
        """Call one more observer from now on."""
        self._observers.append(observer)

    def record(self, event: Event) -> None:
        """Handle an event of a stream, and call the observers."""
        self._notify(event)
        if self._quarantine and isinstance(event, Acked | Nacked):
            self._apply_verdict(event)

    def _apply_verdict(self, event: Acked | Nacked) -> None:
        entry = self._group(event.group)
        audience = entry.audiences[event.release]
        if isinstance(event, Acked):
            served = () if audience.snapshot is None else (audience.snapshot, *audience.before)
            audience.quarantine.accept(event, served)
            self._endorse(event, event.group, entry)
        elif audience.quarantine.reject(event) and entry.wanted is not None:
            self._serve(event.group, entry)
        for name, other in self._groups.items():
            if other.proved_by != event.group:
                continue
            if isinstance(event, Acked):
                self._endorse(event, name, other)
            else:
                self._reject_late(event, name, other)

    def _reject_late(self, event: Nacked, group: str, entry: _Group) -> None:
        """Quarantine resources that were published before the group that proves them had rejected them."""
        late = False
        for release, audience in entry.audiences.items():
            items = (audience.wanted or EMPTY)[event.type]
            if any(name in items and items[name].version == bad for name, bad in event.blamed.items()):
                self._want(entry, audience, release)
                late = True
        if late:
            self._serve(group, entry)

    def _endorse(self, event: Acked, group: str, entry: _Group) -> None:
        """Lift the quarantine of accepted versions for all clients of the group, of whatever release."""
        lifted = [
            audience.quarantine.endorse(event.type, event.versions, audience.wanted)
            for audience in entry.audiences.values()
            if audience.wanted is not None
        ]
        if any(lifted):
            self._serve(group, entry)

    def _notify(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)

    def _group(self, name: str) -> _Group:
        if name not in self._groups:
            self._groups[name] = _Group({"": _Audience(Quarantine(self._place(name), self._stand_in))})
        return self._groups[name]


def _renew(audience: _Audience) -> Mapping[ResourceType, Difference]:
    """Serve the wanted snapshot without quarantined resources. Returns the changes."""
    assert audience.wanted is not None
    earlier = audience.snapshot
    audience.snapshot = audience.quarantine.apply(audience.wanted)
    if earlier is not None:
        audience.before.appendleft(earlier)
    return audience.snapshot.diff(earlier if earlier is not None else EMPTY)


def _report_key(held: Held) -> tuple[object, ...]:
    """Return the key by which a resource is reported once, for however many releases it is quarantined."""
    return held.type, held.name, held.version, held.release


def _reportable(entry: _Group) -> Iterator[Held]:
    """Yield everything that some client of a group is not served as published."""
    for audience in entry.audiences.values():
        yield from audience.quarantine.held.values()
        yield from audience.lacking
    yield from entry.left_out


def _held(entry: _Group) -> Iterator[tuple[str, Key, Held]]:
    """Yield the quarantined resources of each release."""
    for release, audience in entry.audiences.items():
        for key, held in audience.quarantine.held.items():
            yield release, key, held
