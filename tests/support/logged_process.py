"""A process of a test with its log: started, ended by a signal, and waited for by what it says."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from tests.support.wait import wait_for

ROOT = Path(__file__).resolve().parents[2]
NOTHING: Mapping[str, str] = MappingProxyType({})


class LoggedProcess:
    """A process with everything that it says in a file, and more variables of its environment. Use as a context manager."""

    def __init__(self, command: Iterable[str], log: Path, environment: Mapping[str, str] = NOTHING) -> None:
        self._command, self._log, self._environment = [*command], log, environment
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, without waiting for it."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self._environment}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal, also if it is stopped; returns the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        self.process.send_signal(signal.SIGCONT)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def log(self) -> str:
        """All that it has said."""
        return self._log.read_text() if self._log.exists() else ""

    def says(self, text: str, after: int = 0) -> None:
        """Wait until the log has a text, beyond its first `after` characters."""
        wait_for(lambda: text in self.log[after:], lambda: f"{text!r} in the log:\n{self.log[-3000:]}")
