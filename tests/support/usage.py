"""Entries and Export messages as Envoy makes them, and a usage server as a process of its own."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import grpc
import httpx

from protos.usage_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from tests.support.ports import free_port
from tests.support.server_process import ServerProcess
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


class UsageServer(ServerProcess):
    """`xds usage-server` with more arguments, its files in `folder`. Use as a context manager."""

    def __init__(
        self, folder: Path, *arguments: str, store: str | None = None, port: int | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.address = f"127.0.0.1:{port or free_port()}"
        admin = f"127.0.0.1:{free_port()}"
        self.store = store or f"sqlite:///{folder}/usage.db"
        self.spool = folder / "spool"
        command = ("usage-server", "--listen", self.address, "--admin", admin, "--store", self.store)
        files = ("--spool", str(self.spool))
        log = folder / "usage-server.log"
        super().__init__("the usage server", (*command, *files, *arguments), admin, log, "/healthz")

    def start(self) -> None:
        """Start it, and wait until it is there."""
        super().start()
        self.ready()

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
