"""The composition of the controller: the only module of this package that constructs and connects the parts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from filters.language import Problems
from xds_server.admin import Admin
from xds_server.control_plane.fleet import Fleet
from xds_server.controller import policy_servers
from xds_server.controller.authority_secret import AuthoritySecret
from xds_server.controller.crd_features import CrdFeatures
from xds_server.controller.envoy_identity import EnvoyIdentity
from xds_server.controller.mesh_authority import MeshAuthority
from xds_server.controller.mesh_identities import MeshIdentities
from xds_server.controller.pages import ControllerMetrics, ControllerState, pages
from xds_server.controller.pods import EnvoySettings
from xds_server.controller.policy_servers import RulesFirst
from xds_server.controller.reconciler import Envoys, Reconciler
from xds_server.controller.watched_kinds import caches
from xds_server.controller.webhook import Webhook
from xds_server.controller.webhook_trust import WebhookTrust
from xds_server.discovery.node import Node
from xds_server.discovery.snapshot import Snapshot
from xds_server.gateway.model.upstreams import parse_address
from xds_server.gateway_api.conditions import CONTROLLER
from xds_server.gateway_api.objects import Kind, Object, read_object
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.connection import in_cluster
from xds_server.kubernetes.event_writer import EventWriter
from xds_server.kubernetes.kubeconfig import read_kubeconfig
from xds_server.kubernetes.leader import Leader
from xds_server.kubernetes.resources import Key
from xds_server.kubernetes.status_writer import StatusWriter
from xds_server.processes import garbage_collector, open_files
from xds_server.processes.addresses import failed_to_listen, split
from xds_server.run_options import MAX_STREAMS
from xds_server.serving.events import Acked, Connected, Disconnected, Event, Nacked
from xds_server.serving.metrics import Metrics
from xds_server.serving.server import XdsServer
from xds_server.serving.store import Store
from xds_server.serving.tls import rotating
from xds_server.sidecar.identity import SidecarSettings
from xds_server.translate.stand_ins import stand_in

log = logging.getLogger(__name__)

_ADMIN, _WEBHOOK = "--admin", "--webhook"
_RENEW = 60.0
"""Seconds between two looks whether certificates are due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerOptions:
    """The options of `xds controller`. Without `kubeconfig`, it uses the service account of its pod.

    `xds` is the address at which it listens, and `envoys.xds_address` the one at which Envoys reach it.
    """

    envoys: EnvoySettings
    sidecars: SidecarSettings
    webhook: str = ""
    """The address of the webhook that gives pods their sidecars; empty for none."""
    webhook_configuration: str = "xds-gateway"
    mesh_ca: Key | None = None
    """The Secret of somebody else with the authority of the mesh; None for that of the xDS port."""
    trust_domain: str = "cluster.local"
    """The trust domain of the certificates of sidecars (SPIFFE)."""
    xds: str = "[::]:18000"
    admin: str = "[::]:18001"
    kubeconfig: tuple[Path, ...] = ()
    namespace: str = "xds-system"
    """The namespace of the lease and of the Secret with the certificate authority."""
    ingress_namespace: str = ""
    """The namespace of the Envoys of IngressClasses; empty for that of the controller."""
    controller: str = CONTROLLER
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}")

    @property
    def lease(self) -> str:
        """The name of the lease: two controllers of one namespace do not exclude each other."""
        return self.controller.replace("/", "-").lower()


