"""An owner of counters as a process of its own, on a socket that outlives it as that of a supervisor does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from pathlib import Path
from typing import Self

import uvloop

from filters.rate_limit.engine.memory import Memory
from filters.rate_limit.server.service import microseconds
from filters.rate_limit.stores.owner_process import Owner


def _own(listening: socket.socket) -> None:
    async def own() -> None:
        server = await Owner(Memory(), microseconds).start(listening)
        await server.serve_forever()

    uvloop.run(own())


class OwnerProcess:
    """Use as a context manager; `kill` and `start` are the end and the beginning of an owner."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "counters.sock"
        self._listening = socket.socket(socket.AF_UNIX)
        self._process: multiprocessing.process.BaseProcess

    def __enter__(self) -> Self:
        self._listening.bind(str(self.path))
        self._listening.listen()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._listening.close()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_own, args=(self._listening,))
        self._process.start()

    def kill(self) -> None:
        if self._process.is_alive():
            self.signal(signal.SIGKILL)
        self._process.join()

    def signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def busy(self) -> float:
        """Seconds of processor time that the owner has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
