"""The objects that serve a Gateway: its pods with their ServiceAccount and ConfigMap, what scales them, and a Service.

It does no IO.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from xds_server.controller import ingress_classes, pods
from xds_server.controller.pods import EnvoySettings, PodShape, Port
from xds_server.gateway_api import addresses
from xds_server.gateway_api.ingress_specs import NETWORKING
from xds_server.gateway_api.objects import Object
from xds_server.gateway_api.parameter_specs import GatewayParametersSpec
from xds_server.gateway_api.specs import GROUP, GatewaySpec

LABEL = f"{GROUP}/gateway-name"
"""The label of these objects (GEP-1762)."""
_CLASS_LABEL = f"{GROUP}/gateway-class-name"
_LONGEST = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A Gateway, or what stands for an IngressClass, with what its objects are made of. `bundle` has the authorities to trust, in PEM."""

    gateway: Object[GatewaySpec]
    ports: Iterable[Port]
    settings: EnvoySettings
    parameters: GatewayParametersSpec
    bundle: bytes
    drain_token: str
    policy_server: bool = False


def name_of(gateway: Object[GatewaySpec]) -> str:
    """Return the name of the objects of a Gateway, which a Service may have (RFC 1035, at most 63 characters)."""
    name = f"{ingress_classes.name_of(gateway)}-{gateway.spec.gateway_class_name}"
    if len(name) <= _LONGEST and "." not in name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name.replace('.', '-')[: _LONGEST - 11].rstrip('-')}-{digest}"


def objects(wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Yield the objects of a Gateway, each after those that it needs."""
    metadata = _metadata(wanted.gateway)
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    files = dict(pods.MOUNTED.files(wanted.bundle))
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files}
    yield _workload(wanted)
    if wanted.parameters.autoscaling is not None:
        yield _autoscaler(wanted)
    if _has_budget(wanted):
        yield _budget(wanted)
    yield _service(wanted)


def _metadata(gateway: Object[GatewaySpec]) -> dict[str, Any]:
    infrastructure = gateway.spec.infrastructure
    labels = dict(infrastructure.labels) if infrastructure is not None else {}
    annotations = dict(infrastructure.annotations) if infrastructure is not None else {}
    owner = {
        "apiVersion": f"{GROUP if gateway.kind == 'Gateway' else NETWORKING}/v1",
        "kind": gateway.kind,
        "name": ingress_classes.name_of(gateway),
        "uid": gateway.meta.uid,
        "controller": True,
    }
    return {
        "name": name_of(gateway),
        "namespace": gateway.meta.namespace,
        "labels": {**labels, **_selector(gateway), _CLASS_LABEL: _label(gateway.spec.gateway_class_name)},
        "annotations": annotations,
        "ownerReferences": [owner],
    }


def _selector(gateway: Object[GatewaySpec]) -> dict[str, str]:
    return {LABEL: _label(gateway.meta.name)}


def _label(name: str) -> str:
    """Return a name as the value of a label, which has at most 63 characters."""
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 11].rstrip('.-')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def _workload(wanted: Wanted) -> dict[str, Any]:
    """Return a Deployment or a DaemonSet. The number of pods is left to an autoscaler, if there is one."""
    metadata = _metadata(wanted.gateway)
    shape = PodShape(
        group="/".join(wanted.gateway.meta.key),
        account=name_of(wanted.gateway),
        ports=sorted(wanted.ports),
        settings=wanted.settings,
        parameters=wanted.parameters,
        drain_token=wanted.drain_token,
        policy_server=wanted.policy_server,
    )
    pod = {"labels": metadata["labels"], "annotations": metadata["annotations"]}
    spec: dict[str, Any] = {
        "selector": {"matchLabels": _selector(wanted.gateway)},
        "template": {"metadata": pod, "spec": pods.pod(shape)},
    }
    kind = wanted.parameters.workload or "Deployment"
    if kind == "Deployment":
        spec["strategy"] = {"rollingUpdate": {"maxUnavailable": 0}}
        if wanted.parameters.autoscaling is None:
            spec["replicas"] = _replicas(wanted)
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _replicas(wanted: Wanted) -> int:
    given = wanted.parameters.replicas
    return wanted.settings.replicas if given is None else given


def _autoscaler(wanted: Wanted) -> dict[str, Any]:
    scaling = wanted.parameters.autoscaling
    assert scaling is not None, "asked before"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name_of(wanted.gateway)}
    used = {
        "name": "cpu",
        "container": "envoy",
        "target": {"type": "Utilization", "averageUtilization": scaling.cpu_percent},
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(wanted.gateway),
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": [{"type": "ContainerResource", "containerResource": used}],
        },
    }


def _has_budget(wanted: Wanted) -> bool:
    """True if some pod may be taken away while another one serves. A budget for a single pod would stop each upgrade of a node."""
    if wanted.parameters.workload == "DaemonSet":
        return False
    scaling = wanted.parameters.autoscaling
    return (scaling.min_replicas if scaling is not None else _replicas(wanted)) > 1


def _budget(wanted: Wanted) -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(wanted.gateway),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _selector(wanted.gateway)}},
    }


def _service(wanted: Wanted) -> dict[str, Any]:
    given = wanted.parameters
    type_ = given.service_type or "LoadBalancer"
    outside = {"externalTrafficPolicy": given.external_traffic_policy or "Local"}
    balanced = {"loadBalancerClass": given.load_balancer_class} if given.load_balancer_class else {}
    for address in addresses.wanted(wanted.gateway.spec)[:1]:
        balanced["loadBalancerIP"] = address
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(wanted.gateway),
        "spec": {
            "type": type_,
            "selector": _selector(wanted.gateway),
            **(outside if type_ != "ClusterIP" else {}),
            **(balanced if type_ == "LoadBalancer" else {}),
            "ports": [
                {
                    "name": f"{transport.lower()}-{port}",
                    "port": port,
                    "targetPort": port,
                    "protocol": transport,
                }
                for port, transport in sorted(wanted.ports)
            ],
        },
    }
