"""A clock that stands still until somebody moves it: a number in a file. Tests of limits use it."""

from __future__ import annotations

import os
from pathlib import Path

_DIGITS = 20


def write(file: Path, microseconds: int) -> None:
    """Set the clock of a file to a moment, in microseconds since 1970. Raises OSError."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, f"{microseconds:0{_DIGITS}}".encode(), 0)
    finally:
        os.close(descriptor)


class FileClock:
    """Reads the moment from a file each time it is called. Raises OSError if there is no such file."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_RDONLY)

    def __call__(self) -> int:
        """Return the moment in microseconds since 1970."""
        return int(os.pread(self._descriptor, _DIGITS, 0))
