"""The portal as a process: it follows the gateway, and serves the API and the pages."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uvicorn import Config, Server

from xds_server.background_tasks import in_background
from xds_server.billing import months
from xds_server.billing.closing import SETTLED, close_month
from xds_server.billing.usage_counts import counted_by
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.control_plane.control_loop import ControlLoop
from xds_server.database import DatabaseFailed
from xds_server.errors import EnvironmentFailed
from xds_server.marketplace import products, subscriptions
from xds_server.marketplace.actor import CLOCK, GATEWAY
from xds_server.marketplace.errors import MarketplaceError
from xds_server.marketplace.store import Marketplace
from xds_server.portal.application import application
from xds_server.portal.attempts import Attempts
from xds_server.portal.gateway_view import NOTHING, GatewayView, Viewer
from xds_server.portal.generated_clients import GeneratedClients, installed
from xds_server.portal.pages import web
from xds_server.processes.addresses import failed_to_listen, split
from xds_server.processes.garbage import settle
from xds_server.sources.directory import Directory
from xds_server.sources.gateway_folder import FolderReader, GatewayFolder
from xds_server.usage.store import Store

if TYPE_CHECKING:
    from xds_server.sources.git_source import GitSource

log = logging.getLogger(__name__)

LISTEN = "--listen"
EXPIRY = 30.0
"""Seconds between two looks for subscriptions whose time has come. Their keys have ended by themselves."""
MISSED = 3
"""Months that are closed if that was missed."""
CLOSING = 600.0
"""Seconds between two looks for a month that can be closed."""
AGAIN = 1.0
"""Seconds until products are taken from the gateway again, after the store failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalOptions:
    """The options of `xds portal run`. `gateway` names the Gateway of a folder of manifests. `git` makes the source of a gateway in git, None for a `folder` on disk.

    `usage` is the URL of the usage store, None if there is none. `trusted_proxies` are addresses whose `x-forwarded-for` names the client.
    `typescript_generator` is a program that makes clients in TypeScript, None for no such clients.
    """

    folder: Path
    gateway: tuple[str, str] | None
    git: Callable[[], GitSource] | None
    store: str
    usage: str | None
    listen: str
    typescript_generator: str | None = None
    trusted_proxies: str = "127.0.0.1"
    poll: bool = False


class Following:
    """Keeps the view of the gateway, and the products of the store, as the gateway is now."""

    def __init__(self, marketplace: Marketplace) -> None:
        self.view: GatewayView = NOTHING
        self._marketplace = marketplace
        self._viewer, self._again = Viewer(), asyncio.Event()

    async def publish(self, compiled: Compiled) -> None:
        """Use a gateway."""
        self.view = await asyncio.to_thread(self._viewer.view, compiled.gateway)
        gc.unfreeze()
        settle()  # else a request now and then waits while the collector scans the catalogue
        if not self.view.portal.declared:
            log.warning("the gateway has no portal; add portal: {url: …, gateway: …}")
        self._again.set()

    async def run(self) -> None:
        """Take the products of the gateway into the store after each change, and end subscriptions, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(EXPIRY):
                    await self._again.wait()
            except TimeoutError:
                pass
            self._again.clear()
            try:
                await asyncio.to_thread(self._work, self.view)
            except (DatabaseFailed, EnvironmentFailed) as failure:
                log.error(
                    "the marketplace store failed; trying again store=%s error=%s",
                    self._marketplace.name,
                    failure,
                )
                await asyncio.sleep(AGAIN)
                self._again.set()

    def _work(self, now: GatewayView) -> None:
        if now is not NOTHING:
            try:
                with self._marketplace.begin(GATEWAY) as transaction:
                    products.take_from_gateway(transaction, now.written_products(), now.offered)
            except MarketplaceError as error:
                log.error("the products of the gateway stay as they were: %s", error)
        with self._marketplace.begin(CLOCK) as transaction:
            ended = subscriptions.expire(transaction)
        if ended:
            log.info("subscriptions expired count=%d", ended)


async def serve(options: PortalOptions) -> None:
    """Serve until SIGINT or SIGTERM. Raises EnvironmentFailed, WrongUsage."""
    marketplace = Marketplace(options.store)
    clients = GeneratedClients(installed(options.typescript_generator))
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        stack.callback(marketplace.close)
        try:
            await asyncio.to_thread(marketplace.migrate)
        except DatabaseFailed as failure:
            raise EnvironmentFailed(f"the marketplace store cannot be used: {failure}") from None
        following = Following(marketplace)
        source = options.git() if options.git is not None else Directory(options.folder, poll=options.poll)
        control = ControlLoop(
            GatewayFolder(source, FolderReader(options.gateway)),
            Compiler(translates=False),
            following.publish,
            same=_never,
        )
        usage = _usage(options, stack)
        pages = web.routes(marketplace, lambda: following.view, Attempts(), usage, clients)
        app = application(marketplace, lambda: following.view, Attempts(), pages, usage)
        listening = listening_socket(options.listen)
        stack.callback(listening.close)
        server = Server(_config(app, options))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined] # ours end it
        for work in (control.run(), following.run()):
            in_background(work, stack)
        if usage is not None:
            in_background(_close_months(marketplace, usage), stack)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        log.info("portal started address=http://%s", options.listen)
        await asyncio.wait({serving, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        server.should_exit = True
        await serving


def _never(_before: Compiled, _after: Compiled) -> bool:
    """Say that every state is another one: pages show more than Envoys are sent."""
    return False


def _usage(options: PortalOptions, stack: AsyncExitStack) -> Store | None:
    """Open the usage store, if there is one. The usage server may not have made it yet. Raises WrongUsage."""
    if options.usage is None:
        return None
    usage = Store(options.usage)
    stack.callback(usage.close)
    return usage


async def _close_months(marketplace: Marketplace, usage: Store) -> None:
    """Close each month when it has settled, also those that were missed, until cancelled."""
    while True:
        now = time.time()
        settled = [months.before(months.of(now - SETTLED))]
        while len(settled) < MISSED:
            settled.append(months.before(settled[-1]))
        for period in reversed(settled):
            try:
                done = await asyncio.to_thread(close_month, marketplace, counted_by(usage), period, now)
                if done.statements:
                    log.info("statements closed period=%s count=%d", period, len(done.statements))
                for one in done.failed:
                    log.error("a statement could not be closed; trying again period=%s error=%s", period, one)
            except (DatabaseFailed, EnvironmentFailed, MarketplaceError) as error:
                log.error("the month could not be closed; trying again period=%s error=%s", period, error)
                break
        await asyncio.sleep(CLOSING)


def _config(app: object, options: PortalOptions) -> Config:
    return Config(
        app,  # type: ignore[arg-type] # an ASGI application
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        proxy_headers=True,
        forwarded_allow_ips=options.trusted_proxies,
        log_config=None,
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
    )


def listening_socket(address: str) -> socket.socket:
    """Return a socket that listens at an address. Raises EnvironmentFailed, WrongUsage."""
    host, port = split(LISTEN, address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise failed_to_listen(LISTEN, address, error) from None
    # Connections inherit it. asyncio does not set it, because it does not know that this is a socket of TCP. Without it, the
    # body of a response waits until the client has acknowledged the head, which clients delay by 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
