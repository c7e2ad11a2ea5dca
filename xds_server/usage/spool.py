"""The spool: batches on disk until the store has their counts. A batch is acknowledged when it is on disk.

A folder with segments, each a file of records (spool_format.py). One thread writes, so that one fdatasync serves all
batches that arrive meanwhile. A segment is never written again after a restart, so a torn record ends a segment.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from xds_server.errors import EnvironmentFailed
from xds_server.usage import spool_format
from xds_server.usage.spool_format import Found

LIMIT = 1 << 30
"""Bytes of batches that may wait for the store."""
SEGMENT = 16 << 20
"""Bytes after which a new segment begins."""
MOST_WAITING = 8 << 20
"""Bytes that may wait for the disk."""
_NAME = re.compile(r"(\d{12})\.spool")


class Position(NamedTuple):
    """A place in the spool, and its order: the number of a segment, and an offset in bytes."""

    segment: int
    offset: int


class SpoolFull(Exception):  # noqa: N818 - a state, reported to Envoy, which sends the batch again
    """The spool has no room for a batch."""


class Part(NamedTuple):
    """Records of the spool, the position after them, and the bytes between them that are no record."""

    records: list[Found]
    end: Position
    corrupt: int


class Spool:
    """The spool in `folder`, which no other process may use meanwhile. Raises EnvironmentFailed.

    `limit` and `segment` are in bytes. `sync` writes a file through to the disk.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit: int = LIMIT,
        segment: int = SEGMENT,
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        self._folder, self._limit, self._segment_size, self._sync = folder, limit, segment, sync
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(folder)
            self.name = _name(folder)
            self._sizes = {number: _path(folder, number).stat().st_size for number in _segments(folder)}
        except OSError as error:
            raise EnvironmentFailed(f"the spool {folder} cannot be used: {error.strerror or error}") from None
        self._changed = threading.Condition()
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._waiting_bytes = 0
        self._durable = Position(max(self._sizes, default=0) + 1, 0)
        self._file: int | None = None
        self._rolled = Position(0, 0)
        self._ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._write_all, name="spool", daemon=True)

    def start(self) -> None:
        """Begin to write. Call it in the event loop that appends."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def first(self) -> Position:
        """The position of the oldest batch that is still on disk."""
        return Position(min(self._sizes, default=self._durable.segment), 0)

    @property
    def size(self) -> int:
        """Bytes of the batches whose counts are not in the store yet."""
        at = self._rolled
        with self._changed:
            later = sum(size for number, size in self._sizes.items() if number > at.segment)
            return later + max(0, self._sizes.get(at.segment, 0) - at.offset) + self._waiting_bytes

    @property
    def durable(self) -> Position:
        """The end of what is on disk."""
        with self._changed:
            return self._durable

    def append(self, payload: bytes, arrival: int) -> asyncio.Future[None]:
        """Return a future that is done when the batch is on disk. It fails with OSError. Raises SpoolFull.

        `arrival` is in Unix seconds.
        """
        assert self._loop is not None
        record = spool_format.encode(payload, arrival)
        if self._waiting_bytes + len(record) > MOST_WAITING or self.size + len(record) > self._limit:
            raise SpoolFull
        future: asyncio.Future[None] = self._loop.create_future()
        with self._changed:
            self._waiting.append((record, future))
            self._waiting_bytes += len(record)
            self._changed.notify_all()
        return future

    def wait(self, after: Position, seconds: float) -> bool:
        """Wait in a thread until there is more than `after` on disk. Returns False if there is not."""
        with self._changed:
            return self._changed.wait_for(lambda: self._durable > after, seconds)

    def read(self, begin: Position, most: int) -> Part:
        """Return records from a position on, about `most` bytes of them, of one segment."""
        with self._changed:
            durable, later = self._durable, [n for n in self._sizes if n > begin.segment]
        last = begin.segment >= durable.segment
        limit = durable.offset if last else self._sizes.get(begin.segment, 0)
        data = _bytes(_path(self._folder, begin.segment), begin.offset, min(most, limit - begin.offset))
        records = list(spool_format.scan(data))
        whole = begin.offset + len(data) >= limit
        if not records and not whole:  # the first record is longer than `most`, or its end is damaged
            return self.read(begin, most * 2)
        end = begin.offset + (records[-1].end if records else 0)
        corrupt = sum(found.skipped for found in records)
        if whole and not last:
            return Part(records, Position(min(later, default=durable.segment), 0), corrupt)
        if whole:  # all of it is acknowledged, so what is no record is damaged
            corrupt += limit - end
            end = limit
        return Part(records, Position(begin.segment, end), corrupt)

    def rolled(self, position: Position, keep: int) -> None:
        """Note that all before a position is in the store. Segments before the segment `keep` are deleted."""
        with self._changed:
            self._rolled = position
            old = [number for number in self._sizes if number < min(keep, position.segment)]
            for number in old:
                del self._sizes[number]
        for number in old:
            with contextlib.suppress(OSError):
                _path(self._folder, number).unlink()

    def stop(self) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._lock)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                batches, self._waiting = self._waiting, []
            if not batches:
                break
            error = self._write([record for record, _ in batches])
            with self._changed:
                self._waiting_bytes -= sum(len(record) for record, _ in batches)
                self._changed.notify_all()
            self._resolve([future for _, future in batches], error)
        if self._file is not None:
            os.close(self._file)

    def _write(self, records: Iterable[bytes]) -> OSError | None:
        data = b"".join(records)
        try:
            if self._file is None or self._durable.offset >= self._segment_size:
                self._begin_segment()
            assert self._file is not None
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            self._sync(self._file)
        except OSError as error:
            self._abandon()
            return error
        with self._changed:
            segment, offset = self._durable
            self._durable = Position(segment, offset + len(data))
            self._sizes[segment] = offset + len(data)
        return None

    def _begin_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        with self._changed:
            number = max((*self._sizes, self._durable.segment - 1)) + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(_path(self._folder, number), flags, 0o600)
        with self._changed:
            self._sizes[number] = 0
            self._durable = Position(number, 0)
        _sync_folder(self._folder)

    def _abandon(self) -> None:
        """Leave a segment whose end is unknown. Nothing of its end was acknowledged."""
        if self._file is None:
            return
        size = os.fstat(self._file).st_size
        os.close(self._file)
        self._file = None
        with self._changed:
            self._sizes[self._durable.segment] = size
            self._durable = Position(self._durable.segment + 1, 0)

    def _resolve(self, futures: list[asyncio.Future[None]], error: OSError | None) -> None:
        def resolve() -> None:
            for future in futures:
                if future.done():  # the client gave up
                    continue
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(resolve)


def _locked(folder: Path) -> int:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise EnvironmentFailed(
            f"the spool {folder} is used by another usage server; stop it, or give each server a folder of its own"
        ) from None
    return lock


def _name(folder: Path) -> str:
    """Return the name of the spool, by which the store knows how far it is rolled up."""
    file = folder / "name"
    if not file.exists():
        temporary = folder / "name.new"
        temporary.write_text(uuid.uuid4().hex)
        temporary.replace(file)
        _sync_folder(folder)
    return file.read_text().strip()


def _segments(folder: Path) -> list[int]:
    return sorted(int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:012}.spool"


def _bytes(path: Path, offset: int, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(max(0, most))
    except FileNotFoundError:
        return b""


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
