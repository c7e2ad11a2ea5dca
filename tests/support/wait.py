"""Wait on conditions, never for luck."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LIMIT = 30.0
"""Seconds: generous, because the machine is noisy; a passing test never waits that long."""


def wait_for(condition: Callable[[], T], what: str, limit: float = LIMIT) -> T:
    """Poll `condition` until it is true and return its value; an exception of it counts as false."""
    deadline = time.monotonic() + limit
    last: object = None
    while time.monotonic() < deadline:
        try:
            value = condition()
        except Exception as error:  # noqa: BLE001 - reported as the last thing seen
            last = error
        else:
            if value:
                return value
            last = value
        time.sleep(0.01)
    raise AssertionError(f"waited {limit:g} s for {what}; last seen: {last!r}")
