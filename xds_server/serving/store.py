"""The current snapshot of every node group, and who waits for the next one. Used from the event loop's thread."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from xds_server.discovery.snapshot import EMPTY, Snapshot
from xds_server.serving.events import Acked, Event, Held, Nacked, Published, Quarantined
from xds_server.serving.quarantine import Place, Quarantine

Observer = Callable[[Event], None]

_REMEMBERED = 16
"""Earlier snapshots of a group; they share with the current one what did not change."""


@dataclass(slots=True)
class _Group:
    quarantine: Quarantine
    wanted: Snapshot | None = None
    snapshot: Snapshot | None = None
    before: deque[Snapshot] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """Those before, the newest first, which slow clients may be accepting still."""
    published: float = 0.0
    bells: set[asyncio.Event] = field(default_factory=set)


class Store:
    """Snapshots by node group. The group without a name, ``""``, is everybody's unless groups are told apart.

    `observers` are called with every event, in the order given, in the event loop: they must not block.
    `quarantine` has a resource that a client rejected replaced by its last accepted form, for the whole group;
    `place` says where a resource of a group came from. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        *observers: Observer,
        quarantine: bool = False,
        place: Callable[[str], Place] = lambda _group: lambda _type, _name: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.numbers = itertools.count(1)
        """Of streams: one number is one stream, however many servers the store has."""
        self._observers = list(observers)
        self._quarantine = quarantine
        self._place = place
        self._groups: dict[str, _Group] = {}
        self._clock = clock

    def publish(self, snapshot: Snapshot, group: str = "", *, proved_by: str | None = None) -> bool:
        """Make a snapshot current: all of it or nothing. Returns False when it changes nothing.

        What the group `proved_by` rejected is held back here too.
        """
        entry = self._group(group)
        if entry.wanted is not None and not snapshot.diff(entry.wanted):
            return False
        entry.wanted, entry.published = snapshot, self._clock()
        if proved_by is not None:
            entry.quarantine.adopt(self._group(proved_by).quarantine, entry.snapshot or EMPTY)
        self._serve(group, entry)
        return True

    def restore(self, snapshot: Snapshot, group: str = "") -> None:
        """Publish what was served before a restart. Until something else is accepted, rejections fall back on it."""
        self._group(group).quarantine.keep(snapshot)
        self.publish(snapshot, group)

    def _serve(self, group: str, entry: _Group) -> None:
        """Make what is wanted, without what is held back, the current snapshot."""
        assert entry.wanted is not None
        before = {key: held.version for key, held in entry.quarantine.held.items()}
        snapshot = entry.quarantine.apply(entry.wanted)
        difference = snapshot.diff(entry.snapshot if entry.snapshot is not None else EMPTY)
        if entry.snapshot is not None:
            entry.before.appendleft(entry.snapshot)
        entry.snapshot = snapshot
        self._tell(
            Published(
                group=group,
                changed={type_: len(one.changed) for type_, one in difference.items()},
                removed={type_: len(one.removed) for type_, one in difference.items()},
            )
        )
        for bell in entry.bells:
            bell.set()
        for key, held in entry.quarantine.held.items():
            if before.get(key) != held.version:
                self._tell(Quarantined(group=group, held=held))

    def withdraw(self, group: str = "") -> None:
        """Serve a group nothing more: no answer, not an empty one. Its clients keep what they have."""
        entry = self._group(group)
        entry.wanted = entry.snapshot = None
        entry.before.clear()

    def wanted(self, group: str = "") -> Snapshot | None:
        """What was published last, also of what is held back."""
        return self._group(group).wanted

    def held(self, group: str = "") -> tuple[Held, ...]:
        """What was rejected and is held back until its content changes."""
        return tuple(self._group(group).quarantine.held.values())

    def current(self, group: str = "") -> Snapshot | None:
        """The snapshot that a group is served; None before its first one."""
        entry = self._groups.get(group)
        return entry.snapshot if entry is not None else None

    def before(self, group: str = "") -> Iterable[Snapshot]:
        """The snapshots that a group was served before, the newest first."""
        return self._group(group).before

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
        """Take note of what happened on a stream, and tell the observers."""
        self._tell(event)
        if self._quarantine and isinstance(event, Acked | Nacked):
            self._judge(event)

    def _judge(self, event: Acked | Nacked) -> None:
        entry = self._group(event.group)
        if isinstance(event, Acked):
            served = () if entry.snapshot is None else (entry.snapshot, *entry.before)
            entry.quarantine.accept(event, served)
        elif entry.quarantine.reject(event) and entry.wanted is not None:
            self._serve(event.group, entry)

    def _tell(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)

    def _group(self, name: str) -> _Group:
        if name not in self._groups:
            self._groups[name] = _Group(Quarantine(self._place(name)))
        return self._groups[name]
