"""Which GatewayParameters a Gateway has: its own, and then those of its class."""

from __future__ import annotations

from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import Condition, accepted
from xds_server.gateway_api.ingress_specs import Annotated, IngressClassSpec
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.parameter_specs import GatewayParametersSpec
from xds_server.gateway_api.policy_specs import GROUP
from xds_server.gateway_api.specs import GatewayClassSpec, GatewaySpec

KIND = "GatewayParameters"


def of_gateway(
    gateway: Object[GatewaySpec], cluster: Cluster
) -> tuple[GatewayParametersSpec, Condition | None]:
    """Return the parameters of a Gateway, and the condition that says why its own ones cannot be used."""
    found = next((one for one in cluster.classes() if one.meta.name == gateway.spec.gateway_class_name), None)
    outer, _ = of_class(found, cluster) if found is not None else (GatewayParametersSpec(), None)
    infrastructure = gateway.spec.infrastructure
    reference = infrastructure.parameters_ref if infrastructure is not None else None
    if reference is None:
        return outer, None
    own = _found(reference.group, reference.kind, (gateway.meta.namespace, reference.name), cluster)
    return (outer, own) if isinstance(own, Condition) else (own.over(outer), None)


def of_class(
    one: Object[GatewayClassSpec], cluster: Cluster
) -> tuple[GatewayParametersSpec, Condition | None]:
    """Return the parameters of a GatewayClass, and the condition that says why they cannot be used."""
    reference = one.spec.parameters_ref
    if reference is None:
        return GatewayParametersSpec(), None
    own = _found(reference.group, reference.kind, (reference.namespace or "", reference.name), cluster)
    return (GatewayParametersSpec(), own) if isinstance(own, Condition) else (own, None)


def of_ingress_class(
    one: Object[Annotated[IngressClassSpec]], cluster: Cluster
) -> tuple[GatewayParametersSpec, Condition | None]:
    """Return the parameters of an IngressClass, and the condition that says why they cannot be used."""
    reference = one.spec.declared.parameters
    if reference is None:
        return GatewayParametersSpec(), None
    own = _found(reference.group, reference.kind, (reference.namespace or "", reference.name), cluster)
    return (GatewayParametersSpec(), own) if isinstance(own, Condition) else (own, None)


def _found(group: str, kind: str, key: Key, cluster: Cluster) -> GatewayParametersSpec | Condition:
    if (group, kind) != (GROUP, KIND):
        written = f"{group}/{kind}" if group else kind
        return accepted("InvalidParameters", f"parameters are of the kind {GROUP}/{KIND}, not {written}")
    found = cluster.parameters(key)
    if found is None:
        return accepted("InvalidParameters", f"there is no {KIND} {'/'.join(key)}")
    spec = found.spec
    if spec.autoscaling is not None and spec.workload == "DaemonSet":
        return accepted(
            "InvalidParameters", f"{KIND} {'/'.join(key)}: a DaemonSet has no autoscaling; remove one of them"
        )
    return spec
