"""A server of ours as a process of its own: started with a log and an admin address, stopped by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import httpx

from tests.support.wait import ProcessEndedError, wait_for

ROOT = Path(__file__).resolve().parents[2]


class ServerProcess:
    """``python -m xds_server COMMAND`` with `arguments`. Use as a context manager.

    `name` is what messages call it. It is there when `page` of its `admin` address answers 200.
    """

    def __init__(self, name: str, arguments: Iterable[str], admin: str, log: Path, page: str) -> None:
        self.name, self.admin = name, admin
        self._command = [sys.executable, "-m", "xds_server", *arguments]
        self._log, self._page = log, page
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        self.ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, without waiting for it."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)

    def ready(self) -> None:
        """Wait until it is there."""
        wait_for(self._ready, lambda: f"{self.name}; its log:\n{self.log[-3000:]}")

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise ProcessEndedError(f"{self.name} ended with {self.process.returncode}:\n{self.log[-3000:]}")
        return httpx.get(f"http://{self.admin}{self._page}").status_code == 200

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
        return self._log.read_text() if self._log.exists() else ""

    def says(self, text: str, after: int = 0) -> None:
        """Wait until the log has a text, beyond its first `after` characters."""
        wait_for(lambda: text in self.log[after:], lambda: f"{text!r} in the log:\n{self.log[-3000:]}")
