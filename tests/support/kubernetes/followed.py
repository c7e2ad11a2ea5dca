"""A watch cache that runs beside a test, and everything that it told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.wait import eventually
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.resources import Key, Object, Resource
from xds_server.kubernetes.watch_cache import Pace, WatchCache

CONFIG_MAPS = Resource(plural="configmaps", kind="ConfigMap")
PACE = Pace(shortest=0.02, longest=0.2, absent=0.1)
"""Short pauses, so that a test does not wait for the long ones."""


def value_of(object_: Object) -> str | None:
    """Keep one value of a ConfigMap, and leave out those without it."""
    value: str | None = (object_.get("data") or {}).get("value")
    return value


def config_map(namespace: str, name: str, value: str, **labels: str) -> Object:
    """Return a ConfigMap with one value."""
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}


@dataclass
class Told:
    """The changes that a cache told, each checked against those before it."""

    changes: list[tuple[Key, Any, Any]] = field(default_factory=list)
    items: dict[Key, Any] = field(default_factory=dict)

    def __call__(self, key: Key, before: Any, after: Any) -> None:
        assert self.items.get(key) == before, f"{key} was {self.items.get(key)}, and not {before}"
        assert before != after, f"{key} did not change"
        self.changes.append((key, before, after))
        if after is None:
            del self.items[key]
        else:
            self.items[key] = after

    def of(self, namespace: str) -> dict[str, Any]:
        """Return what is held of a namespace, by name."""
        return {key.name: value for key, value in self.items.items() if key.namespace == namespace}


@dataclass
class Followed:
    """A running cache and what it told."""

    cache: WatchCache[Any]
    told: Told

    async def holds(self, namespace: str, expected: dict[str, Any]) -> None:
        """Wait until the cache has exactly this of a namespace."""
        await eventually(
            lambda: self.told.of(namespace) == expected, lambda: f"{expected}, not {self.told.items}"
        )
        assert dict(self.cache.items) == self.told.items


@asynccontextmanager
async def followed(
    client: ApiClient,
    resource: Resource = CONFIG_MAPS,
    keep: Callable[[Object], Any] = value_of,
    *,
    pace: Pace = PACE,
    **options: Any,
) -> AsyncIterator[Followed]:
    """Run a cache. It fails the test if it ends or raises."""
    told = Told()
    cache: WatchCache[Any] = WatchCache(client, resource, keep, told, pace=pace, **options)
    running = asyncio.create_task(cache.run())
    try:
        yield Followed(cache, told)
        assert not running.done(), "the cache ended"
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
