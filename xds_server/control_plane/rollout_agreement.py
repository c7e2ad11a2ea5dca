"""The part of a replica in the agreement on a rollout: it reports to the others, and changes the record that all follow."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import replace

from xds_server.control_plane import rollout_record as records
from xds_server.control_plane import rollout_replicas as replicas
from xds_server.control_plane import rollout_steps as steps
from xds_server.control_plane.rollout_record import Record
from xds_server.control_plane.rollout_replicas import LIVE, Report
from xds_server.control_plane.rollout_store import RolloutStore, Unreachable

log = logging.getLogger(__name__)

Rule = Callable[[Record], Record]
_ATTEMPTS = 20
"""Attempts to change a record that other replicas change at the same time."""


class Agreement:
    """Follows the record of a store. `replica` is the name of this process among the replicas.

    `problem` says why the record is not known now: then nothing of it changes, but this replica can still withdraw the
    candidate for its own Envoys, of which the others hear as soon as the store answers.
    """

    def __init__(self, store: RolloutStore, replica: str) -> None:
        self.replica = replica
        self.now = 0.0
        """The time of the store at the last exchange."""
        self.reports: tuple[Report, ...] = ()
        """The reports of the replicas that live, with our own."""
        self.problem = ""
        self.restored = False
        """True if there was a record before this process was the first to read a version."""
        self._store = store
        self._seen = Record()
        self._body = b""
        self._report = b""
        self._synchronous = False
        """True if the record that we have seen was once that of the store."""
        self._withdrawn_here: tuple[int, str, float] | None = None

    @property
    def shared(self) -> bool:
        """True if other replicas may share the record."""
        return bool(self._store.name)

    @property
    def store(self) -> str:
        """The store for people, empty if the record is shared with nobody."""
        return self._store.name

    @property
    def record(self) -> Record:
        """The record as this replica follows it."""
        if self._withdrawn_here is not None:
            number, reason, at = self._withdrawn_here
            if number == self._seen.number:
                return records.moved(self._seen, steps.aborted(self._seen.state, reason, at))
        return self._seen

    def restore(self, record: Record) -> None:
        """Take the record that was kept over a restart, until the store has another one."""
        self._seen, self.restored = record, bool(record.state.stable)

    async def exchange(self, report: Report) -> None:
        """Report to the others, and read what they have written."""
        self._report = replicas.encode(report)
        try:
            await self._read()
            await self._tell_withdrawal()
        except (Unreachable, ValueError) as error:
            self._failed(error)
            self.reports = (report,)
            return
        if self.problem:
            log.info("the store of the rollout answers again store=%s", self._store.name)
        self.problem = ""

    async def change(self, rule: Rule) -> None:
        """Change the record by a rule, which is applied again if another replica was faster. Raises Unreachable."""
        if self.problem:
            raise Unreachable(self.problem)
        try:
            for _ in range(_ATTEMPTS):
                if await self._write(rule(self._seen)):
                    return
                await self._read()
            raise Unreachable("other replicas change the record all the time")
        except (Unreachable, ValueError) as error:
            self._failed(error)
            raise Unreachable(self.problem) from None

    async def withdraw(self, reason: str, at: float) -> None:
        """Withdraw the candidate. If the store does not answer, this replica does so at once, and tells it later."""
        number = self._seen.number
        self._withdrawn_here = number, reason, at
        try:
            await self.change(lambda record: _withdrawn(record, number, reason, at))
            self._withdrawn_here = None
        except Unreachable as error:
            log.error("the version is withdrawn here only; the other replicas hear of it later: %s", error)

    async def close(self) -> None:
        """Tell the other replicas that this one ends."""
        await self._store.close(self.replica)

    async def _tell_withdrawal(self) -> None:
        if self._withdrawn_here is not None:
            number, reason, at = self._withdrawn_here
            while not await self._write(_withdrawn(self._seen, number, reason, at)):
                await self._read()
            self._withdrawn_here = None

    async def _read(self) -> None:
        """Read record and reports. Raises Unreachable, ValueError for a record that cannot be read."""
        answer = await self._store.exchange(self.replica, self._report)
        self.now = answer.now
        try:
            found = records.decode(answer.record)
        except ValueError as error:
            raise ValueError(
                f"the record cannot be read: {error}; delete it, and the replicas write it again"
            ) from None
        self._body = answer.record
        self.reports = tuple(
            _report(name, body) for name, (age, body) in sorted(answer.reports.items()) if age <= LIVE
        )
        if records.restores(self._seen, found, running=self._synchronous):
            if found.revision or self.shared:
                log.warning("the store of the rollout has lost the newest record; it is written again")
            await self._write(records.restored(self._seen, found), revised=False)
        else:
            lost = records.lost_withdrawal(self._seen, found)
            if lost is not None:
                self._withdrawn_here = found.number, lost.reason, lost.at
            self._seen = found
        self._synchronous = True

    async def _write(self, new: Record, *, revised: bool = True) -> bool:
        """Write a record if nobody else has changed it. Raises Unreachable."""
        if revised and new == self._seen:
            return True
        if revised:
            new = replace(new, revision=self._seen.revision + 1, id=self._seen.id or secrets.token_hex(8))
        body = records.encode(new)
        if not await self._store.replace(self._body, body):
            return False
        self._seen, self._body = new, body
        return True

    def _failed(self, error: Exception) -> None:
        text = f"{self._store.name}: {error}"
        if not self.problem:
            log.error("the store of the rollout is not available; what is served stays: %s", text)
        self.problem = text


def _withdrawn(record: Record, number: int, reason: str, at: float) -> Record:
    if record.number != number:
        return record
    return records.moved(record, steps.aborted(record.state, reason, at))


def _report(name: str, body: bytes) -> Report:
    """Return the report of a replica. Raises ValueError, so that nothing changes without knowing of its Envoys."""
    try:
        return replace(replicas.decode(body), replica=name)
    except ValueError as error:
        raise ValueError(
            f"the report of {name} cannot be read: {error}; all replicas must be of one release"
        ) from None
