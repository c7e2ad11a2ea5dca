"""Where the record of a rollout is: in this process, or in a store that several replicas of a control plane share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Unreachable(Exception):  # noqa: N818 - it is a state of the store
    """The store does not answer. The message says why, without a password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a store has: its time in Unix seconds, the record (empty if there is none), and the reports of the replicas
    with their age in seconds."""

    now: float
    record: bytes = b""
    reports: Mapping[str, tuple[float, bytes]] = field(default_factory=dict)


class RolloutStore(Protocol):
    """A store of one record. All functions raise Unreachable."""

    name: str
    """The store for people, without a password. It is empty if this process shares the record with nobody."""

    async def exchange(self, replica: str, report: bytes) -> Answer:
        """Keep the report of a replica, and return what all have written."""

    async def replace(self, old: bytes, new: bytes) -> bool:
        """Write the record if it still is `old`. Returns False if it is not."""

    async def close(self, replica: str) -> None:
        """Remove the report of a replica that ends, and close all connections. It raises nothing."""


class OwnStore:
    """A record that only this process has. `clock` returns Unix time."""

    name = ""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._record = b""

    async def exchange(self, replica: str, report: bytes) -> Answer:
        """Return the record, and the report of the only replica."""
        return Answer(now=self._clock(), record=self._record, reports={replica: (0.0, report)})

    async def replace(self, old: bytes, new: bytes) -> bool:
        """Write the record."""
        if self._record != old:
            return False
        self._record = new
        return True

    async def close(self, _replica: str) -> None:
        """There is nothing to close."""
