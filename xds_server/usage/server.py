"""The life of a usage server: it listens, spools what it gets, counts it in the store, and drains."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpc_health.v1 import health_pb2
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from filters.unary import UnaryMethod
from xds_server.admin import Admin, Page, Pages
from xds_server.processes.addresses import failed_to_listen, split
from xds_server.unary_server.events import ServerLimits
from xds_server.unary_server.server import UnaryServer
from xds_server.usage.metrics import UsageMetrics
from xds_server.usage.roller import Roller
from xds_server.usage.service import Export
from xds_server.usage.spool import LIMIT, Spool
from xds_server.usage.store import Store

log = logging.getLogger(__name__)

LISTEN, ADMIN = "--listen", "--admin"
"""Flags of `xds usage-server` for the addresses at which it listens."""
_LIMITS = ServerLimits(max_streams=100_000, window=8 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageServerOptions:
    """The options of `xds usage-server`.

    `listen` and `admin` are ``HOST:PORT`` or ``unix:/PATH``; `admin` is None for none. `store` is a URL. `spool_limit`
    is in bytes. `drain` is the number of seconds that the server gets at the end to count what it has.
    """

    listen: str
    store: str
    spool: Path
    admin: str | None = None
    spool_limit: int = LIMIT
    drain: float = 5.0


async def serve(options: UsageServerOptions) -> None:
    """Serve until SIGINT or SIGTERM. Raises EnvironmentFailed, WrongUsage."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics, store = UsageMetrics(CollectorRegistry()), Store(options.store)
    spooled = Spool(options.spool, limit=options.spool_limit)
    roller = Roller(spooled, store, metrics)
    export = Export(spooled, metrics, lambda: roller.age)
    server = UnaryServer([export.method(), _health()], limits=_LIMITS)
    metrics.read(
        spool=lambda: spooled.size, oldest=lambda: roller.age, connections=lambda: server.connections
    )
    admin = _admin(options.admin, _pages(metrics, spooled, roller, export))
    spooled.start()
    roller.start()
    try:
        try:
            await server.start(options.listen, reuse_port=not options.listen.startswith("unix:"))
        except OSError as error:
            raise failed_to_listen(LISTEN, options.listen, error) from None
        log.info("usage server ready address=%s store=%s spool=%s", options.listen, store.name, options.spool)
        await stop.wait()
    finally:
        log.info("usage server draining")
        await server.drain(options.drain)
        if not await asyncio.to_thread(roller.stop, options.drain):
            log.warning("some entries stay in the spool until the next start spool=%s", options.spool)
        await asyncio.to_thread(spooled.stop)
        if admin is not None:
            admin.stop()


def _admin(address: str | None, pages: Pages) -> Admin | None:
    if address is None:
        return None
    host, port = split(ADMIN, address)
    try:
        admin = Admin(host, port, pages)
    except OSError as error:
        raise failed_to_listen(ADMIN, address, error) from None
    admin.start()
    log.info("admin server started address=%s", admin.url)
    return admin


def _pages(metrics: UsageMetrics, spooled: Spool, roller: Roller, export: Export) -> Pages:
    def ready() -> Page:
        """Not ready is a server that takes no entries. If the store is away, it takes them."""
        if export.full:
            return Page.of({"ready": False, "because": ["the spool is full"]}, 503)
        return Page.of({"ready": True})

    def status() -> dict[str, Any]:
        return {
            "process": os.getpid(),
            "spool_bytes": spooled.size,
            "spool_full": export.full,
            "oldest_seconds": round(roller.age, 1),
            "store_failure": roller.failure,
        }

    return {
        "/healthz": lambda: Page.of({"status": "ok"}),
        "/ready": ready,
        "/status": lambda: Page.of(status()),
        "/metrics": lambda: Page(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST),
    }


def _health() -> UnaryMethod:
    status = health_pb2.HealthCheckResponse
    return UnaryMethod(
        path="/grpc.health.v1.Health/Check",
        parse=health_pb2.HealthCheckRequest.FromString,
        call=lambda _request: status(status=status.SERVING),
        serialize=status.SerializeToString,
    )
