"""How a local copy follows a collection: responses go in, changes come out, and it says what to request next.

This is the protocol of https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
without a network, a clock or tasks. Whatever happens to a stream, the copy holds what the API server last said, and
each change is told once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

from xds_server.kubernetes.resources import Key

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StreamingList:
    """Request: a watch that begins with all objects."""


@dataclass(frozen=True, slots=True)
class PagedList:
    """Request: a list from its beginning, in pages, or in one response if `whole`."""

    whole: bool = False


@dataclass(frozen=True, slots=True)
class WatchFrom:
    """Request: a watch of the events after a version."""

    resource_version: str


Request = StreamingList | PagedList | WatchFrom


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """An object that the API server sent. `kept` is what the copy holds of it, or None to leave it out."""

    key: Key
    uid: str
    kept: T | None


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What became of one object in the copy: `before` is None for an added one, and `after` for a deleted one."""

    key: Key
    before: T | None
    after: T | None


class WatchState(Generic[T]):
    """The copy of one collection. With `streaming`, it requests streaming lists until the API server rejects one."""

    def __init__(self, *, streaming: bool = True) -> None:
        self.synced = False
        """True after the first complete list."""
        self._streaming = streaming
        self._whole = False
        self._version: str | None = None
        self._held: dict[Key, T] = {}
        self._uids: dict[Key, str] = {}
        self._seen: set[Key] = set()  # of the list that is in progress; a list that breaks off starts anew

    @property
    def items(self) -> Mapping[Key, T]:
        """What is held now."""
        return MappingProxyType(self._held)

    @property
    def request(self) -> Request:
        """What to request from the API server now."""
        if self._version is not None:
            return WatchFrom(self._version)
        return StreamingList() if self._streaming else PagedList(self._whole)

    def page(self, found: Iterable[Found[T]], resource_version: str, *, last: bool) -> list[Change[T]]:
        """Take a page of a list. The last page ends the list."""
        changes = [change for one in found for change in self._listed(one)]
        return changes + self._complete(resource_version) if last else changes

    def put(self, found: Found[T], resource_version: str) -> list[Change[T]]:
        """Take an object from an event ADDED or MODIFIED."""
        if self._version is None:
            return self._listed(found)
        self._version = resource_version
        return self._put(found)

    def deleted(self, key: Key, resource_version: str) -> list[Change[T]]:
        """Take an event DELETED: the object is gone, or is no longer selected."""
        if self._version is None:
            self._seen.discard(key)
        else:
            self._version = resource_version
        return self._drop(key)

    def bookmark(self, resource_version: str, *, initial_end: bool) -> list[Change[T]]:
        """Take a bookmark. The one after the initial events ends a streaming list."""
        if self._version is not None:
            self._version = resource_version
        elif initial_end:
            return self._complete(resource_version)
        return []

    def interrupted(self) -> None:
        """Take the end of a response, for whatever reason: a watch resumes, and a list starts anew."""
        self._seen.clear()

    def gone(self) -> None:
        """Take the error that the version or the page is too old: everything is listed again."""
        self._whole = self._version is None and not self._streaming
        self._version = None
        self._seen.clear()

    def rejected(self) -> None:
        """Take the error that the request is invalid: the server has no streaming lists, or the version is none."""
        self._streaming = self._streaming and self._version is not None
        self._whole, self._version = False, None
        self._seen.clear()

    def absent(self) -> list[Change[T]]:
        """Take the error that the API server does not have this kind, so that there are no objects."""
        self.synced, self._version = True, None
        self._seen.clear()
        return [change for key in list(self._held) for change in self._drop(key)]

    def _listed(self, found: Found[T]) -> list[Change[T]]:
        self._seen.add(found.key)
        return self._put(found)

    def _complete(self, resource_version: str) -> list[Change[T]]:
        changes = [change for key in list(self._held) if key not in self._seen for change in self._drop(key)]
        self._version, self.synced, self._whole = resource_version, True, False
        self._seen = set()
        return changes

    def _put(self, found: Found[T]) -> list[Change[T]]:
        key, after = found.key, found.kept
        if after is None:
            return self._drop(key)
        replaced = self._drop(key) if self._uids.get(key, found.uid) != found.uid else []
        before = self._held.get(key)
        if before == after:
            return replaced  # the object that is held stays, so that nothing is made from it again
        self._held[key], self._uids[key] = after, found.uid
        return [*replaced, Change(key, before, after)]

    def _drop(self, key: Key) -> list[Change[T]]:
        before = self._held.pop(key, None)
        self._uids.pop(key, None)
        return [] if before is None else [Change(key, before, None)]
