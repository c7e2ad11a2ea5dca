"""The objects that the controller has applied, as they are in the cluster now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from xds_server.kubernetes.api_client import ApiClient, Selection
from xds_server.kubernetes.resources import Key, Object, Resource
from xds_server.kubernetes.watch_cache import WatchCache

RESOURCES: Mapping[str, Resource] = MappingProxyType(
    {
        one.kind: one
        for one in (
            Resource(plural="serviceaccounts", kind="ServiceAccount"),
            Resource(plural="configmaps", kind="ConfigMap"),
            Resource(group="apps", plural="deployments", kind="Deployment"),
            Resource(group="apps", plural="daemonsets", kind="DaemonSet"),
            Resource(plural="services", kind="Service"),
            Resource(
                group="autoscaling",
                version="v2",
                plural="horizontalpodautoscalers",
                kind="HorizontalPodAutoscaler",
            ),
            Resource(group="policy", plural="poddisruptionbudgets", kind="PodDisruptionBudget"),
        )
    }
)
"""The kinds that the controller applies."""

_MANAGED = {"app.kubernetes.io/managed-by": "xds-gateway"}
"""The label of what the controller applies.

https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
"""


class Name(NamedTuple):
    """An object among all kinds."""

    kind: str
    key: Key


@dataclass(frozen=True, slots=True)
class OwnedObject:
    """What is known of an applied object. `owners` has the UIDs of its owners.

    `version` changes with every write to the object, but not with its status if the kind counts generations.
    """

    uid: str
    version: str
    owners: tuple[str, ...]


class OwnedObjects:
    """Follows what the field manager `manager` has applied. `changed(name, version)` is told of each change by anybody.

    The version is None if the object was deleted.
    """

    def __init__(self, client: ApiClient, manager: str, changed: Callable[[Name, str | None], None]) -> None:
        self._manager, self._changed = manager, changed
        selection = Selection(labels=",".join(f"{label}={value}" for label, value in _MANAGED.items()))
        self._caches = {
            kind: WatchCache(client, resource, self._kept, partial(self._took, kind), selection=selection)
            for kind, resource in RESOURCES.items()
        }

    def caches(self) -> Iterator[WatchCache[OwnedObject]]:
        """Yield what must run, so that objects are followed."""
        yield from self._caches.values()

    def items(self) -> Iterator[tuple[Name, OwnedObject]]:
        """Yield the objects that are there."""
        for kind, cache in self._caches.items():
            for key, one in cache.items.items():
                yield Name(kind, key), one

    def _kept(self, object_: Object) -> OwnedObject | None:
        metadata = object_["metadata"]
        managers = metadata.get("managedFields") or ()
        if not any(one["manager"] == self._manager and one["operation"] == "Apply" for one in managers):
            return None
        owners = tuple(one["uid"] for one in metadata.get("ownerReferences") or ())
        return OwnedObject(uid=metadata["uid"], version=version_of(object_), owners=owners)

    def _took(self, kind: str, key: Key, _before: OwnedObject | None, after: OwnedObject | None) -> None:
        self._changed(Name(kind, key), after.version if after is not None else None)


def labelled(object_: Object) -> Object:
    """Return an object with the label by which it is found among the others."""
    metadata = object_["metadata"]
    return {**object_, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), **_MANAGED}}}


def version_of(object_: Object) -> str:
    """Return what changes with every write to an object: its generation if its kind has one, because that leaves the status out."""
    metadata = object_["metadata"]
    return str(metadata.get("generation") or metadata["resourceVersion"])
