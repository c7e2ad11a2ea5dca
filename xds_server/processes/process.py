"""A child process of the control plane: started, restarted with back-off if it ends, and ended with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.2, 15.0
"""Seconds between the end of a process and its restart. The time doubles with each process that does not live long.
"""
LONG_LIFE = 30.0
"""Seconds after which a process counts as healthy, so that the next wait is `FIRST_WAIT`."""
PATIENCE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


class Process:
    """Keeps one command running. `before` is called before each start. Its output goes to the file `log`, if there is one."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        before: Callable[[], None] | None = None,
        patience: float = PATIENCE,
        log: Path | None = None,
    ) -> None:
        self.restarts = 0
        self._name = name
        self._command = [sys.executable, "-m", "xds_server.processes.launch", str(os.getpid()), *command]
        self._before = before
        self._patience = patience
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the running process, or None."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """True if the process runs now."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process and keep it running. Raises OSError if the program cannot be started."""
        await self._spawn()
        self._task = asyncio.create_task(self._keep())

    async def release(self) -> None:
        """Let the process run, and do not restart it any more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def stop(self) -> None:
        """End the process with SIGTERM, and with SIGKILL if it does not end in time."""
        await self.release()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self._patience)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _spawn(self) -> None:
        if self._before is not None:
            self._before()
        with contextlib.ExitStack() as stack:
            output = None if self._log is None else stack.enter_context(self._log.open("ab"))
            self._process = await asyncio.create_subprocess_exec(
                *self._command, start_new_session=True, stdout=output, stderr=output
            )

    async def _keep(self) -> None:
        loop, wait = asyncio.get_running_loop(), FIRST_WAIT
        while True:
            assert self._process is not None
            began = loop.time()
            code = await self._process.wait()
            wait = FIRST_WAIT if loop.time() - began > LONG_LIFE else wait
            log.error("%s ended; it is started again code=%s wait=%.1fs", self._name, code, wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
            self.restarts += 1
            try:
                await self._spawn()
            except OSError as error:
                log.error("%s could not be started error=%s", self._name, error)
