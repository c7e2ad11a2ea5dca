"""What one Gateway is served: its files compiled once for their content, with the endpoints of its Services."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.controller import policy_servers
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, SECRET
from xds_server.errors import InvalidGateway
from xds_server.gateway.model.upstreams import Endpoint, Upstream, parse_address
from xds_server.gateway_api import mesh_tls, rejections
from xds_server.gateway_api.capture import ANY_ADDRESS, OUTBOUND_PORT
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.gateway_files import GatewayFiles, Renderer
from xds_server.gateway_api.mesh import pods_upstream
from xds_server.gateway_api.objects import Key, Object, ServiceSpec, SliceSpec
from xds_server.gateway_api.upstreams import ServiceUpstream, endpoints
from xds_server.sources.manifest_folder import ManifestState
from xds_server.translate import names, secrets, tls
from xds_server.translate.endpoints import load_assignment
from xds_server.translate.pod_chains import with_pods

log = logging.getLogger(__name__)

_OUTBOUND = f"[{ANY_ADDRESS}]:{OUTBOUND_PORT}"
"""The listener of the connections of an application."""
_ATTEMPTS = 8
"""Compilations of one state: an object that is rejected may hide the faults of another."""


class ServedGateway:
    """One Gateway. `snapshot` is what its Envoys get, None until there is anything."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.snapshot: Snapshot | None = None
        self.fault = ""
        """Why the newest state of the Gateway is not served; empty if it is."""
        self.rejected: dict[tuple[str, Key], str] = {}
        """Kind and key of objects whose requests get 500, with what is wrong."""
        self.addresses: Mapping[str, tuple[str, ...]] = {}
        """Those of GatewayFiles."""
        self._compiler = Compiler({}, internal_services=policy_servers.INTERNAL)
        self._compiled: Compiled | None = None
        self._shown: Compiled | None = None
        """What the snapshot was made of."""
        self._inputs: tuple[object, ...] | None = None
        self._written: tuple[Mapping[str, bytes], Mapping[str, bytes]] | None = None
        """The last files of ConfigMaps that could be served, with what they refer to."""
        self._upstreams: Mapping[str, ServiceUpstream] = {}
        self._renderer = Renderer()
        self._assignments: dict[str, _Assignment] = {}
        self.unknown_pods = False
        """True if pods have an account for which the newest state has no upstream."""
        self._headless: tuple[Key, ...] = ()
        self._with_pods: tuple[Resource, Mapping[str, str], Resource] | None = None
        """The listener of outbound connections, the upstreams of addresses, and the listener with these."""
        self._verifying: dict[str, tuple[Resource, frozenset[str], Resource]] = {}
        """By upstream: its authority, the accounts of its endpoints, and the authority with their names."""

    def update(self, files: GatewayFiles, cluster: Cluster) -> None:
        """Serve a new state. If it cannot be served, the last good one stays."""
        rendered = self._renderer.rendered(files)
        self._upstreams, self.addresses = files.upstreams, files.addresses
        self._headless = files.headless
        inputs = (rendered, files.contents, files.problems)
        if self._inputs != inputs:
            self._inputs = inputs
            self._compile(files, rendered)
        if self._compiled is not None:
            self._assign(self._compiled, self._upstreams.keys(), cluster)

    def _compile(self, files: GatewayFiles, rendered: Mapping[str, bytes]) -> None:
        """Compile the files. What the language rejects is left out or answers with 500, so that the rest is served.

        If the files of ConfigMaps are at fault, their last good state is used for the rest, because a new policy of
        somebody else must not wait for their correction.
        """
        self.fault = self._fault(files, rendered)
        if not self.fault:
            self._written = (files.texts, files.contents)
        elif self._written is not None and self._written[0] != files.texts:
            texts, contents = self._written
            before = replace(files, texts=texts, contents={**contents, **files.contents}, problems=())
            self._fault(before, self._renderer.rendered(before))
        if self.fault:
            log.error("a Gateway is not served as it is gateway=%s reason=%s", "/".join(self.key), self.fault)

    def _fault(self, files: GatewayFiles, rendered: Mapping[str, bytes]) -> str:
        """Compile the files. Returns what is wrong, empty if they are served."""
        self.rejected = {}
        if files.problems:
            # nothing is read then, because messages may show what these files must not refer to
            return "; ".join(map(str, files.problems))
        for _ in range(_ATTEMPTS):
            try:
                self._compiled = self._compiler.compile(
                    ManifestState(files=rendered, contents=files.contents)
                )
                return ""
            except InvalidGateway as error:
                errors = [one for one in error.problems if one.severity == "error"]
            except Exception as error:
                log.exception("a Gateway could not be read: this is a fault of xds, please report it")
                return f"a fault of xds: {error!r}"
            rest = rejections.without(files, errors)
            if rest.told.keys() <= self.rejected.keys() and rest.files == files:
                break
            self.rejected = {**rest.told, **self.rejected}
            files = rest.files
            rendered = files.rendered()
        return "; ".join(map(str, errors))

    def move(self, services: AbstractSet[Key], cluster: Cluster) -> bool:
        """Serve the new endpoints of some Services. Returns True if that changed anything."""
        before = self.snapshot
        concerned = [name for name, one in self._upstreams.items() if one.service in services]
        if self._compiled is not None and (concerned or not services.isdisjoint(self._headless)):
            self._assign(self._compiled, concerned, cluster)
        return self.snapshot is not before

    def _assign(self, compiled: Compiled, upstreams: Collection[str], cluster: Cluster) -> None:
        """Have the endpoints of some upstreams as they are now, and those of the others as they were."""
        before, self._assignments = self._assignments, dict(self._assignments)
        for name in upstreams:
            declared = compiled.gateway.sections.upstreams.get(name)
            if declared is not None:
                upstream = self._upstreams[name]
                service = cluster.service(upstream.service)
                origin = (declared, upstream, service, cluster.slices(upstream.service))
                known = before.get(name)
                meshed = declared.tls is not None and declared.tls.optional
                plain = cluster.without_sidecar(origin[-1]) if meshed else frozenset()
                accounts = cluster.accounts(origin[-1]) if meshed else frozenset()
                if known is None or not known.made_of(origin, plain, accounts):
                    resource = _resource(name, *origin, plain)
                    self._assignments[name] = _Assignment(origin, plain, accounts, resource)
        for name in self._assignments.keys() - self._upstreams.keys():
            del self._assignments[name]
        found = {one.resource.name: one.resource for one in self._assignments.values()}
        every = {**compiled.snapshot[ENDPOINT], **found}
        verified = {**compiled.snapshot[SECRET], **self._authorities(compiled)}
        same = self.snapshot is not None and compiled is self._shown
        base = self.snapshot if self.snapshot is not None and same else compiled.snapshot
        changed = {
            type_: items.values()
            for type_, items in (
                (ENDPOINT, every),
                (SECRET, verified),
                (LISTENER, self._listeners(compiled, cluster)),
            )
            if items != base[type_]
        }
        if not same or changed:
            self._shown = compiled
            self.snapshot = base.updated(changed)

    def _listeners(self, compiled: Compiled, cluster: Cluster) -> Mapping[str, Resource]:
        """Return the listeners, with the pods of Services to whose addresses clients connect."""
        listeners = compiled.snapshot[LISTENER]
        outbound = listeners.get(_OUTBOUND)
        if outbound is None or not self._headless:
            return listeners
        wanted = {
            address: pods_upstream(key[0], account)
            for key in self._headless
            for address, account in cluster.accounts_by_address(cluster.slices(key)).items()
        }
        known = {address: one for address, one in wanted.items() if one in compiled.snapshot[CLUSTER]}
        self.unknown_pods = len(known) < len(wanted)
        if self._with_pods is None or self._with_pods[:2] != (outbound, known):
            self._with_pods = (outbound, known, with_pods(outbound, known))
        return {**listeners, _OUTBOUND: self._with_pods[2]}

    def _authorities(self, compiled: Compiled) -> dict[str, Resource]:
        """Return the authorities of upstreams in the mesh, with the names of their accounts."""
        found: dict[str, Resource] = {}
        for name, one in self._assignments.items():
            declared = one.origin[0].tls
            if one.accounts and declared is not None:
                authority = compiled.snapshot[SECRET][names.upstream_ca(name)]
                known = self._verifying.get(name)
                if known is None or known[:2] != (authority, one.accounts):
                    secret = secret_pb2.Secret.FromString(authority.body)
                    accepted = tls.alt_names(mesh_tls.names_of(declared, one.accounts))
                    changed = Resource.of(secrets.also_verifying(secret, accepted), authority.name)
                    known = self._verifying[name] = (authority, one.accounts, changed)
                found[authority.name] = known[2]
        for name in self._verifying.keys() - self._assignments.keys():
            del self._verifying[name]
        return found


