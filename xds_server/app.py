"""The composition root: the only module that constructs and connects the parts."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import grpc

from filters.policy_server import NODE_CLUSTER as POLICY_SERVERS
from filters.policy_server import SERVICE, internal_cluster
from filters.policy_server import SUBSCRIBERS_CLUSTER as SUBSCRIBERS
from xds_server import admin_pages, followed_marketplace, git_pages, rollout_stores
from xds_server.admin import Admin
from xds_server.admin_pages import rollout_actions, rollout_pages
from xds_server.background_tasks import in_background
from xds_server.commit_outcomes import CommitOutcomes
from xds_server.control_plane.change_log import ChangeLog, show_status
from xds_server.control_plane.compiler import Compiler
from xds_server.control_plane.control_loop import ControlLoop, GatewayState
from xds_server.control_plane.fleet import EnvoyState, Fleet
from xds_server.control_plane.metrics import GatewayMetrics
from xds_server.control_plane.preview_metrics import PreviewMetrics
from xds_server.control_plane.previews import Parts, Previews
from xds_server.control_plane.progressive_rollout import ProgressiveRollout
from xds_server.control_plane.prover import PROVING, Prover, proving_envoy
from xds_server.control_plane.publication import Publication
from xds_server.control_plane.readiness import ReadinessLog
from xds_server.control_plane.releases import adapted
from xds_server.control_plane.rollout_agreement import Agreement
from xds_server.control_plane.rollout_metrics import RolloutMetrics
from xds_server.control_plane.rollout_serving import RolloutServing, current_rollout
from xds_server.control_plane.status import StatusReader, served_version
from xds_server.discovery.node import Node
from xds_server.discovery.stream import StreamLimits
from xds_server.errors import EnvironmentFailed
from xds_server.local_services import LocalServices, local_services
from xds_server.own_console import open_console
from xds_server.own_envoy import own_envoy
from xds_server.processes import garbage_collector, open_files
from xds_server.processes.addresses import Wanted, ensure_free, failed_to_listen, split
from xds_server.proxy.envoy import EnvoySupervisor
from xds_server.restart_state import restore
from xds_server.run_options import ADMIN, CONSOLE, LARGE_FLEET, MAX_STREAMS, XDS, RunOptions
from xds_server.serving import groups, metrics, tls
from xds_server.serving.load_reports import LoadReports
from xds_server.serving.server import XdsServer
from xds_server.serving.services import ClientState, Services
from xds_server.serving.store import Store
from xds_server.serving.tls import Files
from xds_server.sources.directory import Directory
from xds_server.sources.gateway_folder import FolderReader, GatewayFolder
from xds_server.sources.git_source import GitSource
from xds_server.translate.composer_entry import NODE_CLUSTER as COMPOSERS
from xds_server.translate.stand_ins import stand_in
from xds_server.translate.usage_entry import SERVICE as USAGE

log = logging.getLogger(__name__)


async def serve(options: RunOptions) -> None:
    """Serve a folder until SIGINT or SIGTERM. Raises EnvironmentFailed, WrongUsage."""
    wanted = [Wanted(flag=XDS, address=options.xds), Wanted(flag=ADMIN, address=options.admin)]
    if options.console is not None and options.console_asked:
        wanted.append(Wanted(flag=CONSOLE, address=options.console))
    ensure_free(*wanted)
    garbage_collector.tune()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        services = await local_services(options, stack)
        running = _Running()
        control, store = await _control_plane(options, services, running, stack)
        envoy = (
            await stack.enter_async_context(own_envoy(options, services.xds, control))
            if options.proxy
            else None
        )
        running.envoy = envoy
        store.observe(ReadinessLog(control.serving, store, envoy).observe)
        if options.show_status is not None:
            states = partial(_states, running, store)
            in_background(show_status(options.show_status, control.serving, states), stack)
        following = in_background(control.run(), stack)
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


def _states(running: _Running, store: Store) -> list[EnvoyState]:
    return running.fleet.states(partial(store.current, "")) if running.fleet is not None else []


async def _control_plane(
    options: RunOptions, services: LocalServices, running: _Running, stack: AsyncExitStack
) -> tuple[ControlLoop, Store]:

    def serving(group: str) -> GatewayState:
        return previews.serving(group) or control.serving

    store = _store(serving)
    fleet = _fleet(serving)
    prover = _prover(store, serving) if options.prove else None
    start = {internal_cluster(name): service.ensure for name, service in services.own.items()}
    publication = Publication(store, fleet, start, prover)
    git = options.git.source() if options.git is not None else None
    folder = _folder(options, git)
    compiler = _compiler(options, services)
    running.fleet = fleet
    reports = LoadReports()

    def streams() -> tuple[Services, Services]:
        return public.services, local.services

    def clients() -> Iterable[ClientState]:
        return chain.from_iterable(services.clients() for services in streams())

    agreement = rollout_stores.agreement(options.rollout_store, options.rollout_name, stack)
    versions = RolloutServing(publication, store, clients, lambda compiled: previews.declare(compiled))
    rollout = _rollout(versions, agreement, store, reports, lambda: control.serving, git)
    outcomes = _outcomes(options, git, store, rollout, stack)
    previews = _previews(options, services, store, fleet, outcomes, streams)
    changes = ChangeLog(fleet, partial(store.current, ""))
    published = followed_marketplace.warning(options.marketplace, changes.published)
    control = ControlLoop(
        *(folder, compiler, rollout.publish, published, outcomes.judged), unchanged=rollout.unchanged
    )
    for part in (fleet, rollout, previews, *(() if prover is None else (prover,))):
        store.observe(part.observe)
    counted = _metrics(store, control.serving, fleet, rollout, previews)
    if options.state is not None:
        control.serving.restored = restore(options.state, store, services, rollout, previews, stack)
    in_background(rollout.run(), stack)
    in_background(previews.run(), stack)
    most = _max_streams(options.max_streams)
    public, local = _servers(options, most, store, reports, previews)
    address = await _serve(options, services, public, local, stack)
    status = StatusReader(
        gateway=control.serving,
        fleet=fleet,
        store=store,
        prover=prover,
        clients=clients,
        policy_server=services.admin(SERVICE),
        pin=lambda: git.pins.pin if git is not None else None,
        rollout=rollout,
        previews=previews,
        subscriptions=followed_marketplace.follow(options.marketplace, store, control.serving, stack),
    )
    admin = _admin(options, services, running, status, counted, git, stack)
    await open_console(
        options,
        services,
        lambda: running.envoy.admin_address if running.envoy is not None else None,
        status,
        stack,
    )
    await _begin(options, services, prover, publication if control.serving.restored else None, stack)
    log.info("control plane started xds=%s admin=%s", address, admin.url)
    return control, store


async def _begin(
    options: RunOptions,
    services: LocalServices,
    prover: Prover | None,
    restored: Publication | None,
    stack: AsyncExitStack,
) -> None:
    """Start the proving Envoy, and serve what a state file had, if there are such."""
    if prover is not None:
        prover.available = await proving_envoy(options.envoy, services.xds, stack)
    if restored is not None:
        await restored.resume()


def _compiler(options: RunOptions, services: LocalServices) -> Compiler:
    return Compiler(
        internal_services=services.addresses, composer_calls=services.composer_calls, shape=options.shape
    )


def _fleet(serving: Callable[[str], GatewayState]) -> Fleet:
    return Fleet(
        lambda group, type_, name: serving(group).place_of(type_, name),
        proving=PROVING,
        unseen=(SUBSCRIBERS,),
    )


def _prover(store: Store, serving: Callable[[str], GatewayState]) -> Prover:
    return Prover(store, place=lambda path: str(serving("").place(path) or ""))


def _store(serving: Callable[[str], GatewayState]) -> Store:
    return Store(
        quarantine=True,
        release_of=_release,
        adapt=lambda snapshot, release: adapted(serving(""), snapshot, release),
        stand_in=stand_in,
        place=lambda group: lambda type_, name: str(serving(group).place_of(type_, name) or ""),
    )


def _folder(options: RunOptions, git: GitSource | None) -> GatewayFolder:
    source = git if git is not None else Directory(options.folder, poll=options.poll)
    return GatewayFolder(source, FolderReader(options.gateway))


def _outcomes(
    options: RunOptions,
    git: GitSource | None,
    store: Store,
    rollout: ProgressiveRollout,
    stack: AsyncExitStack,
) -> CommitOutcomes:
    forge = options.git.forge if options.git is not None else None
    outcomes = CommitOutcomes(git, forge, store.held, rollout)
    in_background(outcomes.run(), stack)
    return outcomes


def _previews(
    options: RunOptions,
    services: LocalServices,
    store: Store,
    fleet: Fleet,
    outcomes: CommitOutcomes,
    streams: Callable[[], Iterable[Services]],
) -> Previews:
    parts = Parts(
        store=store,
        fleet=fleet,
        services=services,
        branch=options.git.branch if options.git is not None else None,
        gateway=options.gateway,
        shape=options.shape,
        judged=outcomes.judged_preview,
    )
    return Previews(parts, streams)


def _rollout(
    versions: RolloutServing,
    agreement: Agreement,
    store: Store,
    reports: LoadReports,
    serving: Callable[[], GatewayState],
    git: GitSource | None,
) -> ProgressiveRollout:
    """Return the rollout of new versions. A pinned commit reaches all Envoys at once, because an operator has chosen it."""

    def commit() -> str:
        version = serving().version
        return version.id if version is not None else ""

    return ProgressiveRollout(
        *(versions, agreement, store, reports),
        plan=lambda: current_rollout(serving().compiled),
        at_once=lambda: git is not None and git.pins.holds(commit()),
        commit=commit,
    )


def _metrics(
    store: Store, serving: GatewayState, fleet: Fleet, rollout: ProgressiveRollout, previews: Previews
) -> metrics.Metrics:
    counted = metrics.Metrics(store)
    store.observe(counted.observe)
    served, version = partial(store.current, ""), lambda: served_version(serving, rollout.state)
    GatewayMetrics(serving, fleet, served, counted.registry, version)
    RolloutMetrics(
        lambda: rollout.state,
        lambda: rollout.plan,
        rollout.outcomes,
        lambda: rollout.problem,
        counted.registry,
    )
    PreviewMetrics(previews.states, counted.registry)
    return counted


def _admin(
    options: RunOptions,
    services: LocalServices,
    running: _Running,
    status: StatusReader,
    counted: metrics.Metrics,
    git: GitSource | None,
    stack: AsyncExitStack,
) -> Admin:
    """Start the admin address. Raises EnvironmentFailed if it is taken."""
    rollout = status.rollout
    sources = partial(admin_pages.metric_sources, services, lambda: running.envoy)
    pages = {
        **admin_pages.pages(status, counted, sources, services.admin(USAGE)),
        **rollout_pages(rollout),
    }
    secret = options.git.webhook_secret if options.git is not None else None
    actions = {**rollout_actions(rollout), **git_pages.actions(git, secret, status.previews.notify)}
    host, port = split(ADMIN, options.admin)
    try:
        admin = Admin(host, port, pages, actions)
    except OSError as error:
        raise failed_to_listen(ADMIN, options.admin, error) from None
    admin.start()
    stack.callback(admin.stop)
    return admin


def _servers(
    options: RunOptions, most: int, store: Store, reports: LoadReports, previews: Previews
) -> tuple[XdsServer, XdsServer]:
    """Return two servers on one store: one for the fleet, with at `most` so many streams, and one for the processes on
    this machine."""
    everybody = (
        groups.Rule(group=SUBSCRIBERS, cluster=SUBSCRIBERS),
        groups.Rule(group=POLICY_SERVERS, cluster=POLICY_SERVERS),
        groups.Rule(group=COMPOSERS, cluster=COMPOSERS),
        groups.Rule(group=""),
    )
    fleet = tuple(replace(rule, identities=options.identities) for rule in everybody)
    on_this_machine = (groups.Rule(group=PROVING, cluster=PROVING), *everybody)
    public = XdsServer(
        store,
        group_of=previews.group_of(groups.Groups(*fleet)),
        max_streams=most,
        secrets_anywhere=options.secrets_anywhere,
        credentials=_credentials(options.tls) if options.tls else None,
        load_reports=reports,
    )
    local = XdsServer(
        store,
        group_of=previews.group_of(groups.Groups(*on_this_machine)),
        limits=StreamLimits(bisect=True),
        load_reports=reports,
    )
    return public, local


def _max_streams(wanted: int) -> int:
    """Return how many streams the fleet may have. A low limit of open files is raised, and logged if that is not enough.

    It is enough for the default if it allows a large fleet.
    """
    files = open_files.raise_limit()
    most = open_files.connections(wanted, files)
    if most < (LARGE_FLEET if wanted == MAX_STREAMS else wanted):
        log.warning(
            "the limit of open files allows fewer xDS clients than --max-streams; raise it (LimitNOFILE= of systemd, "
            "ulimit -n), or lower --max-streams max_streams=%d open_files=%d clients=%d",
            *(wanted, files, most),
        )
    return most


async def _serve(
    options: RunOptions, services: LocalServices, public: XdsServer, local: XdsServer, stack: AsyncExitStack
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
