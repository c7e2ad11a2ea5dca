"""The current snapshot of every node group, and the streams that wait for the next one.

Only the thread of the event loop may use it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from xds_server.discovery.node import Node
from xds_server.discovery.snapshot import EMPTY, Resource, Snapshot
from xds_server.discovery.types import ResourceType
from xds_server.serving.audiences import (
    Audience,
    Chosen,
    Cohort,
    has_version,
    nobody,
    quarantined,
    remember,
    renew,
    report_key,
    reportable,
    served_until_now,
)
from xds_server.serving.events import Acked, Event, Held, Nacked, Published, Quarantined
from xds_server.serving.quarantine import Place, Quarantine, StandIn

Observer = Callable[[Event], None]
Adapted = tuple[Snapshot, tuple[Held, ...]]
"""A snapshot reduced to what a release supports, and the parts that were left out."""

_RELEASES = 64
"""Releases of a group that are distinguished. Clients of further releases are served like those without a release."""


@dataclass(slots=True)
class _Group:
    stable: Cohort
    candidate: Cohort | None = None
    """The cohort of a newer publication that only `chosen` clients are served, None if there is none."""
    chosen: Chosen = nobody
    reported: frozenset[tuple[object, ...]] = frozenset()
    published: float = 0.0
    bells: set[asyncio.Event] = field(default_factory=set)

    @property
    def cohorts(self) -> tuple[Cohort, ...]:
        return (self.stable,) if self.candidate is None else (self.stable, self.candidate)

    def audience(self, release: str, node: str) -> Audience:
        """Return the audience that a client belongs to now."""
        if self.candidate is not None and node and self.chosen(node):
            return self.candidate.audiences[release]
        return self.stable.audiences[release]


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
        cohort = entry.stable
        if cohort.wanted is not None and not snapshot.diff(cohort.wanted):
            return False
        entry.published = self._clock()
        self._make_wanted(cohort, snapshot, proved_by, left_out)
        self._serve(group, entry, cohort)
        return True

    def offer(
        self,
        snapshot: Snapshot,
        group: str = "",
        *,
        chosen: Chosen,
        proved_by: str | None = None,
        left_out: Sequence[Held] = (),
    ) -> None:
        """Serve a snapshot to the chosen clients of a group, in the place of an earlier candidate. All others are served
        the group's own snapshot, which there must be. The other parameters are those of `publish`.
        """
        entry = self._group(group)
        earlier = entry.candidate or entry.stable
        audiences = {
            release: Audience(
                audience.quarantine.copy(), before=served_until_now(earlier, release, entry.stable)
            )
            for release, audience in entry.stable.audiences.items()
        }
        entry.candidate, entry.chosen, entry.published = Cohort(audiences), chosen, self._clock()
        self._make_wanted(entry.candidate, snapshot, proved_by, left_out)
        self._serve(group, entry, entry.candidate)

    def choose(self, chosen: Chosen, group: str = "") -> None:
        """Serve the candidate of a group to other clients from now on."""
        entry = self._group(group)
        entry.chosen, entry.published = chosen, self._clock()
        _ring(entry)

    def promote(self, group: str = "") -> None:
        """Serve the candidate of a group to all of its clients."""
        entry = self._group(group)
        assert entry.candidate is not None
        for release, audience in entry.candidate.audiences.items():
            remember(audience, (entry.stable.audiences[release].snapshot,))
        entry.stable, entry.candidate, entry.chosen = entry.candidate, None, nobody
        entry.published = self._clock()
        self._notify(Published(group=group, changed={}, removed={}))
        _ring(entry)
        self._report(group, entry)

    def take_back(self, group: str = "") -> None:
        """Serve all clients of a group what those without the candidate are served."""
        entry = self._group(group)
        assert entry.candidate is not None
        for release, audience in entry.stable.audiences.items():
            candidate = entry.candidate.audiences[release]
            remember(audience, (*reversed(candidate.before), candidate.snapshot))
        entry.candidate, entry.chosen, entry.published = None, nobody, self._clock()
        self._notify(Published(group=group, changed={}, removed={}))
        _ring(entry)
        self._report(group, entry)

    def candidate(self, group: str = "", release: str = "") -> Snapshot | None:
        """Return the snapshot that the chosen clients of a group are served, None if there is no candidate."""
        cohort = self._group(group).candidate
        return cohort.audiences[release].snapshot if cohort is not None else None

    def held_of_candidate(self, group: str = "") -> tuple[Held, ...]:
        """Return the resources that only the candidate of a group is served otherwise than published."""
        entry = self._group(group)
        if entry.candidate is None:
            return ()
        known = {report_key(one) for one in reportable((entry.stable,))}
        found = {report_key(one): one for one in reportable((entry.candidate,))}
        return tuple(one for key, one in found.items() if key not in known)

    def only_of_candidate(self, type_: ResourceType, name: str, version: str, group: str = "") -> bool:
        """True if the candidate of a group has this version of a resource, and the stable snapshot has not."""
        entry = self._group(group)
        if entry.candidate is None:
            return False
        has = [has_version(cohort.wanted, type_, name, version) for cohort in entry.cohorts]
        return has == [False, True]

    def _make_wanted(
        self, cohort: Cohort, snapshot: Snapshot, proved_by: str | None, left_out: Sequence[Held]
    ) -> None:
        cohort.wanted, cohort.proved_by, cohort.left_out = snapshot, proved_by, tuple(left_out)
        for release, audience in cohort.audiences.items():
            self._want(cohort, audience, release)

    def _want(self, cohort: Cohort, audience: Audience, release: str) -> None:
        """Give a release the wanted snapshot of its cohort, with the verdict of the group that proved it."""
        if cohort.wanted is None:
            return
        audience.wanted, audience.lacking = self._adapt(cohort.wanted, release)
        if cohort.proved_by is not None:
            prover = self._group(cohort.proved_by).stable.audiences[""].quarantine
            audience.quarantine.adopt(prover, audience.snapshot or EMPTY, audience.wanted)

    def restore(self, snapshot: Snapshot, group: str = "") -> None:
        """Publish the snapshot of before a restart. Rejections fall back on it until a client accepts something else."""
        for audience in self._group(group).stable.audiences.values():
            audience.quarantine.keep(snapshot)
        self.publish(snapshot, group)

    def _serve(self, group: str, entry: _Group, *cohorts: Cohort) -> None:
        """Make the wanted snapshot, without quarantined resources, the current one of every release."""
        changes = [renew(audience) for cohort in cohorts for audience in cohort.audiences.values()]
        self._notify(
            Published(
                group=group,
                changed={type_: len(change.changed) for type_, change in changes[0].items()},
                removed={type_: len(change.removed) for type_, change in changes[0].items()},
            )
        )
        _ring(entry)
        self._report(group, entry)

    def _report(self, group: str, entry: _Group) -> None:
        """Report resources that are not served as published, each once."""
        held = {report_key(report): report for report in reportable(entry.cohorts)}
        news, entry.reported = held.keys() - entry.reported, frozenset(held)
        for key, report in held.items():
            if key in news:
                self._notify(Quarantined(group=group, held=report))

    def join(self, group: str, node: Node) -> str:
        """Note that a client belongs to a group. Returns its release, which `current` and `before` need."""
        release, entry = self.release_of(group, node), self._group(group)
        if release in entry.stable.audiences:
            return release
        if len(entry.stable.audiences) > _RELEASES:
            return ""
        for cohort in entry.cohorts:
            audience = cohort.audiences[release] = Audience(cohort.audiences[""].quarantine.another())
            self._want(cohort, audience, release)
            if audience.wanted is not None:
                renew(audience)
        self._report(group, entry)
        return release

    def withdraw(self, group: str = "") -> None:
        """Serve a group nothing more, not even an empty response. Its clients keep what they have."""
        entry = self._group(group)
        entry.candidate, entry.stable.wanted = None, None
        for audience in entry.stable.audiences.values():
            audience.wanted = audience.snapshot = None
            audience.before.clear()

    def wanted(self, group: str = "") -> Snapshot | None:
        """Return the snapshot that was published last, with the resources that are quarantined now."""
        return self._group(group).stable.wanted

    def held(self, group: str = "") -> tuple[Held, ...]:
        """Return the quarantined resources. A resource is listed once for all releases with the same state."""
        distinct: dict[tuple[object, ...], Held] = {}
        for held in reportable(self._group(group).cohorts):
            distinct.setdefault((*report_key(held), held.standing), held)
        return tuple(distinct.values())

    def falls_back(self, type_: ResourceType, name: str, version: str, group: str = "") -> bool:
        """True if a group has a good form of a resource that can be served if this version is rejected."""
        audiences = self._group(group).stable.audiences.values()
        return any(audience.quarantine.falls_back((type_, name), version) for audience in audiences)

    def current(self, group: str = "", release: str = "", node: str = "") -> Snapshot | None:
        """Return the snapshot that a client of a release in a group is served, or None before the first publication.

        Without `node`, it is the one of clients that are not served the candidate of a rollout.
        """
        entry = self._groups.get(group)
        return entry.audience(release, node).snapshot if entry is not None else None

    def before(self, group: str = "", release: str = "", node: str = "") -> Iterable[Snapshot]:
        """Return the earlier snapshots of a release, the newest first."""
        return self._group(group).audience(release, node).before

    def published_at(self, group: str = "") -> float:
        """Return the time of the last publication, in seconds of the clock."""
        return self._group(group).published

    @property
    def groups(self) -> Mapping[str, Snapshot]:
        """The snapshot of every group that has one, as it is served to clients that name no program."""
        snapshots = {name: group.stable.audiences[""].snapshot for name, group in self._groups.items()}
        return {name: snapshot for name, snapshot in snapshots.items() if snapshot is not None}

    def accepted(self, group: str = "", *, candidate: bool = False) -> Snapshot | None:
        """Return the served snapshot of a group, or its `candidate`, without resources that some release of it has
        rejected.
        """
        entry = self._group(group)
        cohort = entry.candidate if candidate else entry.stable
        snapshot = cohort.audiences[""].snapshot if cohort is not None else None
        if cohort is None or snapshot is None:
            return None
        changed: dict[ResourceType, dict[str, Resource]] = {}
        for release, (type_, name), held in quarantined(cohort):
            served = (cohort.audiences[release].snapshot or EMPTY)[type_]
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
        if isinstance(event, Acked):
            for cohort in entry.cohorts:
                audience = cohort.audiences[event.release]
                served = () if audience.snapshot is None else (audience.snapshot, *audience.before)
                audience.quarantine.accept(event, served)
            self._endorse(event, event.group, entry)
        else:
            # a version of a resource is as bad for the clients of the other cohort
            new = [one for one in entry.cohorts if one.audiences[event.release].quarantine.reject(event)]
            if concerned := [one for one in new if one.wanted is not None]:
                self._serve(event.group, entry, *concerned)
        for name, other in self._groups.items():
            if all(cohort.proved_by != event.group for cohort in other.cohorts):
                continue
            if isinstance(event, Acked):
                self._endorse(event, name, other)
            else:
                self._reject_late(event, name, other)

    def _reject_late(self, event: Nacked, group: str, entry: _Group) -> None:
        """Quarantine resources that were published before the group that proves them had rejected them."""
        late = []
        for cohort in entry.cohorts:
            for release, audience in cohort.audiences.items():
                items = (audience.wanted or EMPTY)[event.type]
                if any(name in items and items[name].version == bad for name, bad in event.blamed.items()):
                    self._want(cohort, audience, release)
                    late.append(cohort)
        if late:
            self._serve(group, entry, *(cohort for cohort in entry.cohorts if cohort in late))

    def _endorse(self, event: Acked, group: str, entry: _Group) -> None:
        """Lift the quarantine of accepted versions for all clients of the group, of whatever release."""
        lifted = [
            cohort
            for cohort in entry.cohorts
            for audience in cohort.audiences.values()
            if audience.wanted is not None
            and audience.quarantine.endorse(event.type, event.versions, audience.wanted)
        ]
        if lifted:
            self._serve(group, entry, *(cohort for cohort in entry.cohorts if cohort in lifted))

    def _notify(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)

    def _group(self, name: str) -> _Group:
        if name not in self._groups:
            self._groups[name] = _Group(Cohort({"": Audience(Quarantine(self._place(name), self._stand_in))}))
        return self._groups[name]


def _ring(entry: _Group) -> None:
    """Wake all streams of a group."""
    for bell in entry.bells:
        bell.set()
