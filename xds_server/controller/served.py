"""What one Gateway is served: its files compiled once for their content, with the endpoints of its Services."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

from filters.language import Problem
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import ENDPOINT
from xds_server.errors import InvalidGateway
from xds_server.gateway.model.upstreams import Endpoint, Upstream
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.objects import Key
from xds_server.gateway_api.translation import GatewayFiles
from xds_server.gateway_api.upstreams import ServiceUpstream, endpoints
from xds_server.sources.gateway_folder import ManifestState
from xds_server.translate import names
from xds_server.translate.endpoints import load_assignment

log = logging.getLogger(__name__)

_ATTEMPTS = 4
"""Compilations of one state: a route that is rejected may hide the faults of another."""


class ServedGateway:
    """One Gateway. `snapshot` is what its Envoys get, None until there is anything."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.snapshot: Snapshot | None = None
        self.fault = ""
        """Why the newest state of the Gateway is not served; empty if it is."""
        self.rejected: dict[tuple[str, Key], str] = {}
        """Kind and key of objects whose requests get 500, with what is wrong."""
        self._compiler = Compiler({})
        self._compiled: Compiled | None = None
        self._inputs: tuple[Mapping[str, bytes], Mapping[str, bytes]] | None = None
        self._upstreams: Mapping[str, ServiceUpstream] = {}
        self._assignments: dict[str, Resource] = {}

    def update(self, files: GatewayFiles, cluster: Cluster) -> None:
        """Serve a new state. If it cannot be served, the last good one stays."""
        rendered = files.rendered()
        self._upstreams = files.upstreams
        if self._inputs != (rendered, files.contents):
            self._inputs = (rendered, files.contents)
            self._compile(files, rendered)
        self._assignments = {}
        if self._compiled is not None:
            self._assign(self._compiled, self._upstreams.keys(), cluster)

    def _compile(self, files: GatewayFiles, rendered: Mapping[str, bytes]) -> None:
        """Compile the files. Routes that the language rejects fail alone, so that the others are served."""
        self.rejected = {}
        rejected: dict[str, Problem] = {}
        for _ in range(_ATTEMPTS):
            try:
                self._compiled = self._compiler.compile(
                    ManifestState(files=rendered, contents=files.contents)
                )
                self.fault = ""
                return
            except InvalidGateway as error:
                errors = [one for one in error.problems if one.severity == "error"]
            except Exception as error:
                log.exception("a Gateway could not be read: this is a fault of xds, please report it")
                self.fault = f"a fault of xds: {error!r}"
                return
            found = {
                str(one.path[1]): one
                for one in errors
                if one.path[:1] in (("routes",), ("stream_routes",)) and len(one.path) > 1
            }
            if not found or found.keys() <= rejected.keys():
                break
            rejected |= found
            for name, one in found.items():
                origin = files.origin(name)
                if origin is not None:
                    self.rejected[origin.kind, origin.meta.key] = f"{one.message}; {one.remedy}"
            rendered = files.rejecting(rejected.keys()).rendered()
        self.fault = "; ".join(map(str, errors))
        log.error("a Gateway is not served gateway=%s reason=%s", "/".join(self.key), self.fault)

    def move(self, services: Collection[Key], cluster: Cluster) -> bool:
        """Serve the new endpoints of some Services. Returns True if that changed anything."""
        before = self.snapshot
        concerned = [name for name, one in self._upstreams.items() if one.service in services]
        if self._compiled is not None and concerned:
            self._assign(self._compiled, concerned, cluster)
        return self.snapshot is not before

    def _assign(self, compiled: Compiled, upstreams: Collection[str], cluster: Cluster) -> None:
        for name in upstreams:
            declared = compiled.gateway.sections.upstreams.get(name)
            if declared is not None:
                found = _assignment(name, declared, self._upstreams[name], cluster)
                before = self._assignments.get(found.name)
                self._assignments[found.name] = (
                    found if before is None or before.version != found.version else before
                )
        every = {**compiled.snapshot[ENDPOINT], **self._assignments}
        self.snapshot = compiled.snapshot.updated({ENDPOINT: every.values()})


def _assignment(name: str, declared: Upstream, upstream: ServiceUpstream, cluster: Cluster) -> Resource:
    """Return the endpoints of an upstream as an EDS resource."""
    service = cluster.service(upstream.service)
    slices = cluster.slices(upstream.service)
    values = [] if service is None else endpoints(service, upstream.port, slices)
    found = tuple(Endpoint(address=one["address"], zone=one.get("zone", "")) for one in values)
    return Resource.of(load_assignment(name, replace(declared, endpoints=found)), names.cluster(name))
