"""One file (or folder) for each mistake: the comments on its first lines are the very problems that are told."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.support.reading import load
from xds_server.gateway.reader import Reader

MISTAKES = Path(__file__).parent / "mistakes"
CASES = sorted(MISTAKES.iterdir())


def _files(case: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (sorted(case.iterdir()) if case.is_dir() else [case])}


def _expected(files: dict[str, bytes]) -> list[str]:
    """The leading comments of the first file."""
    lines = next(iter(files.values())).decode("utf-8", "replace").splitlines()
    return [line[2:] for line in itertools.takewhile(lambda line: line.startswith("# "), lines)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_mistake_is_told_with_place_path_value_and_remedy(case: Path) -> None:
    files = _files(case)
    reading = Reader().read(files, load, {"SET": "x"})
    assert [str(problem) for problem in reading.problems] == _expected(files)
    assert reading.gateway is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_no_problem_shows_a_secret(case: Path) -> None:
    reading = Reader().read(_files(case), load, {"SET": "hunter2"})
    assert "hunter2" not in "".join(map(str, reading.problems))
