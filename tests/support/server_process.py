"""A server of ours as a process of its own: started with a log and an admin address, stopped by a signal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import httpx

from tests.support.logged_process import LoggedProcess
from tests.support.wait import ProcessEndedError, wait_for


class ServerProcess(LoggedProcess):
    """``python -m xds_server COMMAND`` with `arguments`. Use as a context manager.

    `name` is what messages call it. It is there when `page` of its `admin` address answers 200.
    """

    def __init__(self, name: str, arguments: Iterable[str], admin: str, log: Path, page: str) -> None:
        super().__init__((sys.executable, "-m", "xds_server", *arguments), log)
        self.name, self.admin = name, admin
        self._page = page

    def __enter__(self) -> Self:
        self.start()
        self.ready()
        return self

    def ready(self) -> None:
        """Wait until it is there."""
        wait_for(self._ready, lambda: f"{self.name}; its log:\n{self.log[-3000:]}")

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise ProcessEndedError(f"{self.name} ended with {self.process.returncode}:\n{self.log[-3000:]}")
        return httpx.get(f"http://{self.admin}{self._page}").status_code == 200