async def serve(options: ControllerOptions) -> None:
    """Serve the Gateways of a cluster until SIGINT or SIGTERM. Raises EnvironmentFailed, InvalidKubeconfig."""
    connection = read_kubeconfig(options.kubeconfig) if options.kubeconfig else in_cluster(os.environ)
    garbage_collector.tune()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(ApiClient(connection))
        tasks = await _parts(options, client, stack)
        log.info("controller started xds=%s api=%s", options.xds, connection.server)
        running = [asyncio.create_task(task) for task in tasks]
        stack.push_async_callback(_cancelled, running)
        waiting = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({*running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {waiting}:
            task.result()
        log.info("stopping")


async def _parts(
    options: ControllerOptions, client: ApiClient, stack: AsyncExitStack
) -> list[Coroutine[Any, Any, None]]:
    """Start the xDS server, and return what runs beside it."""
    store = Store(quarantine=True, release_of=_release, stand_in=stand_in)
    fleet = Fleet(lambda _group, _type, _name: None)
    store.observe(fleet.observe)
    authority = AuthoritySecret(
        client,
        Key(options.namespace, f"{options.lease}-authority"),
        _names(parse_address(options.envoys.xds_address).host),
        lambda: reconciler.look(),
    )
    await authority.open()
    mesh_authority = None
    if options.webhook and options.mesh_ca is not None:
        mesh_authority = MeshAuthority(client, options.mesh_ca, lambda: reconciler.look())
        await mesh_authority.open()
    leader = Leader(
        client, Key(options.namespace, options.lease), options.identity, lambda _leading: resume()
    )
    writer = StatusWriter(client, options.controller, lambda: leader.leading)
    events = EventWriter(client, options.controller, lambda: leader.leading)
    features = CrdFeatures(client, lambda: reconciler.look())
    found = caches(client, lambda *change: reconciler.changed(*change), _kept, mesh=bool(options.webhook))
    identities = (
        MeshIdentities(lambda: (mesh_authority or authority).authorities, options.trust_domain)
        if options.webhook
        else None
    )
    reconciler = Reconciler(
        client,
        caches=found,
        envoys=_envoys(store, fleet),
        writer=writer,
        settings=options.envoys,
        controller=options.controller,
        leading=lambda: leader.leading,
        bundle=lambda: authority.bundle,
        token_of=lambda name: authority.token_of(name),
        identities=identities,
        events=events,
        namespace=options.ingress_namespace or options.namespace,
        features=lambda: features.names,
    )

    def resume() -> None:
        writer.resume()
        reconciler.look()

    store.observe(partial(_look_at, reconciler.look))
    await _serve_xds(
        options.xds, EnvoyIdentity(client, reconciler.group_of, reconciler.known), authority, store, stack
    )
    _admin(options.admin, store, reconciler, leader, stack)
    injection = await _injection(options, client, authority, leader, reconciler.look, stack)
    return [
        *injection,
        *(cache.run() for cache in reconciler.following()),
        authority.run(),
        *([mesh_authority.run()] if mesh_authority is not None else []),
        writer.run(),
        events.run(),
        features.run(),
        leader.run(),
        reconciler.run(),
    ]


def _envoys(store: Store, fleet: Fleet) -> Envoys:
    rollout = RulesFirst(store, fleet)
    return Envoys(
        publish=rollout.publish,
        acknowledged=lambda group: _acknowledged(fleet, store, group) and rollout.acknowledged(group),
        rejection=partial(_rejection, fleet, store),
    )


def _look_at(look: Callable[[], None], event: Event) -> None:
    """Have statuses written that an event of an Envoy may change."""
    if isinstance(event, Acked | Nacked | Connected | Disconnected):
        look()


async def _serve_xds(
    address: str, identity: EnvoyIdentity, authority: AuthoritySecret, store: Store, stack: AsyncExitStack
) -> None:
    most = open_files.connections(MAX_STREAMS, open_files.raise_limit())
    server = XdsServer(store, group_of=identity, max_streams=most, credentials=rotating(authority.serving))
    stack.push_async_callback(server.stop, 1.0)
    try:
        await server.start(address)
    except OSError as error:
        raise failed_to_listen("--xds", address, error) from None


async def _injection(
    options: ControllerOptions,
    client: ApiClient,
    authority: AuthoritySecret,
    leader: Leader,
    look: Callable[[], None],
    stack: AsyncExitStack,
) -> list[Coroutine[Any, Any, None]]:
    """Start the webhook that gives pods their sidecars, and return what runs beside it."""
    if not options.webhook:
        return []
    webhook = Webhook(options.sidecars, authority.serving, authority.token_of)
    try:
        await webhook.start(*split(_WEBHOOK, options.webhook))
    except OSError as error:
        raise failed_to_listen(_WEBHOOK, options.webhook, error) from None
    stack.push_async_callback(webhook.stop)
    trust = WebhookTrust(
        client, options.webhook_configuration, lambda: authority.bundle, lambda: leader.leading
    )
    return [webhook.run(), trust.run(), _look(look)]


async def _look(look: Callable[[], None]) -> None:
    """Have certificates of sidecars renewed in time."""
    while True:
        await asyncio.sleep(_RENEW)
        look()


def _names(host: str) -> list[str]:
    """Return the names in the certificate: the API server calls a Service by its name without the zone of the cluster."""
    service, found, _ = host.partition(".svc.")
    return [host, f"{service}.svc"] if found else [host]


def _admin(address: str, store: Store, reconciler: Reconciler, leader: Leader, stack: AsyncExitStack) -> None:
    """Serve probes and metrics."""
    counted = Metrics(store)
    store.observe(counted.observe)
    ControllerMetrics(
        lambda: ControllerState(
            leading=leader.leading, objects=reconciler.objects(), gateways=reconciler.states()
        ),
        counted.registry,
    )
    try:
        admin = Admin(*split(_ADMIN, address), pages(reconciler.known.is_set, counted))
    except OSError as error:
        raise failed_to_listen(_ADMIN, address, error) from None
    admin.start()
    stack.callback(admin.stop)


def _rejection(fleet: Fleet, store: Store, group: str) -> str:
    """Return the words of an Envoy or policy server of a Gateway that has rejected a part, also if it has another one now."""
    said = [
        one.message for one in (*fleet.rejections(group), *fleet.rejections(policy_servers.group_of(group)))
    ]
    return next(iter(said), "") or next((one.message for one in store.held(group)), "")


def _acknowledged(fleet: Fleet, store: Store, group: str) -> bool:
    states = fleet.states(partial(_current, store, group), group)
    return bool(states) and all(state == "current" for state in states)


def _current(store: Store, group: str, release: str, node: str) -> Snapshot | None:
    return store.current(group, release, node)


def _release(_group: str, node: Node) -> str:
    return node.release if node.agent == "envoy" else ""


def _kept(kind: Kind, value: dict[str, Any]) -> Object[Any] | None:
    """Return what is kept of an object. Only what can be read of it counts, because the API server has checked it."""
    problems = Problems()
    found = read_object(kind, value, (), problems)
    for problem in problems:
        log.warning("an object is not understood object=%s reason=%s", kind.name, problem)
    return found


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
