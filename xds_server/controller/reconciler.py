"""Brings Envoys, objects and statuses to what the objects of the cluster say, after every change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xds_server.controller import infrastructure, ingress_classes, policy_servers
from xds_server.controller.class_finalizers import ClassFinalizers
from xds_server.controller.infrastructure import Wanted
from xds_server.controller.infrastructure_writer import InfrastructureWriter
from xds_server.controller.ingress_classes import ClassState, IngressWriter
from xds_server.controller.mesh_groups import MeshGroups, is_mesh
from xds_server.controller.mesh_identities import MeshIdentities
from xds_server.controller.pods import EnvoySettings
from xds_server.controller.served import ServedGateway
from xds_server.controller.status_reporter import StatusReporter
from xds_server.controller.watched_kinds import RESOURCES
from xds_server.discovery.snapshot import EMPTY, Snapshot
from xds_server.gateway_api import parameters, statuses
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import Condition
from xds_server.gateway_api.ingress import with_ingresses
from xds_server.gateway_api.memory import Memory
from xds_server.gateway_api.mesh import with_mesh
from xds_server.gateway_api.objects import Key, Object, SliceSpec
from xds_server.gateway_api.parameter_specs import GatewayParametersSpec
from xds_server.gateway_api.specs import GatewaySpec
from xds_server.gateway_api.translation import Translation, translate
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.event_writer import EventWriter
from xds_server.kubernetes.resources import Key as ObjectKey
from xds_server.kubernetes.status_writer import StatusWriter
from xds_server.kubernetes.token_review import ServiceAccount
from xds_server.kubernetes.watch_cache import WatchCache
from xds_server.sidecar.identity import trust
from xds_server.translate.grpc_clients import AGENT

log = logging.getLogger(__name__)

GATHER = 0.02
"""Seconds for which changes are gathered, because one `kubectl apply` makes many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envoys:
    """What is known of the Envoys of a Gateway.

    `publish` makes a snapshot current for them. `acknowledged` is true if some are connected and all have accepted it, and
    `rejection` has the words of one that has not.
    """

    publish: Callable[[str, Snapshot], None]
    acknowledged: Callable[[str], bool]
    rejection: Callable[[str], str]


