"""The current snapshot of every node group, and who waits for the next one. Used from the event loop's thread."""

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
"""A snapshot as a release can take it, and what was left out for that."""

_REMEMBERED = 16
"""Earlier snapshots of a group; they share with the current one what did not change."""

_RELEASES = 64
"""Releases of a group that are told apart; clients of further ones are served as if they named no program."""


@dataclass(slots=True)
class _Audience:
    """The clients of one release in a group, and what they are served."""

    quarantine: Quarantine
    wanted: Snapshot | None = None
    """What was published, changed into what the release can take."""
    lacking: tuple[Held, ...] = ()
    """What was left out for that."""
    snapshot: Snapshot | None = None
    before: deque[Snapshot] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """Those before, the newest first, which slow clients may be accepting still."""


@dataclass(slots=True)
class _Group:
    audiences: dict[str, _Audience]
    """By release; the one without a name is that of clients that name no program."""
    wanted: Snapshot | None = None
    proved_by: str | None = None
    left_out: tuple[Held, ...] = ()
    reported: frozenset[tuple[object, ...]] = frozenset()
    published: float = 0.0
    bells: set[asyncio.Event] = field(default_factory=set)


class Store:
    """Snapshots by node group. The group without a name, ``""``, is everybody's unless groups are told apart.

    `observers` are called with every event, in the order given, in the event loop: they must not block.
    `quarantine` has a resource that a client rejected replaced by its last accepted form, for the whole group;
    `stand_in` makes what is served instead where no accepted form is known, and `place` says where a resource of a group
    came from. `clock` gives monotonic seconds.
    `release_of` tells clients of a group apart that may judge differently, by group and node: a rejection then counts
    for clients of the same release, and `adapt` changes a snapshot into what a release can take.
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
        """Of streams: one number is one stream, however many servers the store has."""
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
        """Make a snapshot current: all of it or nothing. Returns False when it changes nothing.

        What the group `proved_by` rejected is held back here too; what it accepted is held back for nobody.
        `left_out` is told beside what is held back: parts of resources that were replaced before.
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
        """Bring to a release what is wanted of its group, with the judgement of the group that proved it."""
        if entry.wanted is None:
            return
        audience.wanted, audience.lacking = self._adapt(entry.wanted, release)
        if entry.proved_by is not None:
            judge = self._group(entry.proved_by).audiences[""].quarantine
            audience.quarantine.adopt(judge, audience.snapshot or EMPTY, audience.wanted)

    def restore(self, snapshot: Snapshot, group: str = "") -> None:
        """Publish what was served before a restart. Until something else is accepted, rejections fall back on it."""
        for audience in self._group(group).audiences.values():
            audience.quarantine.keep(snapshot)
        self.publish(snapshot, group)

    def _serve(self, group: str, entry: _Group) -> None:
        """Make what is wanted, without what is held back, the current snapshot of every release."""
        changes = [_renew(one) for one in entry.audiences.values()]
        self._tell(
            Published(
                group=group,
                changed={type_: len(one.changed) for type_, one in changes[0].items()},
                removed={type_: len(one.removed) for type_, one in changes[0].items()},
            )
        )
        for bell in entry.bells:
            bell.set()
        self._report(group, entry)

    def _report(self, group: str, entry: _Group) -> None:
        """Tell what is not served as it was meant, each once."""
        held = {_told_as(one): one for one in _told(entry)}
        news, entry.reported = held.keys() - entry.reported, frozenset(held)
        for key, one in held.items():
            if key in news:
                self._tell(Quarantined(group=group, held=one))

    def join(self, group: str, node: Node) -> str:
        """Note that a client belongs to a group. Returns its release, by which its snapshot is asked for."""
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
        """Serve a group nothing more: no answer, not an empty one. Its clients keep what they have."""
        entry = self._group(group)
        entry.wanted = None
        for audience in entry.audiences.values():
            audience.wanted = audience.snapshot = None
            audience.before.clear()

    def wanted(self, group: str = "") -> Snapshot | None:
        """What was published last, also of what is held back."""
        return self._group(group).wanted

    def held(self, group: str = "") -> tuple[Held, ...]:
        """What was rejected and is held back until its content changes; once for all releases that have it so."""
        found: dict[tuple[object, ...], Held] = {}
        for held in _told(self._group(group)):
            found.setdefault((*_told_as(held), held.standing), held)
        return tuple(found.values())

    def falls_back(self, type_: ResourceType, name: str, version: str, group: str = "") -> bool:
        """Whether a group has a good form of a resource to fall back on when this version is rejected."""
        audiences = self._group(group).audiences.values()
        return any(one.quarantine.falls_back((type_, name), version) for one in audiences)

    def current(self, group: str = "", release: str = "") -> Snapshot | None:
        """The snapshot that the clients of a release in a group are served; None before the first one."""
        entry = self._groups.get(group)
        return entry.audiences[release].snapshot if entry is not None else None

    def before(self, group: str = "", release: str = "") -> Iterable[Snapshot]:
        """The snapshots that they were served before, the newest first."""
        return self._group(group).audiences[release].before

    def published_at(self, group: str = "") -> float:
        """When the current snapshot was published, in the clock's seconds."""
        return self._group(group).published

    @property
    def groups(self) -> Mapping[str, Snapshot]:
        """The snapshot of every group that has one, as it is served to clients that name no program."""
        found = {name: one.audiences[""].snapshot for name, one in self._groups.items()}
        return {name: one for name, one in found.items() if one is not None}

    def accepted(self, group: str = "") -> Snapshot | None:
        """What a group is served, without anything that some release of it has rejected."""
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

    async def newer_than(self, seen: Snapshot | None, group: str = "") -> Snapshot:
        """Wait until the current snapshot is another than `seen`. Nothing published meanwhile is missed."""
        bell = asyncio.Event()
        with self.notify_on_publish(bell, group):
            while True:
                current = self.current(group)
                if current is not None and current is not seen:
                    return current
                await bell.wait()
                bell.clear()

    @contextmanager
    def notify_on_publish(self, bell: asyncio.Event, group: str = "") -> Iterator[None]:
        """Set `bell` at every publication in a group, for as long as the context lasts."""
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
        """Take note of what happened on a stream, and tell the observers."""
        self._tell(event)
        if self._quarantine and isinstance(event, Acked | Nacked):
            self._judge(event)

    def _judge(self, event: Acked | Nacked) -> None:
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
        """Hold back what was published before the group that proves it had rejected it."""
        late = False
        for release, one in entry.audiences.items():
            items = (one.wanted or EMPTY)[event.type]
            if any(name in items and items[name].version == bad for name, bad in event.blamed.items()):
                self._want(entry, one, release)
                late = True
        if late:
            self._serve(group, entry)

    def _endorse(self, event: Acked, group: str, entry: _Group) -> None:
        """What one client accepted is held back for nobody in its group, of whatever release."""
        lifted = [
            one.quarantine.endorse(event.type, event.versions, one.wanted)
            for one in entry.audiences.values()
            if one.wanted is not None
        ]
        if any(lifted):
            self._serve(group, entry)

    def _tell(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)

    def _group(self, name: str) -> _Group:
        if name not in self._groups:
            self._groups[name] = _Group({"": _Audience(Quarantine(self._place(name), self._stand_in))})
        return self._groups[name]


def _renew(audience: _Audience) -> Mapping[ResourceType, Difference]:
    """Serve what is wanted without what is held back. Returns what that changes."""
    assert audience.wanted is not None
    earlier = audience.snapshot
    audience.snapshot = audience.quarantine.apply(audience.wanted)
    if earlier is not None:
        audience.before.appendleft(earlier)
    return audience.snapshot.diff(earlier if earlier is not None else EMPTY)


def _told_as(held: Held) -> tuple[object, ...]:
    """What is told once, for however many releases it holds."""
    return held.type, held.name, held.version, held.release


def _told(entry: _Group) -> Iterator[Held]:
    """Everything that some client of a group is not served as it was meant."""
    for audience in entry.audiences.values():
        yield from audience.quarantine.held.values()
        yield from audience.lacking
    yield from entry.left_out


def _held(entry: _Group) -> Iterator[tuple[str, Key, Held]]:
    """What each release is not served."""
    for release, audience in entry.audiences.items():
        for key, held in audience.quarantine.held.items():
            yield release, key, held
