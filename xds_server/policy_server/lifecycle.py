"""The life of a policy server: it gets its rules, reports itself healthy, serves, and drains."""

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
from typing import Any, Protocol

from envoy.config.core.v3 import base_pb2
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from filters.policy_server import NODE_CLUSTER, SUBSCRIBERS_CLUSTER
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
"""The value of `xds` if there is no control plane."""
PATIENCE = 3.0
"""Seconds without a response of the control plane after which the last good rules are used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What a server is for the control plane: the prefix of its node's id, its node's cluster, and the command.

    `freezes` is true if what survives a long garbage collection lives long (xds_server.processes.garbage.Pauses). It is
    false if that may be large answers in cycles of references.
    """

    name: str
    cluster: str
    command: str
    freezes: bool = True


POLICY_SERVER = Role(name="policy-server", cluster=NODE_CLUSTER, command="xds policy-server")


class Serving(Protocol):
    """A server with a life. `healthy` says whether its rules have arrived, `busy` how many requests are in progress."""

    healthy: bool

    @property
    def busy(self) -> int: ...

    async def start(self, address: str, shared: Sequence[Shared] = ()) -> str: ...

    async def stop(self, grace: float) -> None: ...


Make = Callable[[CollectorRegistry], Service]
"""Makes a service, whose metrics are in the registry. It is called in the event loop that uses the service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyServerOptions:
    """The options of `xds policy-server`.

    `xds` and `listen` are ``HOST:PORT`` or ``unix:/PATH``; `xds` may be NOBODY. `tls` is for the control plane.
    `admin` is the address of probes and metrics, None for none; a port of 0 means any free port. `drain` is the
    number of seconds that requests in progress get at the end.

    If there are several workers, each accepts from the shared sockets `listening`. `own_counters` is true if only
    this server counts its limits. `state` is the file of the last good rules; a process without `keeps` only reads
    it.
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
    role: Role = POLICY_SERVER
    server: Callable[[Sequence[Service], Kind], Serving] = PolicyServer
    """Makes the server of the services. It is called in the event loop that uses the server."""


