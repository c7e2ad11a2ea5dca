"""Leader election among the replicas of a controller, by a Lease in the API server."""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
import time
from collections.abc import Callable

from xds_server.errors import XdsError
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import Conflict, NotFound
from xds_server.kubernetes.lease import LEASES, Election, Times
from xds_server.kubernetes.resources import Key

log = logging.getLogger(__name__)

TIMES = Times()
_RELEASE = 2.0
"""Seconds that the last write of a leader gets when it stops."""


def boot_time() -> float:
    """Return the seconds since the machine started, with the time in which it slept. No step changes them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _wall() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Leader:
    """One candidate. `identity` must be unique among the candidates, also after a restart.

    `leading` looks at the clock each time it is read, so a process that was stopped for a while knows at once that it
    no longer leads: read it before each write. A write that is under way at that moment may still arrive, so send
    `metadata.resourceVersion` with it. `changed(leading)` is called after each change.
    """

    def __init__(
        self,
        client: ApiClient,
        key: Key,
        identity: str,
        changed: Callable[[bool], None] = lambda leading: None,
        *,
        times: Times = TIMES,
        clock: Callable[[], float] = boot_time,
        wall: Callable[[], datetime.datetime] = _wall,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._client, self._key, self._identity, self._changed = client, key, identity, changed
        self._times, self._clock, self._wall, self._random = times, clock, wall, random
        self._election = Election(key, identity, times)
        self._told = False
        self._current = False  # true if the election has seen the newest lease, as far as we know
        self._reported = ""

    @property
    def leading(self) -> bool:
        """True if this process leads now."""
        return self._election.leads(self._clock())

    @property
    def holder(self) -> str:
        """The identity of the leader, or an empty text."""
        return self._election.holder

    async def run(self) -> None:
        """Try to lead, and stay the leader, until cancelled. Then give the lease back."""
        try:
            while True:
                await self._attempt()
                self._tell()
                await asyncio.sleep(self._pause())
                self._tell()
        finally:
            await self._release()
            self._tell()

    async def _attempt(self) -> None:
        """Read the lease, and write it if it is ours or free. Errors are logged."""
        limit = self._election.until - self._clock() if self.leading else self._times.renew_deadline
        try:
            async with asyncio.timeout(max(limit, 0)):
                await self._read_and_write()
            self._reported = ""
        except Conflict:
            self._current = False  # another candidate was faster
        except (XdsError, TimeoutError) as error:
            self._current = False
            reason = str(error) or "no response in time"
            if reason != self._reported:
                self._reported = reason
                log.warning("cannot renew or read the lease lease=%s reason=%s", self._key, reason)

    async def _read_and_write(self) -> None:
        if not self._current or not self.leading:
            try:
                lease = await self._client.get(LEASES, self._key)
            except NotFound:
                lease = None
            self._election.observed(lease, self._clock())
            self._current = True
        sent = self._clock()
        proposal = self._election.proposal(sent, self._wall())
        if proposal is None:
            return
        exists = "resourceVersion" in proposal["metadata"]
        write = self._client.replace if exists else self._client.create
        written = await write(LEASES, proposal)
        self._election.accepted(written, sent, self._clock())

    def _pause(self) -> float:
        """Return the seconds until the next attempt, random so that candidates do not write at the same time."""
        wait = self._times.retry * (1 + self._random() / 5)
        return min(wait, max(self._election.until - self._clock(), 0)) if self.leading else wait

    async def _release(self) -> None:
        proposal = self._election.release()
        if proposal is None:
            return
        try:
            async with asyncio.timeout(_RELEASE):
                await self._client.replace(LEASES, proposal)
        except (XdsError, TimeoutError) as error:
            log.warning("cannot give the lease back; it ends by itself lease=%s reason=%s", self._key, error)

    def _tell(self) -> None:
        leading = self.leading
        if leading != self._told:
            self._told = leading
            log.info(
                "%s lease=%s identity=%s",
                "leading" if leading else "no longer leading",
                self._key,
                self._identity,
            )
            self._changed(leading)
