"""One file (or folder) for each mistake: the comments on its first lines are the very problems that are told."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.support.reading import load
from xds_server.gateway.reader import Load, Reader

MISTAKES = Path(__file__).parent / "mistakes"
CASES = sorted(MISTAKES.iterdir())


def _files(case: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (sorted(case.iterdir()) if case.is_dir() else [case])}


def _load(files: dict[str, bytes]) -> Load:
    """Reads the files of a case that others refer to."""

    def read(name: str) -> bytes:
        return files[name] if name in files else load(name)

    return read


def _expected(files: dict[str, bytes]) -> list[str]:
    """The leading comments of the first file."""
    lines = next(iter(files.values())).decode("utf-8", "replace").splitlines()
    return [line[2:] for line in itertools.takewhile(lambda line: line.startswith("# "), lines)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_mistake_is_told_with_place_path_value_and_remedy(case: Path) -> None:
    files = _files(case)
    reading = Reader().read(files, _load(files), {"SET": "x"})
    assert [str(problem) for problem in reading.problems] == _expected(files)
    assert reading.gateway is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_no_problem_shows_a_secret(case: Path) -> None:
    files = _files(case)
    reading = Reader().read(files, _load(files), {"SET": "hunter2"})
    assert "hunter2" not in "".join(map(str, reading.problems))
