"""The Envoy that runs beside the control plane: started, watched, restarted with back-off, drained at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from envoy.config.bootstrap.v3 import bootstrap_pb2

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.2, 15.0
"""Seconds between the end of an Envoy and the next one, doubled with each that did not live long."""
LONG_LIFE = 30.0
"""Seconds after which an Envoy counts as healthy, and the next wait is the first one again."""
ADMIN_TIMEOUT = 5.0


class Supervisor:
    """Keeps one Envoy running. `bootstrap` must have its admin address at port 0 or at a port of its own."""

    def __init__(
        self,
        binary: Path,
        bootstrap: bootstrap_pb2.Bootstrap,
        *,
        arguments: Sequence[str] = (),
        log_level: str = "warning",
        drain: float = 5.0,
    ) -> None:
        self.restarts = 0
        self._folder = tempfile.TemporaryDirectory(prefix="xds-envoy-")
        self._admin_file = Path(self._folder.name) / "admin"
        file = Path(self._folder.name) / "bootstrap.pb"
        file.write_bytes(bootstrap.SerializeToString(deterministic=True))
        self._drain = drain
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._command = [
            *(sys.executable, "-m", "xds_server.proxy.launch", str(os.getpid())),
            *(str(binary), "-c", str(file), "-l", log_level, "--use-dynamic-base-id"),
            *("--admin-address-path", str(self._admin_file)),
            *(
                "--drain-time-s",
                str(max(1, round(drain))),
                "--parent-shutdown-time-s",
                str(max(2, round(drain) + 1)),
            ),
            *arguments,
        ]

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def admin(self) -> str | None:
        """``host:port`` of Envoy's admin interface, None while no Envoy has come up."""
        try:
            return self._admin_file.read_text().strip() or None
        except OSError:
            return None

    async def start(self) -> None:
        """Start Envoy and keep it running. Raises OSError when the program cannot be started."""
        await self._spawn()
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Let Envoy finish what it serves, at most the drain time, then end it."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        process = self._process
        if process is not None and process.returncode is None:
            await self._drain_connections(process)
            await _end(process)
        self._folder.cleanup()

    async def _spawn(self) -> None:
        self._admin_file.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(*self._command, start_new_session=True)

    async def _keep(self) -> None:
        loop, wait = asyncio.get_running_loop(), FIRST_WAIT
        while True:
            assert self._process is not None
            began = loop.time()
            code = await self._process.wait()
            wait = FIRST_WAIT if loop.time() - began > LONG_LIFE else wait
            log.error("Envoy ended; it is started again code=%s wait=%.1fs", code, wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
            self.restarts += 1
            try:
                await self._spawn()
            except OSError as error:
                log.error("Envoy could not be started error=%s", error)

    async def _drain_connections(self, process: asyncio.subprocess.Process) -> None:
        if not await self._post("/drain_listeners?graceful&skip_exit"):
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + self._drain
        while loop.time() < end and process.returncode is None:
            if await self._active() == 0:
                return
            await asyncio.sleep(0.05)

    async def _active(self) -> int:
        """Requests and connections that clients still have open; 0 when Envoy does not say."""
        text = await asyncio.to_thread(self._ask, "/stats?filter=^http\\..*downstream_cx_active$", "GET")
        numbers = [line.rpartition(":") for line in text.splitlines() if not line.startswith("http.admin.")]
        return sum(int(number) for _, _, number in numbers if number.strip().isdigit())

    async def _post(self, path: str) -> bool:
        return await asyncio.to_thread(self._ask, path, "POST") != ""

    def _ask(self, path: str, method: str) -> str:
        address = self.admin
        if address is None:
            return ""
        request = urllib.request.Request(f"http://{address}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=ADMIN_TIMEOUT) as answer:  # noqa: S310 - as above
                return str(answer.read().decode())
        except OSError:
            return ""


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 5)
    except TimeoutError:
        process.kill()
        await process.wait()
