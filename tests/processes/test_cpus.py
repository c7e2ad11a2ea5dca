"""How many processors a policy server takes as its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xds_server.processes.cpus import cores

HERE = len(os.sched_getaffinity(0))


def group(root: Path, path: str, quota: str) -> None:
    (root / path).mkdir(parents=True, exist_ok=True)
    (root / path / "cpu.max").write_text(quota + "\n")


@pytest.mark.parametrize(
    ("own", "outer", "inner", "expected"),
    [
        ("0::/\n", "50000 100000", None, 1),
        ("0::/\n", "max 100000", None, HERE),
        ("0::/pods/one\n", None, "100000 100000", 1),
        ("0::/pods/one\n", "100000 100000", "max 100000", 1),
        ("1:cpu:/old\n0::/pods/one\n", None, "150000 100000", min(2, HERE)),
        ("0::/pods/one\n", None, "6400000 100000", HERE),
        ("0::/pods/one\n", None, "nonsense", HERE),
    ],
)
def test_a_quota_of_any_group_around_is_kept(
    tmp_path: Path, own: str, outer: str | None, inner: str | None, expected: int
) -> None:
    (tmp_path / "own").write_text(own)
    for path, quota in (("", outer), ("pods/one", inner)):
        if quota is not None:
            group(tmp_path / "cgroup", path, quota)
    assert cores(tmp_path / "own", tmp_path / "cgroup") == expected


def test_without_groups_it_is_what_the_process_may_run_on(tmp_path: Path) -> None:
    assert cores(tmp_path / "none", tmp_path) == HERE
