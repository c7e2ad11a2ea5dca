"""The current snapshot of every node group, and who waits for the next one. Used from the event loop's thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from xds_server.discovery.snapshot import EMPTY, Snapshot
from xds_server.serving.events import Event, Published

Observer = Callable[[Event], None]


@dataclass(slots=True)
class _Group:
    snapshot: Snapshot | None = None
    published: float = 0.0
    bells: set[asyncio.Event] = field(default_factory=set)


class Store:
    """Snapshots by node group. The group without a name, ``""``, is everybody's unless groups are told apart.

    `observers` are called with every event, in the order given, in the event loop: they must not block.
    `clock` gives monotonic seconds.
    """

    def __init__(self, *observers: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        self._observers = list(observers)
        self._groups: dict[str, _Group] = {}
        self._clock = clock

    def publish(self, snapshot: Snapshot, group: str = "") -> bool:
        """Make a snapshot current: all of it or nothing. Returns False when it changes nothing."""
        entry = self._group(group)
        old = entry.snapshot
        difference = snapshot.diff(old if old is not None else EMPTY)
        if old is not None and not difference:
            return False
        entry.snapshot, entry.published = snapshot, self._clock()
        self.record(
            Published(
                group=group,
                changed={type_: len(one.changed) for type_, one in difference.items()},
                removed={type_: len(one.removed) for type_, one in difference.items()},
            )
        )
        for bell in entry.bells:
            bell.set()
        return True

    def current(self, group: str = "") -> Snapshot | None:
        """The snapshot of a group; None before its first one."""
        entry = self._groups.get(group)
        return entry.snapshot if entry is not None else None

    def published_at(self, group: str = "") -> float:
        """When the current snapshot was published, in the clock's seconds."""
        return self._group(group).published

    @property
    def groups(self) -> Mapping[str, Snapshot]:
        """Every group that has a snapshot."""
        return {name: one.snapshot for name, one in self._groups.items() if one.snapshot is not None}

    async def newer_than(self, seen: Snapshot | None, group: str = "") -> Snapshot:
        """Wait until the current snapshot is another than `seen`. Nothing published meanwhile is missed."""
        bell = asyncio.Event()
        with self.rung(bell, group):
            while True:
                current = self.current(group)
                if current is not None and current is not seen:
                    return current
                await bell.wait()
                bell.clear()

    @contextmanager
    def rung(self, bell: asyncio.Event, group: str = "") -> Iterator[None]:
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
        """Tell the observers."""
        for observer in self._observers:
            observer(event)

    def _group(self, name: str) -> _Group:
        return self._groups.setdefault(name, _Group())
