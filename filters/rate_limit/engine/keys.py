"""Values of clients in the keys of counters: no value, however long, makes a key that fills memory."""

from __future__ import annotations

import hashlib

LONGEST = 128
"""Characters of a value that are kept as they are."""


def bounded(value: str) -> str:
    """The value, or where it is longer its beginning with its SHA-256.

    That is longer than what is kept as it is, so that no value can be another one's short form.
    """
    if len(value) <= LONGEST:
        return value
    return f"{value[: LONGEST // 2]}~{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"
