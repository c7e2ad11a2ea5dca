"""Values of clients in the keys of counters. The length of a key is bounded, so a long value cannot fill memory."""

from __future__ import annotations

import hashlib

LONGEST = 128
"""Characters of the longest value that is kept as it is."""


def bounded(value: str) -> str:
    """The value, or, if it is too long, its beginning with its SHA-256.

    The result is longer than `LONGEST`, so no value is the same as the bounded form of another.
    """
    if len(value) <= LONGEST:
        return value
    return f"{value[: LONGEST // 2]}~{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"
