"""Shells complete commands, flags, choices and files by the script of `xds completion`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running import ROOT

ASK = """
source /dev/stdin
command=$(complete -p xds | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"$command"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell: str) -> str:
    command = [sys.executable, "-m", "xds_server", "completion", shell]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def bash() -> str:
    return script("bash")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("xds ru", ["run"]),
        ("xds status --ou", ["--output"]),
        ("xds status --output j", ["json"]),
        ("xds check gatew", ["gateway"]),
        ("xds import ng", ["nginx"]),
        ("xds portal us", ["user"]),
    ],
)
def test_bash_completes(typed: str, expected: list[str], bash: str, tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    command = ["bash", "--norc", "-c", ASK, "bash", *shlex.split(typed)]
    done = subprocess.run(
        command, cwd=tmp_path, input=bash, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == expected


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_a_script(shell: str) -> None:
    assert "policy-server" in script(shell)
