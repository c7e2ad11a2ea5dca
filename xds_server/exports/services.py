"""Upstreams as Services, with EndpointSlices for addresses and BackendTLSPolicies for TLS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from filters.language import DataSource
from xds_server.exports.objects import GATEWAY_API, Manifest, Names, manifest
from xds_server.exports.report import Report, left_out
from xds_server.gateway.model.upstreams import Endpoint, Upstream, UpstreamTls

_APP_PROTOCOLS = {"http2": "kubernetes.io/h2c", "grpc": "kubernetes.io/h2c"}
_EXPORTED = ("endpoints", "protocol", "tls")


@dataclass(frozen=True, slots=True)
class Target:
    """A Service that gets a share of an upstream's requests. `host` is its name, "" for addresses."""

    service: str
    port: int
    weight: int
    host: str


class Services:
    """The Services of all upstreams. `targets` are those of each upstream; none for one that cannot be reached."""

    def __init__(
        self, namespace: str, report: Report, names: Names, contents: Mapping[DataSource, bytes]
    ) -> None:
        self.objects: list[Manifest] = []
        self.targets: dict[str, tuple[Target, ...]] = {}
        self._namespace, self._report, self._names, self._contents = namespace, report, names, contents

    def add(self, name: str, upstream: Upstream) -> None:
        """Add an upstream."""
        path = ("upstreams", name)
        left_out(self._report, upstream, path, _EXPORTED, f"the upstream '{name}'")
        if (reason := self._why_not(upstream)) is not None:
            remedy = "write the Service and its policies, and name it in the HTTPRoutes"
            self._report.error((*path, "tls"), f"{reason}; its routes answer 500", remedy)
            self.targets[name] = ()
            return
        made = tuple(self._grouped(name, upstream))
        self.targets[name] = made
        if upstream.tls is not None:
            for target in made:
                self._add_tls(target, upstream.tls)

    def _why_not(self, upstream: Upstream) -> str | None:
        tls = upstream.tls
        if tls is None:
            return None
        if not tls.verify:
            return "a BackendTLSPolicy always verifies the certificate"
        if tls.client_certificate is not None:
            return "a BackendTLSPolicy presents no certificate of its own"
        if tls.sni is None and not all(one.parsed.kind == "name" for one in upstream.endpoints):
            return (
                "a BackendTLSPolicy needs the name of the service, and endpoints are addresses: write tls.sni"
            )
        if tls.optional or tls.subject_alt_names:
            return "'optional' and 'subject_alt_names' have no equal in a BackendTLSPolicy"
        return None

    def _grouped(self, name: str, upstream: Upstream) -> Iterator[Target]:
        """Yield one Service for all addresses, and one for each host name."""
        path = ("upstreams", name, "endpoints")
        addresses = [one for one in upstream.endpoints if one.parsed.kind == "ip"]
        hosts = [one for one in upstream.endpoints if one.parsed.kind == "name"]
        for number, one in enumerate(upstream.endpoints):
            if one.parsed.kind == "unix":
                self._report.warn((*path, number), "a Service has no Unix sockets; the endpoint is left out")
            if one in addresses and one.weight != 1:
                self._report.warn((*path, number), "endpoints of a Service have no weights")
        if addresses:
            yield self._of_addresses(name, addresses, upstream, sum(one.weight for one in addresses))
        for number, one in enumerate(hosts):
            service = self._names.of(name if not addresses and len(hosts) == 1 else f"{name}-host-{number}")
            spec = {
                "type": "ExternalName",
                "externalName": one.parsed.host,
                "ports": [_port(one.parsed.port, upstream)],
            }
            self.objects.append(manifest("v1", "Service", service, self._namespace, spec=spec))
            message = "the host name becomes a Service of the type ExternalName, which many controllers do not serve"
            self._report.warn(path, message, "select the pods of the service with a Service of your own")
            yield Target(service, one.parsed.port, one.weight, one.parsed.host)

    def _of_addresses(self, name: str, endpoints: list[Endpoint], upstream: Upstream, weight: int) -> Target:
        service = self._names.of(name)
        first = endpoints[0].parsed.port
        spec = {"ports": [_port(first, upstream)]}
        self.objects.append(manifest("v1", "Service", service, self._namespace, spec=spec))
        groups: dict[tuple[str, int], list[str]] = {}
        for one in endpoints:
            family = "IPv6" if ":" in one.parsed.host else "IPv4"
            groups.setdefault((family, one.parsed.port), []).append(one.parsed.host)
        for number, ((family, port), hosts) in enumerate(sorted(groups.items())):
            made = manifest(
                "discovery.k8s.io/v1",
                "EndpointSlice",
                f"{service}-{number}",
                self._namespace,
                addressType=family,
                ports=[{"name": "main", "port": port, "protocol": "TCP"}],
                endpoints=[{"addresses": [host], "conditions": {"ready": True}} for host in hosts],
            )
            made["metadata"]["labels"] = {"kubernetes.io/service-name": service}
            self.objects.append(made)
        return Target(service, first, weight, "")

    def _add_tls(self, target: Target, tls: UpstreamTls) -> None:
        validation: dict[str, Any] = {"hostname": tls.sni or target.host}
        if tls.ca is None:
            validation["wellKnownCACertificates"] = "System"
        else:
            name = f"{target.service}-ca"
            text = self._contents[tls.ca].decode()
            self.objects.append(manifest("v1", "ConfigMap", name, self._namespace, data={"ca.crt": text}))
            validation["caCertificateRefs"] = [{"group": "", "kind": "ConfigMap", "name": name}]
        references = [{"group": "", "kind": "Service", "name": target.service}]
        spec = {"targetRefs": references, "validation": validation}
        self.objects.append(
            manifest(GATEWAY_API, "BackendTLSPolicy", target.service, self._namespace, spec=spec)
        )


def _port(number: int, upstream: Upstream) -> dict[str, Any]:
    port: dict[str, Any] = {"name": "main", "port": number, "protocol": "TCP"}
    if (protocol := _APP_PROTOCOLS.get(upstream.protocol)) is not None and upstream.tls is None:
        port["appProtocol"] = protocol
    return port
