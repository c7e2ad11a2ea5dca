"""The limit of open files of this process: each connection is one."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress

RESERVED = 500
"""Files that a server needs for itself: the gateway's files, logs, databases, and processes that it starts."""


def raise_limit() -> int:
    """Raise the limit to the largest that is allowed (getrlimit(2), RLIMIT_NOFILE), and return it.

    Service managers start processes with a limit of 1,024 for programs that use select(2), and let others raise it.
    """
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a system can have a lower limit than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        soft = most
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def connections(wanted: int, files: int) -> int:
    """Return how many of the `wanted` connections a limit of so many open files allows, at least 1."""
    return max(1, min(wanted, files - RESERVED))
