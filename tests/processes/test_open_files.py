"""The limit of open files: raised as far as allowed, and a bound of connections."""

from __future__ import annotations

import subprocess
import sys

from xds_server.processes import open_files

SHOW = "from xds_server.processes import open_files; print(open_files.raise_limit())"


def test_the_limit_is_raised_to_the_largest_that_is_allowed() -> None:
    """A shell sets it, as a service manager does."""
    command = 'ulimit -Sn 700; ulimit -Hn 900; exec "$0" -c "$1"'
    shown = subprocess.run(
        ["sh", "-c", command, sys.executable, SHOW], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout == "900\n"


def test_connections_leave_files_for_the_process_itself() -> None:
    assert open_files.connections(20_000, sys.maxsize) == 20_000
    assert open_files.connections(20_000, 4_096) == 4_096 - open_files.RESERVED
    assert open_files.connections(20_000, 256) == 1