async def serve(options: PolicyServerOptions, makes: Sequence[Make], registry: CollectorRegistry) -> None:
    """Serve until SIGINT or SIGTERM. Raises EnvironmentFailed."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    services = [make(registry) for make in makes]
    server, complete = options.server(services, options.grpc), asyncio.Event()
    rules = HeldRules(table for service in services for table in service.tables)
    subscribers = _subscribers(options, services)
    state = LastRules(options.state, keeps=options.keeps) if options.state is not None else None
    restored = state is not None and state.restore(rules)
    client = DeltaClient(rules, options.xds, _node(options), complete.set, options.tls, state)
    admin = _admin(
        options.admin, {**_pages(server, client, rules, registry), **_read(services)}, _done(services)
    )
    following: asyncio.Task[None] = asyncio.create_task(_follow(client, options.xds, complete, subscribers))
    pauses = Pauses() if options.role.freezes else None
    if pauses is not None:
        pauses.watch()
    try:
        if await _before(stop, _enough(complete, client, restored), following):
            await _listen(server, options, rules)
            await _before(stop, following)
    finally:
        log.info("draining")
        await server.stop(options.drain)
        while not following.done():  # a library on the way may lose a cancellation
            following.cancel()
            await asyncio.wait({following}, timeout=1.0)
        if pauses is not None:
            pauses.end()
        if admin is not None:
            admin.stop()


def _subscribers(options: PolicyServerOptions, services: Sequence[Service]) -> DeltaClient | None:
    """Return the client of the stream of subscriptions, with those of an earlier process; None if they are not wanted."""
    tables = [table for service in services for table in service.subscribers]
    if not tables:
        return None
    held, state = HeldRules(tables), None
    if options.state is not None:
        state = LastRules(options.state.with_name(f"{options.state.name}.subscribers"), keeps=options.keeps)
        state.restore(held)
    node = _node(options, SUBSCRIBERS_CLUSTER)
    return DeltaClient(held, options.xds, node, lambda: None, options.tls, state)


async def _follow(
    client: DeltaClient, xds: str, complete: asyncio.Event, subscribers: DeltaClient | None
) -> None:
    if xds == NOBODY:
        complete.set()
        await asyncio.Event().wait()
    log.info("requesting rules from the control plane address=%s", xds)
    if subscribers is None:
        await client.run()
    else:
        await asyncio.gather(client.run(), subscribers.run())


async def _enough(complete: asyncio.Event, client: DeltaClient, restored: bool) -> None:
    """Wait for rules: those of the control plane, or the last good rules if it does not respond."""
    if not restored:
        await complete.wait()
        return
    waiting = {asyncio.ensure_future(event.wait()) for event in (complete, client.away)}
    await asyncio.wait(waiting, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    for event in waiting:
        event.cancel()
    if not complete.is_set():
        log.warning("the control plane does not respond; deciding by the last good rules until it does")


async def _listen(server: Serving, options: PolicyServerOptions, rules: HeldRules) -> None:
    """Listen only now: a process without rules must not accept connections from processes that share its port."""
    try:
        address = await server.start(options.listen, options.listening)
    except OSError as error:
        raise failed_to_listen(LISTEN, options.listen, error) from None
    if options.own_counters and shares_a_port():
        log.warning(
            "another process listens on %s too, and each counts in its own memory, so that more requests pass than "
            "a limit allows; stop one of them, or give both the same --counters redis://HOST:PORT",
            address,
        )
    settle()
    server.healthy = True
    log.info("ready address=%s %s", address, " ".join(f"{name}={n}" for name, n in rules.counts().items()))


async def _before(stop: asyncio.Event, *others: Awaitable[object]) -> bool:
    """Wait for the first of the others, and raise its error. Returns False if `stop` is set first."""
    stopping = asyncio.ensure_future(stop.wait())
    tasks = [asyncio.ensure_future(other) for other in others]
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    for task in tasks:
        if task in done:
            task.result()
    return stopping not in done


def _read(services: Sequence[Service]) -> Pages:
    pages = [pair for service in services for pair in service.pages.items()]
    return {path: partial(lambda page: Page.of(page()), page) for path, page in pages}


def _done(services: Sequence[Service]) -> Actions:
    actions = [pair for service in services for pair in service.actions.items()]
    return {
        path: partial(lambda action, one: Page.of(action(one.text())), action) for path, action in actions
    }


def _admin(address: str | None, pages: Pages, actions: Actions) -> Admin | None:
    if address is None:
        return None
    return listen_admin(address, pages, actions)


def listen_admin(address: str, pages: Pages, actions: Actions = NONE) -> Admin:
    """Serve pages and actions. Raises EnvironmentFailed if the address is in use."""
    host, port = split(ADMIN, address)
    try:
        admin = Admin(host, port, pages, actions)
    except OSError as error:
        raise failed_to_listen(ADMIN, address, error) from None
    admin.start()
    log.info("admin server started address=%s", admin.url)
    return admin


def _pages(server: Serving, client: DeltaClient, rules: HeldRules, registry: CollectorRegistry) -> Pages:
    return {
        "/healthz": lambda: Page.of({"status": "ok"}),
        "/ready": lambda: Page.of({"ready": server.healthy}, 200 if server.healthy else 503),
        "/status": lambda: Page.of(_status(server, client, rules)),
        "/metrics": lambda: Page(200, generate_latest(registry), CONTENT_TYPE_LATEST),
    }


def _status(server: Serving, client: DeltaClient, rules: HeldRules) -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "ready": server.healthy,
        "control_plane_connected": client.connected,
        "restored": not rules.complete,
        "under_way": server.busy,
        "rules": dict(rules.counts()),
        "refused": dict(rules.refused),
    }


def _node(options: PolicyServerOptions, cluster: str | None = None) -> base_pb2.Node:
    role = options.role
    name = options.node_id or f"{role.name}@{socket.gethostname()}"
    return base_pb2.Node(id=name, cluster=cluster or role.cluster, user_agent_name=role.command)
