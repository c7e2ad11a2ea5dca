"""The number of processors that this process may use: its CPU affinity, limited by its control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def cores(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of processors, at least 1. A quota of one and a half processors counts as two."""
    return max(1, min(len(os.sched_getaffinity(0)), *_quotas(own, root), 1 << 16))


def _quotas(own: Path, root: Path) -> Iterator[int]:
    """Yield the quotas of this process's control group and of its parents (cgroup v2, cpu.max)."""
    try:
        path = own.read_text().rpartition("::")[2].strip().strip("/")
    except OSError:
        return
    for group in (root / path, *(root / path).parents):
        if not group.is_relative_to(root):
            return
        try:
            quota, period = (group / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            yield -(-int(quota) // int(period))
