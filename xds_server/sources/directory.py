"""A watched folder: it yields the folder at once and after every change, and a burst of changes as one.

It watches the folder, its parent (so that it sees a folder that vanishes and returns), the folders of the links on
the way to it (so that it sees a swapped link), and the folders of the files that the gateway refers to. It does not
trust the content of an event: after any event it reads everything again, and an identical state is no change.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Iterator
from pathlib import Path
from typing import Any

from watchdog import events
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.observers.polling import PollingObserver

from xds_server.sources.folder import Folder, read_folder

SETTLE = 0.05
"""A file that is being written is read when it is closed, or after this number of seconds at the latest."""
QUIET, LONGEST = 0.15, 2.0
"""Seconds without an event after which a folder counts as settled, and the latest time for that."""
RECHECK = 1.0
"""Seconds between attempts to read or watch a folder."""
DEEPEST_LINKS = 8
_Identity = tuple[int, int] | None
"""Device and inode of the folder at a path. Another folder under the same path has different ones."""
_WRITING = frozenset(["created", "modified"])
_CHANGES = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type)
    and issubclass(kind, FileSystemEvent)
    and getattr(kind, "event_type", "opened") not in ("opened", "closed_no_write")
]
"""All events but those of reading, which each reading of the folder would cause for each file."""


class Directory:
    """Watches one gateway folder. Iterate over `changes()` from one task only.

    A folder counts as settled after `longest` seconds at the latest.
    """

    def __init__(self, path: Path | str, *, poll: bool = False, longest: float = LONGEST) -> None:
        self._longest = longest
        self.path = Path(path).absolute()
        self._poll = poll
        self._observer: BaseObserver | None = None
        self._watches: dict[Path, tuple[ObservedWatch, _Identity]] = {}
        self._wanted: frozenset[Path] = frozenset()
        self._now = asyncio.Event()
        self._soon = asyncio.Event()
        self._unfinished = False  # true if the last event was a write without a following close
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def name(self) -> str:
        """The path of the folder."""
        return str(self.path)

    async def changes(self) -> AsyncGenerator[Folder, None]:
        """Yield the folder, and yield it again after every change, until the iteration is closed."""
        self._loop = asyncio.get_running_loop()
        self._observer = PollingObserver(timeout=0.5) if self._poll else Observer()
        self._observer.start()
        try:
            while True:
                self._watch()
                self._now.clear()
                self._soon.clear()
                folder = read_folder(self.path)
                yield folder
                self.refer_to(folder.reads)
                await self._next(healthy=not folder.problems and self._watch())
        finally:
            self._observer.stop()
            await asyncio.to_thread(self._observer.join)

    async def settled(self) -> Folder:
        """Return the folder when no event happens in it: a file that is being written may be empty or incomplete.

        Until the time limit, it waits for the end of a write, and if the folder has no file or an empty one.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._longest
        while True:
            self._now.clear()
            self._soon.clear()
            folder = read_folder(self.path)
            happened = await self._happened(QUIET)
            late = loop.time() >= end
            whole = not self._unfinished and folder.files and all(folder.files.values())
            if late or (whole and not happened):
                return read_folder(self.path) if happened else folder

    async def _happened(self, within: float) -> bool:
        flags = {asyncio.ensure_future(flag.wait()) for flag in (self._now, self._soon)}
        try:
            done, _ = await asyncio.wait(flags, timeout=within, return_when="FIRST_COMPLETED")
        finally:
            for flag in flags:
                flag.cancel()
        return bool(done)

    def refer_to(self, paths: Iterable[Path]) -> None:
        """Watch the folders of these files too, instead of those of the last call."""
        outside = {Path(os.path.abspath(path)).parent for path in paths}  # noqa: PTH100 - links stay as they are
        self._wanted = frozenset(folder for folder in outside if not folder.is_relative_to(self.path))
        self._watch()

    async def _next(self, *, healthy: bool) -> None:
        """Wait for a finished write, or for a while after an unfinished one, or for the time to retry."""
        soon = asyncio.ensure_future(self._soon.wait())
        now = asyncio.ensure_future(self._now.wait())
        try:
            await asyncio.wait(
                {soon, now}, timeout=None if healthy else RECHECK, return_when="FIRST_COMPLETED"
            )
            if soon.done() and not now.done():
                await asyncio.wait({now}, timeout=SETTLE)
        finally:
            soon.cancel()
            now.cancel()

    def _watch(self) -> bool:
        """Watch the folders that are not watched yet. Returns False if one cannot be watched."""
        assert self._observer is not None
        wanted = dict.fromkeys(map(_real, self._beside()), False) | {_real(self.path): True}
        for path, (_, watched) in list(self._watches.items()):
            if path not in wanted or _identity(path) != watched:
                self._forget(path)
        for path in wanted:
            identity = _identity(path)
            if path not in self._watches and identity is not None:
                try:
                    watch = self._observer.schedule(
                        _Events(self), str(path), recursive=wanted[path], event_filter=_CHANGES
                    )
                except OSError:
                    continue
                self._watches[path] = (watch, identity)
        return all(path in self._watches for path in wanted)

    def _beside(self) -> Iterator[Path]:
        yield self.path.parent
        yield from self._wanted
        for path in (self.path, *self._wanted):
            yield from _folders_of_links(path)

    def _forget(self, path: Path) -> None:
        assert self._observer is not None
        try:
            self._observer.unschedule(self._watches.pop(path)[0])
        except (KeyError, OSError):
            return

    def happened(self, event: FileSystemEvent) -> None:
        """Handle an event, in the observer's thread."""
        if self._loop is None or self._loop.is_closed():
            return
        paths = [Path(os.fsdecode(path)) for path in (event.src_path, event.dest_path) if path]
        if event.event_type in ("deleted", "moved") and event.is_directory and paths[0] in self._watches:
            self._loop.call_soon_threadsafe(self._forget, paths[0])
        writing = event.event_type in _WRITING and not event.is_directory
        link = writing and event.event_type == "created" and any(path.is_symlink() for path in paths)
        self._unfinished = writing and not link
        flag = self._soon if self._unfinished else self._now
        self._loop.call_soon_threadsafe(flag.set)


class _Events(FileSystemEventHandler):
    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def on_any_event(self, event: FileSystemEvent) -> Any:
        self._directory.happened(event)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _folders_of_links(path: Path, depth: int = 0) -> Iterator[Path]:
    """Yield the folders of the links on the way to `path`, and of those on the way to their targets."""
    for link in (part for part in (*reversed(path.parents), path) if part.is_symlink()):
        yield link.parent
        if depth < DEEPEST_LINKS:
            target = link.parent / os.readlink(link)  # noqa: PTH115 - one step only
            yield from _folders_of_links(Path(os.path.abspath(target)), depth + 1)  # noqa: PTH100 - as above


def _identity(path: Path) -> _Identity:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if path.is_dir() else None