class Reconciler:
    """Follows a cluster. `controller` is the name in the GatewayClasses that it serves.

    `leading` says whether this replica writes: every replica serves Envoys, and one of them writes. `bundle` has the
    authorities that Envoys must trust, in PEM. `token_of` returns a secret for a name that is the same in all replicas. `known` is set when the cluster has been translated.
    The Envoys of an IngressClass are in `namespace`, unless its parameters say otherwise. `features` returns what is supported
    with the CRDs of the cluster, nothing if they are not known yet.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        caches: Mapping[str, WatchCache[Object[Any]]],
        envoys: Envoys,
        writer: StatusWriter,
        settings: EnvoySettings,
        controller: str,
        leading: Callable[[], bool],
        bundle: Callable[[], bytes],
        token_of: Callable[[str], str],
        identities: MeshIdentities | None,
        events: EventWriter,
        namespace: str,
        features: Callable[[], tuple[str, ...]],
    ) -> None:
        self._caches, self._envoys = caches, envoys
        self._settings, self._controller, self._leading, self._bundle = settings, controller, leading, bundle
        self._token_of, self._namespace, self._features = token_of, namespace, features
        self.known = asyncio.Event()
        self._accounts: dict[Key, str] = {}
        """The group that a service account gets, by namespace and name."""
        self._account_of: dict[Key, Key] = {}
        """The service account of the pods of a Gateway."""
        self._owners: dict[Key, Object[GatewaySpec]] = {}
        """The Gateway of a key, or what stands for its IngressClass."""
        self._bell = asyncio.Event()
        self._changed = True
        self._moved: set[Key] = set()
        self._with_pods: set[str] = set()
        """Namespaces in which pods came or went that have a sidecar."""
        self._served: dict[Key, ServedGateway] = {}
        self._meshes = MeshGroups(envoys.publish, self._served, identities)
        self._trusted = (b"", b"")
        """What sidecars trust in each other, and in the control plane."""
        self._translation: Translation | None = None
        self._memory = Memory()
        self._translated: Cluster | None = None
        """The cluster of the last translation, which knows what it looked at."""
        self._infrastructure = InfrastructureWriter(client, controller, self.look)
        self._finalizers = ClassFinalizers(client, controller)
        self._statuses = StatusReporter(writer, RESOURCES, self._served, self._programmed)
        self._ingresses = IngressWriter(events, self._statuses.want)
        self._led = False

    def changed(
        self, kind: str, _key: ObjectKey, before: Object[Any] | None, after: Object[Any] | None
    ) -> None:
        """Hear of a change of an object."""
        if kind == "EndpointSlice":
            self._moved |= {_service(one) for one in (before, after) if one is not None}
        elif kind == "Pod":
            self._with_pods |= {one.meta.namespace for one in (before, after) if one is not None}
        elif self._translated is None or any(
            self._translated.concerns(one) for one in (before, after) if one is not None
        ):
            self._changed = True
        else:
            return
        self._bell.set()

    def look(self) -> None:
        """Compare what is wanted and what is there again: an Envoy has answered, or the bundle has changed."""
        self._bell.set()

    def group_of(self, account: ServiceAccount, agent: str) -> str | None:
        """Return the group of the Gateway whose pods have this service account, or else that of the sidecars or clients of
        gRPC of the namespace, or None. `agent` is what the client says it is.
        """
        if agent.startswith(AGENT):
            return self._meshes.join_grpc(account.namespace)
        gateway = self._accounts.get((account.namespace, account.name))
        if gateway is not None:
            return gateway
        return self._meshes.join((account.namespace, account.name))

    def objects(self) -> dict[str, int]:
        """Return the number of objects by kind."""
        return {kind: len(cache.items) for kind, cache in self._caches.items()}

    def states(self) -> dict[str, int]:
        """Return the number of Gateways that are served as they are now, and of those that are not."""
        failed = sum(bool(one.fault) for one in list(self._served.values()))
        return {"current": len(self._served) - failed, "failed": failed}

    def following(self) -> Iterator[WatchCache[Any]]:
        """Yield the caches that must run."""
        yield from self._caches.values()
        yield from self._infrastructure.there.caches()

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        for cache in self._caches.values():
            await cache.synced.wait()
        log.info(
            "the objects of the cluster are known objects=%d",
            sum(len(one.items) for one in self._caches.values()),
        )
        while True:
            self._bell.clear()
            try:
                await self._reconcile()
            except Exception:
                log.exception("the cluster was not translated: this is a fault of xds, please report it")
                # every change may be the one that corrects it
                self._changed, self._translated = True, None
            await self._bell.wait()
            await asyncio.sleep(GATHER)

    async def _reconcile(self) -> None:
        cluster = Cluster({kind: cache.items for kind, cache in self._caches.items()}, self._memory)
        self._look_at_pods()
        if self._changed:
            self._changed = False
            self._moved.clear()
            self._translate(cluster)
        elif self._moved:
            moved, self._moved = self._moved, set()
            self._move(moved, cluster)
        identities = self._meshes.identities
        if identities is not None and identities.due():
            for key, served in self._served.items():
                self._publish(key, served)
        if self._translation is not None:
            await self._write(self._translation, cluster)

    def _look_at_pods(self) -> None:
        """Have endpoints assigned again whose pods have become known, and authorities translated that are new."""
        for one in self._caches["EndpointSlice"].items.values() if self._with_pods else ():
            if one.meta.namespace in self._with_pods:
                self._moved.add(_service(one))
        self._with_pods.clear()
        identities = self._meshes.identities
        if identities is not None and self._trusted != (bundles := (identities.bundle, self._bundle())):
            self._trusted, self._changed = bundles, True

    def _translate(self, cluster: Cluster) -> None:
        identities = self._meshes.identities
        trust = identities.trust() if identities is not None else None
        found = translate(cluster, controller=self._controller, live=True)
        found = with_ingresses(found, cluster, controller=self._controller, live=True)
        self._translation = with_mesh(found, cluster, live=True, trust=trust)
        self._translated = cluster
        gateways = {
            **self._translation.gateways,
            **self._translation.ingresses,
            **self._translation.meshes,
        }
        owners = {key: self._owner(key, cluster) for key in gateways}
        self._owners = {key: one for key, one in owners.items() if one is not None}
        self._account_of = {
            key: (one.meta.namespace, infrastructure.name_of(one)) for key, one in self._owners.items()
        }
        self._accounts = {}
        for key in sorted(self._owners, key=lambda key: (self._owners[key].meta.created, key)):
            account = self._account_of[key]
            self._accounts.setdefault(account, _group(key))  # two names can make one: the older one has it
        for key in self._served.keys() - gateways.keys():
            del self._served[key]
            if is_mesh(key):
                self._meshes.removed(key)
            else:
                self._envoys.publish(_group(key), EMPTY)
        for key, files in gateways.items():
            served = self._served.get(key)
            if served is None:
                served = self._served[key] = ServedGateway(key)
            served.update(files, cluster)
            self._publish(key, served)
        self.known.set()

    def _publish(self, key: Key, served: ServedGateway) -> None:
        if is_mesh(key):
            self._meshes.changed(key)
        elif served.snapshot is not None:
            snapshot, identities = served.snapshot, self._meshes.identities
            account = self._account_of.get(key)
            if identities is not None and account is not None:
                snapshot = identities.with_certificate(snapshot, account)
            self._envoys.publish(_group(key), snapshot)

    def _move(self, services: Iterable[Key], cluster: Cluster) -> None:
        concerned = frozenset(services)
        for key, served in self._served.items():
            if served.move(concerned, cluster):
                self._publish(key, served)
            if served.unknown_pods:  # an account has come that no state has had yet
                self._changed = True
                self._bell.set()

    async def _write(self, translation: Translation, cluster: Cluster) -> None:
        """Have the objects and statuses of all Gateways written, if this replica leads."""
        led, self._led = self._led, self._leading()
        if not self._led:
            return
        if not led:  # another replica may have written meanwhile
            self._statuses.forget()
            self._ingresses.forget()
            self._infrastructure.forget()
            self._finalizers.forget()
        used = {one.spec.gateway_class_name for one in cluster.gateways()}
        ours = [one for one in cluster.classes() if one.spec.controller_name == self._controller]
        await self._finalizers.keep(ours, used.__contains__)
        features = self._features()
        for one in ours if features else ():
            _, wrong = parameters.of_class(one, cluster)
            status = statuses.class_status(one.meta.generation, wrong, features)
            self._statuses.want("GatewayClass", one.meta.key, status, cluster)
        owners = (*cluster.gateways(), *cluster.all("IngressClass"))
        await self._infrastructure.serve(
            list(self._infrastructure_of(translation, cluster)), {one.meta.uid for one in owners}
        )
        for namespace, name in translation.meshes:
            if not name:
                await self._infrastructure.apply((namespace, name), [trust(namespace, self._bundle())])
        found = ((key, self._owners.get(key)) for key in translation.gateways)
        addresses = {key: self._addresses(one, cluster) for key, one in found if one is not None}
        self._statuses.report(translation, addresses, cluster)
        self._report_ingresses(translation, cluster)

    def _infrastructure_of(self, translation: Translation, cluster: Cluster) -> Iterator[Wanted]:
        """Yield what must serve each Gateway and IngressClass that is there."""
        for key, files in (*translation.gateways.items(), *translation.ingresses.items()):
            owner = self._owners.get(key)
            if owner is not None:
                yield Wanted(
                    gateway=owner,
                    ports=files.ports,
                    settings=self._settings,
                    parameters=self._parameters(key, owner, cluster),
                    bundle=self._bundle(),
                    drain_token=self._token_of(owner.meta.uid),
                    policy_server=policy_servers.needed(self._served[key].snapshot),
                )

    def _parameters(self, key: Key, owner: Object[GatewaySpec], cluster: Cluster) -> GatewayParametersSpec:
        if not ingress_classes.is_class(key):
            return parameters.of_gateway(owner, cluster)[0]
        one = ingress_classes.find(key, cluster)
        return ingress_classes.parameters_of(one, cluster)[0] if one is not None else GatewayParametersSpec()

    def _report_ingresses(self, translation: Translation, cluster: Cluster) -> None:
        """Have the addresses of Ingresses written, and what is wrong with them told."""
        states = {
            key: ClassState(
                programmed=self._programmed(key),
                addresses=self._addresses(self._owners[key], cluster),
                rejected=self._served[key].rejected,
            )
            for key in translation.ingresses
        }
        self._ingresses.write(translation, cluster, states)

    def _owner(self, key: Key, cluster: Cluster) -> Object[GatewaySpec] | None:
        """Return the Gateway of a key, or what stands for its IngressClass."""
        if not ingress_classes.is_class(key):
            return cluster.gateway(key)
        one = ingress_classes.find(key, cluster)
        return ingress_classes.as_gateway(one, self._namespace) if one is not None else None

    def _programmed(self, key: Key) -> Condition:
        served, name = self._served[key], _group(key)
        objects = self._owners[key].meta.key if key in self._owners else key
        if served.fault:
            return Condition("Programmed", False, "Invalid", served.fault)
        if self._infrastructure.faults.get(objects):
            return Condition("Programmed", False, "Invalid", self._infrastructure.faults[objects])
        rejection = self._envoys.rejection(name)
        if rejection:
            return Condition(
                "Programmed", False, "Invalid", f"an Envoy or policy server has rejected a part: {rejection}"
            )
        if not self._envoys.acknowledged(name):
            return Condition(
                "Programmed",
                False,
                "Pending",
                "its Envoys, or policy servers that it needs, do not have it yet",
            )
        return Condition("Programmed", True, "Programmed")

    def _addresses(self, gateway: Object[GatewaySpec], cluster: Cluster) -> tuple[str, ...]:
        service = cluster.service((gateway.meta.namespace, infrastructure.name_of(gateway)))
        return service.spec.addresses if service is not None else ()


def _group(gateway: Key) -> str:
    return "/".join(gateway)


def _service(one: Object[SliceSpec]) -> Key:
    return (one.meta.namespace, one.spec.service)
