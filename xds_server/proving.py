"""Proved before pushed: an Envoy of our own gets every snapshot first; what it rejects is nobody else's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from xds_server.discovery.references import references
from xds_server.discovery.snapshot import EMPTY, Reference, Resource, Snapshot
from xds_server.discovery.types import CLUSTER, LISTENER, ROUTE
from xds_server.serving.events import Acked, Connected, Disconnected, Event, Nacked
from xds_server.serving.store import Store
from xds_server.translate.proving import proving_copy

log = logging.getLogger(__name__)

PROVING = "proving"
"""The node group of the proving Envoy, and what its node's cluster is called."""
PATIENCE = 5.0
"""Seconds that a snapshot waits at most for the proof."""


class Prover:
    """Follows the proving Envoy of a store."""

    def __init__(self, store: Store, patience: float = PATIENCE) -> None:
        self.available = True
        """False when there is no proving Envoy and none will come."""
        self._store = store
        self._patience = patience
        self._streams: set[int] = set()
        self._answered: dict[Reference, str] = {}
        self._snapshot = self._copy = EMPTY
        self._routes: dict[str, Resource] = {}
        self._unproved = False
        self._bell = asyncio.Event()

    async def prove(self, snapshot: Snapshot) -> bool:
        """Have a snapshot judged; the store's group `PROVING` then holds back what is bad. False: nobody judged it."""
        if not self.available:
            return False
        self._snapshot, self._copy = snapshot, proving_copy(snapshot, self._copy, self._routes)
        self._store.publish(self._copy, PROVING)
        # who was away the last time is not waited for again before it is back
        patience = 0 if self._unproved and not self._streams else self._patience
        try:
            async with asyncio.timeout(patience):
                await self._until_answered()
        except TimeoutError:
            self._unproved = True
            state = "did not answer in time" if self._streams else "is not connected"
            log.warning("the proving Envoy %s: the gateway goes to the other Envoys unproved", state)
            return False
        self._unproved = False
        return True

    async def _until_answered(self) -> None:
        while not self._settled():
            self._bell.clear()
            await self._bell.wait()

    def _settled(self) -> bool:
        """Whether all that Envoy asks for was accepted, or is held back by now."""
        current = self._store.current(PROVING) or EMPTY
        return all(self._answered.get(key) == version for key, version in _asked_for(current))

    def observe(self, event: Event) -> None:
        """Take one event of the store."""
        if not isinstance(event, Connected | Disconnected | Acked | Nacked) or event.group != PROVING:
            return
        match event:
            case Connected():
                self._streams.add(event.stream)
            case Disconnected():
                self._streams.discard(event.stream)
            case Acked():
                self._answer(event, event.versions)
                self._accept(event)
            case Nacked():
                self._answer(event, event.blamed)
        if self._unproved and self._settled():
            self._unproved = False
        self._bell.set()

    def _answer(self, event: Acked | Nacked, versions: Mapping[str, str]) -> None:
        for name, version in versions.items():
            self._answered[event.type, name] = version

    def _accept(self, event: Acked) -> None:
        """Remember route configurations in full, of which the copy has only what is new."""
        if event.type != ROUTE:
            return
        current = self._snapshot[ROUTE]
        for name, version in event.versions.items():
            if name in current and current[name].version == version:
                self._routes[name] = current[name]
        self._routes = {name: one for name, one in self._routes.items() if name in current}

    def as_json(self) -> dict[str, Any]:
        """For machines: whether there is one, and whether it judged what is served."""
        connected = self.available and bool(self._streams)
        return {"connected": connected, "proved": connected and not self._unproved}


def _asked_for(snapshot: Snapshot) -> Iterator[tuple[Reference, str]]:
    """Every cluster and listener, and what they have Envoy ask for: what nobody refers to is never asked for."""
    for type_ in (CLUSTER, LISTENER):
        for one in snapshot[type_].values():
            yield (type_, one.name), one.version
            for kind, name in references(type_, one):
                if name in snapshot[kind]:
                    yield (kind, name), snapshot[kind][name].version
