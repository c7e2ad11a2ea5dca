"""Entries and Export messages as Envoy makes them, and a usage server as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Self

import grpc
import httpx

from protos.usage_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from tests.support.ports import free_port
from tests.support.running import ROOT
from tests.support.wait import ProcessEndedError, wait_for
from xds_server.errors import EnvironmentFailed
from xds_server.usage.service import EXPORT
from xds_server.usage.store import Question, Store


def entry(
    *,
    identity: str | None = None,
    start: int | str = 1_800_000_000,
    status: int | str = 200,
    received: int | str = 1,
    sent: int | str = 2,
    lasted: int | str = 3,
    route: str = "users",
    consumer: str = "acme",
    plan: str = "gold",
    version: str = "1",
) -> str:
    """Return an entry. Its `identity` is a new UUID unless one is given."""
    fields = (
        version,
        identity or str(uuid.uuid4()),
        start,
        status,
        received,
        sent,
        lasted,
        route,
        consumer,
        plan,
    )
    return "\t".join(map(str, fields))


def message(entries: Iterable[str | bytes]) -> bytes:
    """Return an Export message with these entries."""
    export = ExportLogsServiceRequest()
    records = export.resource_logs.add().scope_logs.add().log_records
    for one in entries:
        records.add().body.string_value = one if isinstance(one, bytes) else one.encode()
    return export.SerializeToString()


def export(address: str, payload: bytes, seconds: float = 20.0) -> ExportLogsServiceResponse:
    """Send a message to a usage server. Raises grpc.RpcError."""
    with grpc.insecure_channel(address) as channel:
        method = channel.unary_unary(EXPORT, response_deserializer=ExportLogsServiceResponse.FromString)
        return method(payload, timeout=seconds, wait_for_ready=True)


class UsageServer:
    """`xds usage-server` with more arguments, its files in `folder`. Use as a context manager."""

    def __init__(
        self, folder: Path, *arguments: str, store: str | None = None, port: int | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.address = f"127.0.0.1:{port or free_port()}"
        self.admin = f"127.0.0.1:{free_port()}"
        self.store = store or f"sqlite:///{folder}/usage.db"
        self.spool = folder / "spool"
        self._log = folder / "usage-server.log"
        self._command = [
            *(sys.executable, "-m", "xds_server", "usage-server", "--listen", self.address),
            *("--admin", self.admin, "--store", self.store, "--spool", str(self.spool), *arguments),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        with self._log.open("ab") as log:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)
        wait_for(self._answers, lambda: f"the usage server; the log:\n{self.log[-3000:]}")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise ProcessEndedError(
                f"the usage server ended with {self.process.returncode}:\n{self.log[-3000:]}"
            )
        return httpx.get(f"http://{self.admin}/healthz").status_code == 200

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal; returns the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def says(self, text: str) -> None:
        wait_for(lambda: text in self.log, lambda: f"{text!r} in the log:\n{self.log[-3000:]}")

    def export(self, *entries: str) -> ExportLogsServiceResponse:
        return export(self.address, message(entries))

    def metric(self, name: str) -> float:
        """Return the value of a metric, such as ``xds_usage_counted_total{outcome="counted"}``."""
        text = httpx.get(f"http://{self.admin}/metrics").text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def requests(self) -> int:
        """Return the number of requests in the store."""
        return requests(self.store)


def requests(url: str) -> int:
    """Return the number of requests in a store. A server that has just started has not made it yet."""
    try:
        with closing(Store(url, reads=True)) as store:
            return int(store.report(Question())[0]["requests"])
    except EnvironmentFailed:
        return 0
