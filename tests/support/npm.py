"""Packages of npm, which are installed once for each user of the machine."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.kubernetes.build import CACHE

LIMIT = 120
"""Seconds for an installation."""


def installed(*packages: str) -> Path:
    """The folder of some packages. Skips the test if there is no node, or if npm cannot install them."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    folder = CACHE / "npm" / "+".join(packages)
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        command = [npm, "install", "--no-audit", "--no-fund", "--fetch-retries", "1", "--prefix", made]
        try:
            done = subprocess.run(
                [*command, *packages], capture_output=True, text=True, timeout=LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip("npm does not answer")
        if done.returncode != 0:
            pytest.skip(f"npm cannot install {', '.join(packages)}: {done.stderr[-300:]}")
        try:
            Path(made).rename(folder)
        except OSError:  # another test was faster
            return folder
        Path(made).mkdir()
    return folder
