"""A branch of a git repository as a source: each commit is a version of the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from filters.language.problems import printable
from xds_server.sources.git_commit import CommitFolder
from xds_server.sources.git_pin import Pin, Pins
from xds_server.sources.git_repository import Fetched, GitFailed, Repository
from xds_server.sources.git_signature import Unsigned, Verify
from xds_server.sources.source import Version

log = logging.getLogger(__name__)
T = TypeVar("T")

_LONGEST = 300.0
"""Seconds between two attempts after failures, at most."""
_FIRST = 1.0
_FILES = 2.0
"""Seconds between two looks at files of this machine that the gateway refers to."""
_PATIENCE = 120.0
_POLITE = 2.0
_JITTER = 0.1
"""The share by which intervals differ, so that not all replicas come at once."""
_SPACING = 1.0
"""Seconds between two fetches because of notices. It doubles while notices go on, so that a flood of them costs little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times of a source in seconds. The source of chance is a parameter, so that tests choose it."""

    interval: float = 30.0
    spacing: float = _SPACING
    patience: float = _PATIENCE
    """For one fetch."""
    polite: float = _POLITE
    """For a fetch that is under way when a commit is to be pinned."""
    first: float = _FIRST
    longest: float = _LONGEST
    files: float = _FILES
    random: Callable[[], float] = random.random

    def after(self, failures: int) -> float:
        """Return the seconds until the next attempt after some failures in a row."""
        wanted = self.interval if not failures else min(self.longest, self.first * 2 ** min(failures - 1, 16))
        return wanted * (1 + _JITTER * (2 * self.random() - 1))

    def between(self, notices: int) -> float:
        """Return the seconds between a fetch and the next one because of a notice, after some in a row."""
        return min(self.interval, self.spacing * 2 ** min(notices - 1, 16)) if notices else 0.0


class GitSource:
    """Fetches the commit of a ref again and again. `notify` has it fetched at once.

    If it cannot be fetched, the source yields a state with that problem, and the commit again when it can. While a
    commit is pinned, that one is yielded. With `verify`, a commit that is not signed is a problem too.
    """

    def __init__(
        self,
        name: str,
        repository: Repository,
        pace: Pace,
        *,
        allow_empty: bool = False,
        verify: Verify | None = None,
        pins: Pins | None = None,
    ) -> None:
        self._name, self._repository, self._pace, self._allow_empty = name, repository, pace, allow_empty
        self._verify, self.pins = verify, pins if pins is not None else Pins()
        self._one_at_a_time = asyncio.Lock()
        self._told, self._hurry = asyncio.Event(), asyncio.Event()
        self._state = CommitFolder()
        self._commit: CommitFolder | None = None
        """The last commit that was read."""
        self._files: Mapping[Path, object] = {}
        self._notices, self._noticed = 0, 0.0
        """How many fetches in a row were because of notices, and when the last one began, by the clock of the event loop."""

    @property
    def name(self) -> str:
        """The address."""
        return self._name

    @property
    def state(self) -> CommitFolder:
        """The newest state."""
        return self._state

    def notify(self) -> None:
        """Fetch at once, because somebody says that there is a new commit. It is called in the thread of the event loop."""
        self._told.set()

    async def pin(self, text: str) -> Version:
        """Serve a commit in the place of the newest one. Returns it.

        `text` is its id, the first digits of one that was served, or the name of a branch or tag, whose commit of now
        is meant. Raises GitFailed if it cannot be had or is not signed, and WrongUsage.
        """
        wanted = self.pins.whole(text)
        await self._my_turn()
        try:
            found = await self._in_thread(lambda: self._repository.fetch(wanted))
            await asyncio.to_thread(self._verified, found)
            self.pins.set(Pin(found.version.id, time.time()))
        finally:
            self._one_at_a_time.release()
        self._again()
        return found.version

    async def _my_turn(self) -> None:
        """Acquire the lock. A poll that takes long is ended, because somebody wants to go back now."""
        try:
            async with asyncio.timeout(self._pace.polite):
                await self._one_at_a_time.acquire()
        except TimeoutError:
            self._repository.end()
            await self._one_at_a_time.acquire()

    def unpin(self) -> None:
        """Serve the newest commit again."""
        self.pins.set(None)
        self._again()

    def _again(self) -> None:
        self._hurry.set()
        self._told.set()

    async def changes(self) -> AsyncGenerator[CommitFolder, None]:
        """Yield the gateway, and yield it again after every change, until the iteration is closed."""
        failures, before = 0, None
        try:
            while True:
                self._told.clear()
                self._hurry.clear()
                async with self._one_at_a_time:
                    state = await self._in_thread(self._read)
                failures = failures + 1 if state.version is None else 0
                if state != before:
                    self._state = before = state
                    yield state
                if await self._changed(self._pace.after(failures)):
                    before = None
        finally:
            await asyncio.to_thread(self._repository.close)

    async def settled(self) -> CommitFolder:
        """Return the newest state: a commit is never half-written."""
        return self._state

    def refer_to(self, paths: Iterable[Path]) -> None:
        """Yield a change also if one of these files of this machine changes. They replace those of the last call."""
        self._files = {path: _stamp(path) for path in paths}

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """Call something that fetches, in another thread, and end it if it takes too long or nobody waits for it."""
        self._repository.begin()
        work = asyncio.ensure_future(asyncio.to_thread(call))
        try:
            async with asyncio.timeout(self._pace.patience):
                return await asyncio.shield(work)
        except TimeoutError:
            self._repository.end()
            return await work
        except asyncio.CancelledError:
            self._repository.end()
            await asyncio.wait({work})
            raise

    def _read(self) -> CommitFolder:
        pin = self.pins.pin
        try:
            found = self._repository.fetch(pin.commit if pin is not None else "")
            if self._commit is not None and self._commit.tree is found.tree and not self._commit.problems:
                return self._commit
        except GitFailed as error:
            return CommitFolder(problems=(str(error),))
        try:
            version = self._verified(found)
        except GitFailed as error:
            return CommitFolder(problems=(str(error),), version=found.version)
        self._commit = found.tree.folder(version, allow_empty=self._allow_empty)
        return self._commit

    def _verified(self, found: Fetched) -> Version:
        """Return the version with who signed it. Raises GitFailed if it is not signed as it must be."""
        version = found.version
        if self._verify is None:
            return version
        try:
            return replace(version, signer=printable(self._verify(found.signed)))
        except Unsigned as error:
            raise GitFailed(
                f"commit {version.id[:12]} of {version.author} is not served, because {error}; "
                "--require-signature says who may sign"
            ) from None

    async def _changed(self, seconds: float) -> bool:
        """Wait for a notice or for some seconds. Returns True at once if a file of this machine has changed."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (rest := end - loop.time()) > 0:
            try:
                async with asyncio.timeout(min(rest, self._pace.files)):  # wait_for can lose a cancellation
                    await self._told.wait()
            except TimeoutError:
                if any(_stamp(path) != stamp for path, stamp in self._files.items()):
                    return True
            else:
                await self._spaced(loop.time())
                return False
        self._notices = 0
        return False

    async def _spaced(self, now: float) -> None:
        """Wait until a notice may lead to a fetch. A pinned commit does not wait."""
        wait = self._noticed + self._pace.between(self._notices) - now
        if wait > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._hurry.wait()
        elif -wait > self._pace.between(self._notices):
            self._notices = 0
        self._notices += 1
        self._noticed = asyncio.get_running_loop().time()


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
