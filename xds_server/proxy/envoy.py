"""The Envoy that `xds run` starts: kept running, and drained at the end."""

from __future__ import annotations

import asyncio
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from envoy.config.bootstrap.v3 import bootstrap_pb2

from filters.policy_server import internal_cluster
from xds_server.processes.process import Process
from xds_server.translate.usage_entry import MOST_BATCHES, SERVICE

ADMIN_TIMEOUT = 5.0
_TIMER = 0.2
"""Seconds by which a busy Envoy may send its entries late."""
_USAGE = f"cluster.{internal_cluster(SERVICE)}"
_IDLE = {
    f"{_USAGE}.upstream_rq_active": 0,
    f"{_USAGE}.upstream_rq_pending_active": 0,
    f"{_USAGE}.circuit_breakers.default.remaining_retries": MOST_BATCHES,
}
"""Envoy's statistics when it has no batch of usage without a response."""


_OWN = ("http.admin.", "listener.admin.")
"""Statistics of connections to the admin address."""


class EnvoySupervisor:
    """Keeps one Envoy running. In `bootstrap`, the admin address must have port 0 or an unused port.

    `drain` is the number of seconds that clients get at the end. `flush` returns the seconds for which Envoy collects
    entries of logs before it sends them: at the end, Envoy gets that time, because it throws away the entries that it
    has not sent.
    """

    def __init__(
        self,
        binary: Path,
        bootstrap: bootstrap_pb2.Bootstrap,
        *,
        name: str = "Envoy",
        arguments: Sequence[str] = (),
        log_level: str = "warning",
        drain: float = 5.0,
        flush: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="xds-envoy-")
        self._admin_file = Path(self._folder.name) / "admin"
        file = Path(self._folder.name) / "bootstrap.pb"
        file.write_bytes(bootstrap.SerializeToString(deterministic=True))
        self._drain, self._flush = drain, flush
        command = [
            *(str(binary), "-c", str(file), "-l", log_level, "--use-dynamic-base-id"),
            *("--admin-address-path", str(self._admin_file)),
            *("--drain-time-s", str(max(1, round(drain)))),
            *("--parent-shutdown-time-s", str(max(2, round(drain) + 1))),
            *arguments,
        ]
        self._process = Process(name, command, before=lambda: self._admin_file.unlink(missing_ok=True))

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid

    @property
    def restarts(self) -> int:
        """The number of restarts."""
        return self._process.restarts

    @property
    def admin(self) -> str | None:
        """The ``host:port`` of Envoy's admin interface, or None if no Envoy has started yet."""
        try:
            return self._admin_file.read_text().strip() or None
        except OSError:
            return None

    @property
    def admin_address(self) -> tuple[str, int] | None:
        """The same as host and port."""
        host, _, port = (self.admin or "").rpartition(":")
        return (host.strip("[]"), int(port)) if port else None

    async def start(self) -> None:
        """Start Envoy and keep it running. Raises OSError if the program cannot be started."""
        await self._process.start()

    async def stop(self) -> None:
        """Let Envoy finish its requests for the drain time at most, then end it."""
        await self._process.release()
        if self._process.running:
            await self._drain_connections()
            await self._send_logs()
        await self._process.stop()
        self._folder.cleanup()

    async def _drain_connections(self) -> None:
        if not await asyncio.to_thread(self._call_admin, "/drain_listeners?graceful&skip_exit", "POST"):
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + self._drain
        while loop.time() < end and self._process.running:
            if await self._active() == 0:
                return
            await asyncio.sleep(0.05)

    async def _send_logs(self) -> None:
        """Give Envoy the time to send its last entries, and to get the responses to them."""
        seconds = self._flush()
        if not seconds:
            return
        await asyncio.sleep(seconds + _TIMER)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._drain
        while loop.time() < end and self._process.running:
            text = await asyncio.to_thread(self._call_admin, f"/stats?filter=^{_USAGE}", "GET")
            values = dict(line.rsplit(": ", 1) for line in text.splitlines())
            if all(values.get(name, str(idle)) == str(idle) for name, idle in _IDLE.items()):
                return
            await asyncio.sleep(0.05)

    async def _active(self) -> int:
        """Return the number of open client connections, or 0 if Envoy does not respond."""
        pattern = "^(http|listener)\\..*downstream_cx_active$"
        text = await asyncio.to_thread(self._call_admin, f"/stats?filter={pattern}", "GET")
        numbers = [line.rpartition(":") for line in text.splitlines() if not line.startswith(_OWN)]
        return sum(int(number) for _, _, number in numbers if number.strip().isdigit())

    def _call_admin(self, path: str, method: str) -> str:
        address = self.admin
        if address is None:
            return ""
        request = urllib.request.Request(f"http://{address}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=ADMIN_TIMEOUT) as response:  # noqa: S310 - Envoy's own address
                return str(response.read().decode())
        except OSError:
            return ""
