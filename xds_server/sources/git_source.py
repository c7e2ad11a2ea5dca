"""A branch of a git repository as a source: each commit is a version of the gateway."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xds_server.sources.git_commit import CommitFolder
from xds_server.sources.git_repository import GitFailed, Repository

log = logging.getLogger(__name__)

_LONGEST = 300.0
"""Seconds between two attempts after failures, at most."""
_FIRST = 1.0
_FILES = 2.0
"""Seconds between two looks at files of this machine that the gateway refers to."""
_JITTER = 0.1
"""The share by which intervals differ, so that not all replicas come at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times of a source in seconds. The source of chance is a parameter, so that tests choose it."""

    interval: float = 30.0
    first: float = _FIRST
    longest: float = _LONGEST
    files: float = _FILES
    random: Callable[[], float] = random.random

    def after(self, failures: int) -> float:
        """Return the seconds until the next attempt after some failures in a row."""
        wanted = self.interval if not failures else min(self.longest, self.first * 2 ** min(failures - 1, 16))
        return wanted * (1 + _JITTER * (2 * self.random() - 1))


class GitSource:
    """Fetches the commit of a ref again and again. `notify` has it fetched at once.

    If it cannot be fetched, the source yields a state with that problem, and the commit again when it can.
    """

    def __init__(self, name: str, repository: Repository, pace: Pace, *, allow_empty: bool = False) -> None:
        self._name, self._repository, self._pace, self._allow_empty = name, repository, pace, allow_empty
        self._told = asyncio.Event()
        self._state = CommitFolder()
        self._commit: CommitFolder | None = None
        """The last commit that was read."""
        self._files: Mapping[Path, object] = {}

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

    async def changes(self) -> AsyncGenerator[CommitFolder, None]:
        """Yield the gateway, and yield it again after every change, until the iteration is closed."""
        failures, before = 0, None
        try:
            while True:
                self._told.clear()
                state = await asyncio.to_thread(self._read)
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

    def _read(self) -> CommitFolder:
        try:
            found = self._repository.fetch()
        except GitFailed as error:
            return CommitFolder(problems=(str(error),))
        if self._commit is None or self._commit.tree is not found.tree:
            self._commit = found.tree.folder(found.version, allow_empty=self._allow_empty)
        return self._commit

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
                return False
        return False


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
