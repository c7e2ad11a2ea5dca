"""The entry point of the library: resources by node group, changed one at a time or all at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.message import Message

from xds_server.discovery.snapshot import EMPTY, Resource, Snapshot
from xds_server.discovery.types import ResourceType
from xds_server.serving.store import Store


class VersionReused(ValueError):  # noqa: N818 - says what is wrong
    """A given version was served earlier with other content, so clients would not request the new content.

    `type` is the resource type. `name` is the resource whose own version it is, or "" for the version of the type.
    """

    def __init__(self, snapshot: Snapshot, type_: ResourceType, name: str) -> None:
        version = snapshot[type_][name].version if name else snapshot.version(type_)
        what = f"of {type_.name} '{name}'" if name else f"of the type {type_.name}"
        super().__init__(
            f"the version '{version}' {what} was given earlier with other content, so nothing was published; "
            "give a new version, or omit it to use the hash of the content"
        )
        self.type, self.name = type_, name


class Cache:
    """Edits what a store serves. Each call is one publication: clients get all of it, or nothing.

    A version is the hash of the content unless it is given, for a resource (`Resource.of`) or for a whole type. Equal
    given versions mean equal content: a resource that keeps its version is not sent. A call that gives an earlier
    version with other content raises VersionReused and publishes nothing.
    """

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store()

    def set(
        self,
        resources: Mapping[ResourceType, Iterable[Resource | Message]],
        *,
        group: str = "",
        versions: Mapping[ResourceType, str] | None = None,
    ) -> Snapshot:
        """Replace everything that a group is served. Returns the snapshot that is served now."""
        made = {type_: [_resource(resource) for resource in items] for type_, items in resources.items()}
        return self._publish(Snapshot.of(made, versions), group)

    def update(
        self, type_: ResourceType, *resources: Resource | Message, group: str = "", version: str | None = None
    ) -> Snapshot:
        """Add resources, or replace those of the same name. `version` is the version of the type."""
        now = self._now(group)
        named = {resource.name: resource for resource in map(_resource, resources)}
        return self._publish(_with(now, type_, {**now[type_], **named}, version), group)

    def delete(
        self, type_: ResourceType, *names: str, group: str = "", version: str | None = None
    ) -> Snapshot:
        """Remove resources. Names that do not exist change nothing. `version` is the version of the type."""
        now = self._now(group)
        left = {name: resource for name, resource in now[type_].items() if name not in names}
        return self._publish(_with(now, type_, left, version), group)

    def clear(self, group: str = "") -> None:
        """Forget a group. Its clients keep what they have, and they get nothing until something is set again."""
        self.store.withdraw(group)

    def _now(self, group: str) -> Snapshot:
        return self.store.wanted(group) or EMPTY

    def _publish(self, snapshot: Snapshot, group: str) -> Snapshot:
        for earlier in (self._now(group), *self.store.before(group)):
            reused = snapshot.reused(earlier)
            if reused is not None:
                raise VersionReused(snapshot, *reused)
        self.store.publish(snapshot, group)
        return snapshot


def _resource(resource: Resource | Message) -> Resource:
    return resource if isinstance(resource, Resource) else Resource.of(resource)


def _with(now: Snapshot, type_: ResourceType, items: Mapping[str, Resource], version: str | None) -> Snapshot:
    resources = {**{other: now[other].values() for other in now}, type_: items.values()}
    versions = {other: now.version(other) for other in now.explicit if other != type_}
    if version is not None:
        versions[type_] = version
    return Snapshot.of(resources, versions)