_Origin = tuple[Upstream, ServiceUpstream, Object[ServiceSpec] | None, tuple[Object[SliceSpec], ...]]


@dataclass(frozen=True, slots=True, eq=False)
class _Assignment:
    """The endpoints of an upstream as an EDS resource, with what it was made of."""

    origin: _Origin
    plain: frozenset[str]
    """The addresses without TLS."""
    accounts: frozenset[str]
    """The accounts of those with TLS."""
    resource: Resource

    def made_of(self, origin: _Origin, plain: frozenset[str], accounts: frozenset[str]) -> bool:
        """True if it would be the same again. Objects that did not change are the same objects."""
        if (plain, accounts) != (self.plain, self.accounts):
            return False
        *ours, slices = self.origin
        *theirs, others = origin
        return all(one is other for one, other in zip(ours, theirs, strict=True)) and (
            len(slices) == len(others)
            and all(one is other for one, other in zip(slices, others, strict=True))
        )


def _resource(
    name: str,
    declared: Upstream,
    upstream: ServiceUpstream,
    service: Object[ServiceSpec] | None,
    slices: tuple[Object[SliceSpec], ...],
    plain: frozenset[str],
) -> Resource:
    values = [] if service is None else endpoints(service, upstream.port, slices)
    found = tuple(
        Endpoint(
            address=one["address"],
            zone=one.get("zone", ""),
            tls=not plain or parse_address(one["address"]).host not in plain,
        )
        for one in values
    )
    return Resource.of(load_assignment(name, replace(declared, endpoints=found)), names.cluster(name))
