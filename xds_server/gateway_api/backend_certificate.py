"""The certificate that a Gateway presents to its backends, and the references of a Gateway in general."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import Condition, resolved
from xds_server.gateway_api.listeners import ListenerState, certificate_fault
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.specs import GatewaySpec


def backend_certificate(
    gateway: Object[GatewaySpec], cluster: Cluster
) -> tuple[Key | None, Condition | None]:
    """Return the Secret with the certificate of a Gateway as a client, or the condition that says why it cannot be used."""
    backend = gateway.spec.tls.backend
    reference = backend.client_certificate if backend is not None else None
    if reference is None:
        return None, None
    key = (reference.namespace or gateway.meta.namespace, reference.name)
    fault = certificate_fault(gateway, reference, key, cluster)
    if fault is None:
        return key, None
    if fault.reason == "InvalidCertificateRef":
        fault = replace(fault, reason="InvalidClientCertificateRef")
    return None, replace(fault, message=f"tls.backend.clientCertificateRef: {fault.message}")


def references(
    gateway: Object[GatewaySpec], listeners: Iterable[ListenerState], cluster: Cluster
) -> Condition:
    """Return whether the references of a Gateway and of its own listeners can be resolved."""
    _, fault = backend_certificate(gateway, cluster)
    if fault is not None:
        return fault
    bad = [
        one.spec.name
        for one in listeners
        if any(each.type == "ResolvedRefs" and not each.status for each in one.conditions)
    ]
    if bad:
        return resolved("ListenersNotResolved", f"listeners with faults: {', '.join(bad)}")
    return resolved()
