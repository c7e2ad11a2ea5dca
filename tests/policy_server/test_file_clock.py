"""The clock of limits that tests move."""

from __future__ import annotations

from pathlib import Path

import pytest

from xds_server.cli.main import main
from xds_server.policy_server import file_clock
from xds_server.policy_server.file_clock import FileClock


def test_it_stands_still_until_the_file_changes(tmp_path: Path) -> None:
    file_clock.write(tmp_path / "clock", 1_700_000_000_000_000)
    clock = FileClock(tmp_path / "clock")
    assert (clock(), clock()) == (1_700_000_000_000_000, 1_700_000_000_000_000)
    file_clock.write(tmp_path / "clock", 5)
    assert clock() == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workers", "1", "--limit-clock", "missing"), "--limit-clock: missing cannot be read"),
        (("--workers", "2", "--limit-clock", "missing"), "--limit-clock needs --workers 1"),
        (
            ("--workers", "1", "--counters", "redis://127.0.0.1:1", "--limit-clock", "missing"),
            "--limit-clock needs --workers 1",
        ),
    ],
)
def test_a_clock_that_cannot_be_used_ends_the_command(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listen = f"unix:{tmp_path}/policy.sock"
    assert main(["policy-server", "--listen", listen, *arguments]) == 2
    assert message in capsys.readouterr().err
