"""Rejected resources held back: each stands at its last accepted form, or is left out, until its content changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from xds_server.discovery.rejection import is_bind_failure
from xds_server.discovery.snapshot import EMPTY, Resource, Snapshot
from xds_server.discovery.types import ResourceType
from xds_server.serving.events import Acked, Held, Nacked

Key = tuple[ResourceType, str]


Place = Callable[[ResourceType, str], str]
StandIn = Callable[[ResourceType, Resource], Resource | None]
"""What is served in the place of a rejected resource of which no good form is known; None: nothing."""


class Quarantine:
    """Of the clients of one release in one node group. `place` says where a resource came from."""

    def __init__(
        self,
        place: Place = lambda _type, _name: "",
        stand_in: StandIn = lambda _type, _resource: None,
    ) -> None:
        self.held: dict[Key, Held] = {}
        self._place = place
        self._stand_in = stand_in
        self._accepted: dict[Key, Resource] = {}
        self._kept: dict[Key, Resource] = {}
        self._bad: dict[Key, dict[str, Nacked]] = {}
        self._endorsed: dict[Key, str] = {}
        self._wanted = EMPTY

    def keep(self, snapshot: Snapshot) -> None:
        """Remember what was served before a restart: it is good to fall back on, and nobody's opinion."""
        self._kept = {(type_, name): one for type_ in snapshot for name, one in snapshot[type_].items()}

    def another(self) -> Quarantine:
        """One for another release, which falls back on the same things of before a restart."""
        other = Quarantine(self._place, self._stand_in)
        other._kept, other._endorsed = dict(self._kept), dict(self._endorsed)
        return other

    def accept(self, event: Acked, served: Iterable[Snapshot]) -> None:
        """Remember what was accepted, as what a later version can fall back on. `served` has the newest first.

        What a slow client accepts does not take the place of something newer that another one has accepted.
        """
        for name, version in event.versions.items():
            known = self._accepted.get((event.type, name))
            versions = {version} if known is None else {version, known.version}
            for snapshot in served:
                one = snapshot[event.type].get(name)
                if one is not None and one.version in versions:
                    self._accepted[event.type, name] = one
                    break

    def endorse(self, type_: ResourceType, versions: Mapping[str, str], wanted: Snapshot) -> bool:
        """Take note of what anybody accepted of what is wanted: it is not held back. Whether something was."""
        lifted = False
        for name, version in versions.items():
            one = wanted[type_].get(name)
            if one is not None and one.version == version:
                self._endorsed[type_, name] = version
                lifted |= self._bad.get((type_, name), {}).pop(version, None) is not None
        return lifted

    def reject(self, event: Nacked) -> bool:
        """Hold back what is to blame. Returns False when that is not known, or known already.

        What anybody accepted in this very version is not held back: the client that rejects it is alone, as is
        the one on whose machine a port is taken.
        """
        if is_bind_failure(event.message):
            return False
        new = [self._reject((event.type, name), version, event) for name, version in event.blamed.items()]
        return any(new)

    def _reject(self, key: Key, version: str, event: Nacked) -> bool:
        accepted = self._accepted.get(key)
        if self._endorsed.get(key) == version or (accepted is not None and accepted.version == version):
            return False
        bad = self._bad.setdefault(key, {})
        new = version not in bad
        bad[version] = event
        return new

    def falls_back(self, key: Key, version: str) -> bool:
        """Whether another form than this version is known to be good."""
        known = (self._accepted.get(key), self._kept.get(key))
        bad = self._bad.get(key, {})
        return any(one is not None and one.version != version and one.version not in bad for one in known)

    def adopt(self, other: Quarantine, served: Snapshot, wanted: Snapshot) -> None:
        """Take over what another group accepted and rejected of what is `wanted`.

        What this group accepted itself in that very version, or was served before a restart, is not held back. What is
        `served` in a version that the other group accepted is good to fall back on, be it not acknowledged yet.
        Only what changes is looked at: the rest was taken over before.
        """
        for type_, difference in wanted.diff(served).items():
            was = served[type_]
            for name in difference.changed:
                accepted = other._accepted.get((type_, name))
                if accepted is None:
                    continue
                one = was.get(name)
                if one is not None and one.version == accepted.version:
                    self._accepted[type_, name] = one
                self.endorse(type_, {name: accepted.version}, wanted)
        for key, rejections in other._bad.items():
            for version, event in rejections.items():
                kept = self._kept.get(key)
                if kept is None or kept.version != version:
                    self._reject(key, version, event)

    def apply(self, wanted: Snapshot) -> Snapshot:
        """What is served instead of `wanted`."""
        self.held = {}
        changed: dict[ResourceType, dict[str, Resource]] = {}
        for (type_, name), rejections in list(self._bad.items()):
            one = wanted[type_].get(name)
            if one is None or one.version not in rejections:
                del self._bad[type_, name]
                continue
            items = changed.setdefault(type_, dict(wanted[type_]))
            self._hold(type_, one, rejections, items)
        self._forget_removed(wanted)
        return wanted.replacing(changed) if changed else wanted

    def _forget_removed(self, wanted: Snapshot) -> None:
        """Forget what was thought of resources that are wanted no longer."""
        for type_, difference in wanted.diff(self._wanted).items():
            for name in difference.removed:
                for known in (self._accepted, self._kept, self._endorsed):
                    known.pop((type_, name), None)
        self._wanted = wanted

    def _hold(
        self,
        type_: ResourceType,
        one: Resource,
        rejections: Mapping[str, Nacked],
        items: dict[str, Resource],
    ) -> None:
        known = (self._accepted.get((type_, one.name)), self._kept.get((type_, one.name)))
        good = [form for form in known if form is not None and form.version not in rejections]
        standing = good[0] if good else None
        instead = standing or self._stand_in(type_, one)
        closed = standing is None and instead is not None and instead.version not in rejections
        if standing is not None or closed:
            assert instead is not None
            items[one.name] = instead
        else:
            del items[one.name]
        rejection = rejections[one.version]
        self.held[type_, one.name] = Held(
            type=type_,
            name=one.name,
            version=one.version,
            standing=standing.version if standing is not None else None,
            message=rejection.message,
            node=rejection.node.id,
            place=self._place(type_, one.name),
            closed=closed,
            release=rejection.release,
        )
