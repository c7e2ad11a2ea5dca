"""The last good snapshots on disk, so that a restarted control plane at once serves what it served before.

A file is ``XDS1``, a BLAKE2b checksum of the rest, and for each group its name and a DeltaDiscoveryResponse per type.
Each part has its length in front (8 bytes, big-endian). The file contains private keys, so only its owner may read
it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from xds_server.discovery import types, wire
from xds_server.discovery.events import Response
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import ResourceType
from xds_server.serving.events import Event, Published
from xds_server.serving.store import Store

log = logging.getLogger(__name__)

MAGIC = b"XDS1"
FURTHER = "/"
"""The beginning of the names of further snapshots. No group has such a name."""
_DIGEST = 32
_LENGTH = 8


class Unreadable(ValueError):  # noqa: N818 - it is what the file is
    """The file is not a file of snapshots, or it is damaged. The message says which."""


def save(path: Path, snapshots: Mapping[str, Snapshot]) -> None:
    """Write the snapshots of all groups, so that a crash leaves the old file or the new one. Raises OSError."""
    payload = b"".join(_framed(part) for part in _parts(snapshots))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(MAGIC + _checksum(payload) + payload)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path) -> dict[str, Snapshot]:
    """Return the snapshots by group; none if there is no file. Raises OSError and Unreadable."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    if content[:4] != MAGIC:
        known = content[:3] == MAGIC[:3]
        raise Unreadable(
            f"{path} was written by another version" if known else f"{path} is not a file of snapshots"
        )
    digest, payload = content[4 : 4 + _DIGEST], content[4 + _DIGEST :]
    if digest != _checksum(payload):
        raise Unreadable(f"{path} is damaged: its checksum does not match")
    try:
        return dict(_groups(list(_unframed(payload))))
    except (DecodeError, UnicodeDecodeError, IndexError) as error:
        raise Unreadable(f"{path} was written by another version: {error}") from None


def _checksum(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=_DIGEST).digest()


def _parts(snapshots: Mapping[str, Snapshot]) -> Iterator[bytes]:
    for group, snapshot in sorted(snapshots.items()):
        yield group.encode()
        yield len(snapshot.resources).to_bytes(_LENGTH, "big")
        for type_ in sorted(snapshot, key=lambda type_: type_.url):
            yield wire.delta(Response(type_, "", snapshot.version(type_), tuple(snapshot[type_].values())))


def _framed(part: bytes) -> bytes:
    return len(part).to_bytes(_LENGTH, "big") + part


def _unframed(payload: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(payload):
        end = at + _LENGTH + int.from_bytes(payload[at : at + _LENGTH], "big")
        yield payload[at + _LENGTH : end]
        at = end


def _groups(parts: list[bytes]) -> Iterator[tuple[str, Snapshot]]:
    while parts:
        group, count = parts[0].decode(), int.from_bytes(parts[1], "big")
        yield group, _snapshot(parts[2 : 2 + count])
        parts = parts[2 + count :]


def _snapshot(parts: list[bytes]) -> Snapshot:
    resources: dict[ResourceType, list[Resource]] = {}
    versions: dict[ResourceType, str] = {}
    for part in parts:
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(part)
        type_ = types.of_url(response.type_url)
        versions[type_] = response.system_version_info
        resources[type_] = [
            Resource(resource.name, resource.version, resource.resource.value)
            for resource in response.resources
        ]
    return Snapshot.of(resources, versions)


class LastGood:
    """Keeps a file equal to the served snapshots of a store. It writes outside of the event loop; the newest state
    wins.

    The groups `without` are left out. `adapt` changes a restored snapshot into one that this process can serve. `more`
    returns further snapshots by name that are kept in the file, and `take` gets those after a restart.
    """

    def __init__(
        self,
        path: Path,
        store: Store,
        without: Collection[str] = (),
        adapt: Callable[[Snapshot], Snapshot] = lambda snapshot: snapshot,
        more: Callable[[], Mapping[str, Snapshot]] = dict,
        take: Callable[[Mapping[str, Snapshot]], None] = lambda _snapshots: None,
    ) -> None:
        self._path = path
        self._store = store
        self._without = without
        self._adapt, self._more, self._take = adapt, more, take
        self._writing: asyncio.Task[None] | None = None
        self._again = False
        self._failed = False

    def restore(self) -> bool:
        """Publish the snapshots of the file, for groups that have none yet. Returns True if there were any.

        If a file cannot be read, this is logged, and the file stays until the next state overwrites it.
        """
        try:
            snapshots = load(self._path)
        except (OSError, Unreadable) as error:
            log.warning("could not read the last good state; starting without it error=%s", error)
            return False
        further = {name: self._adapt(one) for name, one in snapshots.items() if name.startswith(FURTHER)}
        for group, snapshot in snapshots.items():
            if group not in further and self._store.current(group) is None:
                self._store.restore(self._adapt(snapshot), group)
        self._take(further)
        return bool(snapshots)

    def observe(self, event: Event) -> None:
        """Handle one event of the store: every publication is written."""
        if isinstance(event, Published) and event.group not in self._without:
            self.write()

    def write(self) -> None:
        """Write the state soon, because something of it has changed."""
        self._again = True
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def close(self) -> None:
        """Wait until the newest state is on disk, or until one more attempt to write it has failed."""
        if self._writing is not None:
            await self._writing
            self._again = self._failed
            await self._write()

    async def _write(self) -> None:
        while self._again:
            self._again = False
            names = [name for name in self._store.groups if name not in self._without]
            accepted = {name: self._store.accepted(name) for name in names}
            served = {name: snapshot for name, snapshot in accepted.items() if snapshot is not None}
            await self._save({**served, **self._more()})

    async def _save(self, snapshots: Mapping[str, Snapshot]) -> None:
        self._failed = False
        try:
            await asyncio.to_thread(save, self._path, snapshots)
        except OSError as error:
            self._failed = True
            log.warning(
                "could not write the last good state; a restart would serve an older one file=%s error=%s",
                self._path,
                error.strerror or error,
            )
