"""The memory of one process for the answers of upstreams: how much is in use, and when no more fits."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

USUAL = 128 << 20
"""Bytes of memory that the answers in one process take before it rejects requests, unless it is told otherwise."""
_RETURNED_FROM = 16 << 20
"""Bytes of answers after which the C library is asked to return memory, once they are gone."""


class AnswerMemory:
    """Counts the bytes of memory for answers that are being received or in use by requests.

    It `is_full` from `most` bytes on: new requests are rejected then. Requests in progress may use as much again.
    """

    def __init__(self, most: int = USUAL) -> None:
        self.used = 0
        self._most = most
        self._highest = 0

    @property
    def is_full(self) -> bool:
        """True if no new request may begin."""
        return self.used >= self._most

    def take(self, size: int) -> bool:
        """Count bytes. Returns False if they do not fit, not even for a request in progress."""
        self.used += size
        self._highest = max(self._highest, self.used)
        return self.used <= 2 * self._most

    def give_back(self, size: int) -> None:
        """Stop counting bytes. The C library keeps what it was given, so it is asked to return memory after a peak.

        Executions of GraphQL are cycles of references, which are collected before.
        """
        self.used -= size
        if self.used == 0 and self._highest >= _RETURNED_FROM:
            self._highest = 0
            gc.collect()
            _trim()


def _trimmer() -> Callable[[], object]:
    """What returns free memory to the system: malloc_trim of glibc, or nothing with other C libraries."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return lambda: None
    return lambda: trim(0)


_trim = _trimmer()
