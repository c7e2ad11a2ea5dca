"""A policy server from its start to its end: it gets its rules, says that it is healthy, serves, and drains."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from envoy.config.core.v3 import base_pb2
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from filters.policy_server import NODE_CLUSTER
from filters.rules import Service
from xds_server.admin import NONE, Actions, Admin, Page, Pages
from xds_server.policy_server.delta_client import DeltaClient, Tls
from xds_server.policy_server.grpc_servers import Kind
from xds_server.policy_server.rules_journal import LastRules
from xds_server.policy_server.rules_stream import HeldRules
from xds_server.policy_server.server import PolicyServer
from xds_server.processes.addresses import failed_to_listen, split
from xds_server.processes.garbage import Pauses, settle
from xds_server.processes.listening_ports import shares_a_port
from xds_server.unary_server.accepting import Shared

log = logging.getLogger(__name__)

LISTEN, ADMIN = "--listen", "--admin"
"""Flags of `xds policy-server` for the addresses at which it listens."""
NOBODY = "none"
"""As the control plane's address: there is none, and nothing to wait for."""
PATIENCE = 3.0
"""Seconds that a control plane which neither answers nor refuses gets before the last good rules decide."""

Make = Callable[[CollectorRegistry], Service]
"""Makes a service, whose metrics go into the registry, in the event loop that uses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `xds policy-server` was asked for. `xds` and `listen` are ``HOST:PORT`` or ``unix:/PATH``; `xds` may be NOBODY.

    `tls` is for the control plane. `admin` is where probes and metrics are, None for nowhere; a port of 0 is any free one. `drain` is the number of
    seconds that requests under way get at the end. A worker among several accepts from sockets `listening` that they
    share. `own_counters` says that limits are counted by this server alone.
    `state` is the file of the last good rules, which is only read unless this process `keeps` it.
    """

    xds: str
    listen: str
    admin: str | None = None
    node_id: str = ""
    tls: Tls | None = None
    drain: float = 5.0
    grpc: Kind = "native"
    listening: Sequence[Shared] = ()
    own_counters: bool = False
    state: Path | None = None
    keeps: bool = True


async def serve(options: Options, makes: Sequence[Make], registry: CollectorRegistry) -> None:
    """Serve until SIGINT or SIGTERM. Raises EnvironmentFailed."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    services = [make(registry) for make in makes]
    server, complete = PolicyServer(services, options.grpc), asyncio.Event()
    rules = HeldRules(table for service in services for table in service.tables)
    state = LastRules(options.state, keeps=options.keeps) if options.state is not None else None
    restored = state is not None and state.restore(rules)
    client = DeltaClient(rules, options.xds, _node(options), complete.set, options.tls, state)
    admin = _admin(
        options.admin, {**_pages(server, client, rules, registry), **_read(services)}, _done(services)
    )
    following: asyncio.Task[None] = asyncio.create_task(_follow(client, options.xds, complete))
    pauses = Pauses()
    pauses.watch()
    try:
        if await _before(stop, _enough(complete, client, restored), following):
            await _listen(server, options, rules)
            await _before(stop, following)
    finally:
        log.info("draining")
        await server.stop(options.drain)
        following.cancel()
        await asyncio.wait({following})
        pauses.end()
        if admin is not None:
            admin.stop()


async def _follow(client: DeltaClient, xds: str, complete: asyncio.Event) -> None:
    if xds == NOBODY:
        complete.set()
        await asyncio.Event().wait()
    log.info("asking the control plane at %s for rules", xds)
    await client.run()


async def _enough(complete: asyncio.Event, client: DeltaClient, restored: bool) -> None:
    """Until there are rules to decide by: those of the control plane, or the last good ones when it is away."""
    if not restored:
        await complete.wait()
        return
    waiting = {asyncio.ensure_future(one.wait()) for one in (complete, client.away)}
    await asyncio.wait(waiting, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    for one in waiting:
        one.cancel()
    if not complete.is_set():
        log.warning("the control plane is away; deciding by the last good rules until it is there")


async def _listen(server: PolicyServer, options: Options, rules: HeldRules) -> None:
    """Only now: a process without rules must take no connections from those that share its port."""
    try:
        address = await server.start(options.listen, options.listening)
    except OSError as error:
        raise failed_to_listen(LISTEN, options.listen, error) from None
    if options.own_counters and shares_a_port():
        log.warning(
            "another process listens on %s too: each counts limits in its own memory, so that more than a "
            "limit passes; stop one of them, or give both the same --counters redis://HOST:PORT",
            address,
        )
    settle()
    server.healthy = True
    log.info("ready at %s with %s", address, " ".join(f"{name}={n}" for name, n in rules.counts().items()))


async def _before(stop: asyncio.Event, *others: Awaitable[object]) -> bool:
    """Wait for the first of the others, and raise what it raises; False when `stop` is set before."""
    stopping = asyncio.ensure_future(stop.wait())
    tasks = [asyncio.ensure_future(one) for one in others]
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    for task in tasks:
        if task in done:
            task.result()
    return stopping not in done


def _read(services: Sequence[Service]) -> Pages:
    found = [pair for service in services for pair in service.pages.items()]
    return {path: partial(lambda page: Page.of(page()), page) for path, page in found}


def _done(services: Sequence[Service]) -> Actions:
    found = [pair for service in services for pair in service.actions.items()]
    return {path: partial(lambda action, text: Page.of(action(text)), action) for path, action in found}


def _admin(address: str | None, pages: Pages, actions: Actions) -> Admin | None:
    if address is None:
        return None
    return listen_admin(address, pages, actions)


def listen_admin(address: str, pages: Pages, actions: Actions = NONE) -> Admin:
    """Answer pages and take actions. Raises EnvironmentFailed when the address is taken."""
    host, port = split(ADMIN, address)
    try:
        admin = Admin(host, port, pages, actions)
    except OSError as error:
        raise failed_to_listen(ADMIN, address, error) from None
    admin.start()
    log.info("admin at %s", admin.url)
    return admin


def _pages(server: PolicyServer, client: DeltaClient, rules: HeldRules, registry: CollectorRegistry) -> Pages:
    return {
        "/healthz": lambda: Page.of({"status": "ok"}),
        "/ready": lambda: Page.of({"ready": server.healthy}, 200 if server.healthy else 503),
        "/status": lambda: Page.of(_status(server, client, rules)),
        "/metrics": lambda: Page(200, generate_latest(registry), CONTENT_TYPE_LATEST),
    }


def _status(server: PolicyServer, client: DeltaClient, rules: HeldRules) -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "ready": server.healthy,
        "control_plane_connected": client.connected,
        "restored": not rules.complete,
        "under_way": server.busy,
        "rules": dict(rules.counts()),
        "refused": dict(rules.refused),
    }


def _node(options: Options) -> base_pb2.Node:
    name = options.node_id or f"policy-server@{socket.gethostname()}"
    return base_pb2.Node(id=name, cluster=NODE_CLUSTER, user_agent_name="xds policy-server")
