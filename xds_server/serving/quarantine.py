"""Quarantine of rejected resources: the last accepted form is served instead, or none, until the content changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from xds_server.discovery.rejection import is_bind_failure
from xds_server.discovery.snapshot import EMPTY, Resource, Snapshot
from xds_server.discovery.types import ResourceType
from xds_server.serving.events import Acked, Held, Nacked

Key = tuple[ResourceType, str]


Place = Callable[[ResourceType, str], str]
StandIn = Callable[[ResourceType, Resource], Resource | None]
"""Returns the resource that is served instead of a rejected one without a good form, or None for no resource."""


class Quarantine:
    """The quarantine of the clients of one release in one node group.

    `place` returns the position that a resource came from, such as ``gateway.yaml:3``.
    """

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
        """Remember the resources that were served before a restart, as fallbacks that no client has accepted."""
        self._kept = {
            (type_, name): resource for type_ in snapshot for name, resource in snapshot[type_].items()
        }

    def another(self) -> Quarantine:
        """Return a quarantine for another release, with the same fallbacks from before a restart."""
        other = Quarantine(self._place, self._stand_in)
        other._kept, other._endorsed = dict(self._kept), dict(self._endorsed)
        return other

    def copy(self) -> Quarantine:
        """Return a quarantine that knows the same and goes on by itself, for clients that get another snapshot."""
        other = Quarantine(self._place, self._stand_in)
        other._kept, other._endorsed = dict(self._kept), dict(self._endorsed)
        other._accepted, other._wanted = dict(self._accepted), self._wanted
        other._bad = {key: dict(rejections) for key, rejections in self._bad.items()}
        return other

    def accept(self, event: Acked, served: Iterable[Snapshot]) -> None:
        """Remember accepted resources as fallbacks for later versions. `served` has the newest snapshot first.

        If a slow client accepts an old version, it does not replace a newer version that another client accepted.
        """
        for name, version in event.versions.items():
            known = self._accepted.get((event.type, name))
            versions = {version} if known is None else {version, known.version}
            for snapshot in served:
                resource = snapshot[event.type].get(name)
                if resource is not None and resource.version in versions:
                    self._accepted[event.type, name] = resource
                    break

    def endorse(self, type_: ResourceType, versions: Mapping[str, str], wanted: Snapshot) -> bool:
        """Note that some client accepted versions of `wanted`, so that they are not quarantined.

        Returns True if one of them was quarantined.
        """
        lifted = False
        for name, version in versions.items():
            resource = wanted[type_].get(name)
            if resource is not None and resource.version == version:
                self._endorsed[type_, name] = version
                lifted |= self._bad.get((type_, name), {}).pop(version, None) is not None
        return lifted

    def reject(self, event: Nacked) -> bool:
        """Quarantine the blamed resources. Returns False if they are unknown, or already quarantined.

        A version that any client accepted is not quarantined; nor are bind failures.
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
        """True if a form other than this version is known to be good."""
        known = (self._accepted.get(key), self._kept.get(key))
        bad = self._bad.get(key, {})
        return any(form is not None and form.version != version and form.version not in bad for form in known)

    def adopt(self, other: Quarantine, served: Snapshot, wanted: Snapshot) -> None:
        """Take over the accepted and rejected versions of another group, for the resources of `wanted`.

        A version that this group accepted itself, or that was served before a restart, is not quarantined. A `served`
        version that the other group accepted is a valid fallback even before a client of this group acknowledges it.
        Only changes are examined, because the rest was taken over earlier.
        """
        for type_, difference in wanted.diff(served).items():
            was = served[type_]
            for name in difference.changed:
                accepted = other._accepted.get((type_, name))
                if accepted is None:
                    continue
                resource = was.get(name)
                if resource is not None and resource.version == accepted.version:
                    self._accepted[type_, name] = resource
                self.endorse(type_, {name: accepted.version}, wanted)
        for key, rejections in other._bad.items():
            for version, event in rejections.items():
                kept = self._kept.get(key)
                if kept is None or kept.version != version:
                    self._reject(key, version, event)

    def apply(self, wanted: Snapshot) -> Snapshot:
        """Return the snapshot that is served instead of `wanted`."""
        self.held = {}
        changed: dict[ResourceType, dict[str, Resource]] = {}
        for (type_, name), rejections in list(self._bad.items()):
            resource = wanted[type_].get(name)
            if resource is None or resource.version not in rejections:
                del self._bad[type_, name]
                continue
            items = changed.setdefault(type_, dict(wanted[type_]))
            self._hold(type_, resource, rejections, items)
        self._forget_removed(wanted)
        return wanted.replacing(changed) if changed else wanted

    def _forget_removed(self, wanted: Snapshot) -> None:
        """Forget the state of resources that are no longer wanted."""
        for type_, difference in wanted.diff(self._wanted).items():
            for name in difference.removed:
                for known in (self._accepted, self._kept, self._endorsed):
                    known.pop((type_, name), None)
        self._wanted = wanted

    def _hold(
        self,
        type_: ResourceType,
        resource: Resource,
        rejections: Mapping[str, Nacked],
        items: dict[str, Resource],
    ) -> None:
        known = (self._accepted.get((type_, resource.name)), self._kept.get((type_, resource.name)))
        good = [form for form in known if form is not None and form.version not in rejections]
        standing = good[0] if good else None
        instead = standing or self._stand_in(type_, resource)
        closed = standing is None and instead is not None and instead.version not in rejections
        if standing is not None or closed:
            assert instead is not None
            items[resource.name] = instead
        else:
            del items[resource.name]
        rejection = rejections[resource.version]
        self.held[type_, resource.name] = Held(
            type=type_,
            name=resource.name,
            version=resource.version,
            standing=standing.version if standing is not None else None,
            message=rejection.message,
            node=rejection.node.id,
            place=self._place(type_, resource.name),
            closed=closed,
            release=rejection.release,
        )
