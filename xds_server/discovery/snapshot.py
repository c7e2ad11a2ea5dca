"""Immutable resources, each with a version made from its content, and the difference of two snapshots."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from weakref import WeakKeyDictionary

from google.protobuf.message import Message

from xds_server.discovery.types import ResourceType

Reference = tuple[ResourceType, str]

_NONE: Mapping[str, Resource] = MappingProxyType({})


def content_hash(*parts: bytes) -> str:
    """Return 16 hexadecimal digits that are the same for the same content on every replica."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Resource:
    """One named resource. `body` is its message, serialized deterministically."""

    name: str
    version: str
    body: bytes = field(repr=False)
    needs: frozenset[Reference] | None = field(default=None, repr=False, compare=False)
    """The resources that it refers to, or None if its message has not been parsed yet."""

    @classmethod
    def of(cls, message: Message, name: str | None = None, version: str | None = None) -> Resource:
        """Wrap a message. The default name is the field `name` or `cluster_name` of the message."""
        if name is None:
            name = getattr(message, "name", "") or getattr(message, "cluster_name", "")
        return cls.from_bytes(name, message.SerializeToString(deterministic=True), version)

    @classmethod
    def from_bytes(cls, name: str, body: bytes, version: str | None = None) -> Resource:
        """Wrap a serialized message. The default version is the hash of its content."""
        return cls(name, version if version is not None else content_hash(body), body)


@dataclass(frozen=True, slots=True)
class Difference:
    """The change of one type between two snapshots. If both are empty, only the version of the type changed."""

    changed: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Snapshot:
    """All resources of one node group at one moment."""

    resources: Mapping[ResourceType, Mapping[str, Resource]]
    versions: Mapping[ResourceType, str]
    explicit: frozenset[ResourceType] = frozenset()
    """The types whose version the caller of `of` gave."""
    _differences: WeakKeyDictionary[Snapshot, Mapping[ResourceType, Difference]] = field(
        default_factory=WeakKeyDictionary, repr=False
    )
    """Computed once, however many streams go from that snapshot to this one."""
    _without: dict[ResourceType, Snapshot] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        resources: Mapping[ResourceType, Iterable[Resource]],
        versions: Mapping[ResourceType, str] | None = None,
    ) -> Snapshot:
        """Return a snapshot. The default version of a type is a hash of names and versions.

        Raises:
          TypeError: a version is not text.
          ValueError: two resources of one type have the same name.
        """
        listed = {type_: tuple(items) for type_, items in resources.items()}
        for type_, items in listed.items():
            if len({resource.name for resource in items}) < len(items):
                raise ValueError(f"two resources of the type {type_.name} have the same name")
        for type_, version in (versions or {}).items():
            if not isinstance(version, str):
                raise TypeError(f"the version {version!r} of the type {type_.name} is not text")
        named = {
            type_: MappingProxyType(
                {resource.name: resource for resource in sorted(items, key=lambda resource: resource.name)}
            )
            for type_, items in listed.items()
        }
        hashes = {type_: _version(items) for type_, items in named.items()}
        given = {
            type_: version
            for type_, version in (versions or {}).items()
            if version and version != hashes.get(type_)
        }
        return cls(MappingProxyType(named), MappingProxyType({**hashes, **given}), frozenset(given))

    def __getitem__(self, type_: ResourceType) -> Mapping[str, Resource]:
        return self.resources.get(type_, _NONE)

    def __iter__(self) -> Iterator[ResourceType]:
        return iter(self.resources)

    def version(self, type_: ResourceType) -> str:
        """Return the version of a whole type, for state-of-the-world responses."""
        return self.versions.get(type_) or _NO_VERSION

    def version_of(self, type_: ResourceType, items: Mapping[str, Resource]) -> str:
        """Return the version of a client's state that holds only `items` of a type."""
        if type_ in self.explicit:
            return self.version(type_)
        same = len(items) == len(self[type_]) and all(
            self[type_].get(n) is resource for n, resource in items.items()
        )
        return self.version(type_) if same else _version(items)

    def replacing(self, changed: Mapping[ResourceType, Mapping[str, Resource]]) -> Snapshot:
        """Return a copy with other resources for some types.

        A given version stays for the types that are not replaced.
        """
        return self.updated({type_: resources.values() for type_, resources in changed.items()})

    def updated(self, changed: Mapping[ResourceType, Iterable[Resource]]) -> Snapshot:
        """Do the same for resources without their names. Raises ValueError as `of`."""
        new = Snapshot.of(changed)
        return Snapshot(
            MappingProxyType({**self.resources, **new.resources}),
            MappingProxyType({**self.versions, **new.versions}),
            self.explicit - changed.keys(),
        )

    def without(self, type_: ResourceType) -> Snapshot:
        """Return a copy without one type. The result is always the same object."""
        if type_ not in self.resources:
            return self
        remaining = self._without.get(type_)
        if remaining is None:
            rest = {other: items for other, items in self.resources.items() if other != type_}
            remaining = self._without[type_] = Snapshot(MappingProxyType(rest), self.versions, self.explicit)
        return remaining

    def diff(self, old: Snapshot) -> Mapping[ResourceType, Difference]:
        """Return the changes since `old`, by type. Types without a change are left out."""
        known = self._differences.get(old)
        if known is None:
            known = self._differences[old] = self._diff(old)
        return known

    def reused(self, old: Snapshot) -> tuple[ResourceType, str] | None:
        """Return a given version that had other content in `old`, or None.

        The result is the type, and the name of the resource if the version is that of one resource. Clients compare
        versions, so they would never request the new content.
        """
        for type_, items in self.resources.items():
            was = old[type_]
            for name, resource in items.items():
                if name in was and was[name].version == resource.version and was[name].body != resource.body:
                    return type_, name
            if type_ in self.explicit & old.explicit and self.version(type_) == old.version(type_):
                versions = {name: resource.version for name, resource in items.items()}
                if versions != {name: resource.version for name, resource in was.items()}:
                    return type_, ""
        return None

    def _diff(self, old: Snapshot) -> Mapping[ResourceType, Difference]:
        found = {}
        for type_ in dict.fromkeys((*self.resources, *old.resources)):
            same = self.versions.get(type_) == old.versions.get(type_)
            given = type_ in self.explicit or type_ in old.explicit
            if same and not given:
                continue
            new, was = self[type_], old[type_]
            changed = tuple(
                name
                for name, resource in new.items()
                if name not in was or was[name].version != resource.version
            )
            removed = tuple(name for name in was if name not in new)
            if changed or removed or (given and not same):
                found[type_] = Difference(changed, removed)
        return MappingProxyType(found)


def _version(items: Mapping[str, Resource]) -> str:
    return state_version({name: resource.version for name, resource in items.items()})


def state_version(versions: Mapping[str, str]) -> str:
    """Return the version of a whole type. `versions` has the versions of its resources by name."""
    text = "".join([f"{name}\0{versions[name]}\0" for name in sorted(versions)])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


_NO_VERSION = _version({})
EMPTY = Snapshot.of({})
