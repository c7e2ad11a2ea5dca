"""The last good rules on disk, so that a policy server can start and decide without its control plane.

A file is ``XDSR`` and records. Each record has a length (8 bytes, big-endian), a BLAKE2b checksum and a
DeltaDiscoveryResponse, in the order of arrival. The checksums are chained, so everything after a broken or missing
record is ignored. The file contains hashes of credentials and the source of policies, so only its owner may read it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from xds_server.policy_server.rules_stream import HeldRules

log = logging.getLogger(__name__)

Response = discovery_pb2.DeltaDiscoveryResponse
MAGIC = b"XDSR"
WHOLE = "whole"
"""The nonce of a record after which all rules of its type are in the file."""
SLACK = 1 << 20
"""Bytes that may be appended, in addition to the size at the start, before the file is written again."""
_DIGEST, _LENGTH = 32, 8


def read(path: Path) -> Iterator[Response]:
    """Yield the records of a file up to the first broken one. Raises OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            log.warning("not a file of rules; it is ignored file=%s", path)
            return
        digest = b""
        while header := file.read(_LENGTH + _DIGEST):
            length = header[:_LENGTH]
            body = file.read(min(int.from_bytes(length, "big"), size))
            digest = _checksum(digest, length, body)
            if header[_LENGTH:] != digest:
                log.warning(
                    "file of rules is damaged; the rest is ignored file=%s position=%d", path, file.tell()
                )
                return
            try:
                yield Response.FromString(body)
            except DecodeError as error:
                log.warning(
                    "file of rules has another version; the rest is ignored file=%s error=%s", path, error
                )
                return


def folded(records: Iterable[Response]) -> Iterator[Response]:
    """Yield one record for each type, with the result of all its records."""
    by_type: dict[str, dict[str, discovery_pb2.Resource]] = {}
    whole = set()
    for record in records:
        resources = by_type.setdefault(record.type_url, {})
        for name in record.removed_resources:
            resources.pop(name, None)
        resources.update({resource.name: resource for resource in record.resources})
        if record.nonce == WHOLE:
            whole.add(record.type_url)
    for url, resources in by_type.items():
        yield Response(type_url=url, nonce=WHOLE if url in whole else "", resources=list(resources.values()))


class LastRules:
    """Keeps a file equal to the rules of a policy server. Only one thread at a time may use it.

    Without `keeps`, the file is only read: one of several processes with the same rules writes it. `slack` is in
    bytes.
    """

    def __init__(self, path: Path, *, keeps: bool = True, slack: int = SLACK) -> None:
        self._slack = slack
        self._path = path
        self._keeps = keeps
        self._digest = b""
        self._size, self._most = 0, -1
        self._whole: set[str] = set()

    def restore(self, rules: HeldRules) -> bool:
        """Load the rules of the file. Returns True if they are all that `rules` need."""
        try:
            records = list(folded(read(self._path)))
        except FileNotFoundError:
            return False
        except OSError as error:
            log.warning("could not read the last good rules; starting without them error=%s", error)
            return False
        whole = rules.restore(records, {record.type_url for record in records if record.nonce == WHOLE})
        log.info("last good rules restored file=%s", self._path)
        return whole

    def keep(self, response: Response, refused: Collection[str], *, whole: bool) -> None:
        """Write the accepted part of a response, without the rejected rules.

        After a failed write, the file stays unchanged: if one change were missing, the file would be a state that
        never existed.
        """
        new = whole and response.type_url not in self._whole
        if not self._keeps or not (response.resources or response.removed_resources or new):
            return
        record = Response(
            type_url=response.type_url,
            nonce=WHOLE if whole else "",
            resources=[resource for resource in response.resources if resource.name not in refused],
            removed_resources=response.removed_resources,
        )
        try:
            if self._size > self._most:
                self._begin()
            with self._path.open("r+b") as file:
                file.seek(0, os.SEEK_END)
                self._append(file, [record])
        except OSError as error:
            self._keeps = False
            log.warning(
                "could not write the last good rules; the file stays unchanged until a restart error=%s",
                error,
            )
        if whole:
            self._whole.add(response.type_url)

    def _begin(self) -> None:
        """Write the file again with its content, so that a crash leaves the old file or the new one. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        known = folded(read(self._path)) if self._path.exists() else ()
        descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)  # mode 0600
        self._digest = b""
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(MAGIC)
                self._append(file, known)
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._most = 2 * self._size + self._slack

    def _append(self, file: BinaryIO, records: Iterable[Response]) -> None:
        for record in records:
            body = record.SerializeToString(deterministic=True)
            length = len(body).to_bytes(_LENGTH, "big")
            self._digest = _checksum(self._digest, length, body)
            file.write(length + self._digest + body)
        file.flush()
        os.fsync(file.fileno())
        self._size = file.tell()


def _checksum(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=_DIGEST).digest()
