"""The spec of GatewayParameters: the size and shape of what serves a Gateway, with the names that Kubernetes has for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from filters.language import Raw, option


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaling:
    """A HorizontalPodAutoscaler by the processor time of the pods."""

    min_replicas: int = option("The least number of pods.", minimum=1, default=2, key="minReplicas")
    max_replicas: int = option("The greatest number of pods.", minimum=1, key="maxReplicas")
    cpu_percent: int = option(
        "The share of the requested processor time to aim at.", minimum=1, default=70, key="cpuPercent"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayParametersSpec:
    """The Envoys of a Gateway. What a Gateway leaves out comes from its GatewayClass, and then from the controller."""

    workload: Literal["Deployment", "DaemonSet"] | None = option(
        "A number of pods, or one on each node.", default=None
    )
    replicas: int | None = option("The number of pods of a Deployment.", minimum=0, default=None)
    autoscaling: Autoscaling | None = option("A number of pods that follows the load.", default=None)
    image: str | None = option("The image of Envoy.", default=None)
    resources: Raw | None = option(
        "The resources of the container of Envoy: `requests` and `limits`.", default=None
    )
    drain_seconds: int | None = option(
        "How long a pod that ends goes on to serve, while its clients move to others.",
        minimum=0,
        maximum=3600,
        default=None,
        key="drainSeconds",
    )
    service_type: Literal["LoadBalancer", "NodePort", "ClusterIP"] | None = option(
        "The type of the Service.", default=None, key="serviceType"
    )
    external_traffic_policy: Literal["Local", "Cluster"] | None = option(
        "Whether the Service keeps the address of the client (Local) or uses pods of all nodes.",
        default=None,
        key="externalTrafficPolicy",
    )
    load_balancer_class: str | None = option(
        "The implementation of the load balancer.", default=None, key="loadBalancerClass"
    )
    node_selector: Mapping[str, str] | None = option(
        "Labels of nodes for the pods.", default=None, key="nodeSelector"
    )
    tolerations: tuple[Raw, ...] | None = option("Taints of nodes that the pods tolerate.", default=None)
    affinity: Raw | None = option("Rules for nodes and other pods.", default=None)
    topology_spread_constraints: tuple[Raw, ...] | None = option(
        "How the pods spread over zones and nodes.", default=None, key="topologySpreadConstraints"
    )
    priority_class_name: str | None = option(
        "The priority of the pods.", default=None, key="priorityClassName"
    )

    def over(self, outer: GatewayParametersSpec) -> GatewayParametersSpec:
        """Return these parameters, with those of an outer level where they say nothing."""
        given = {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}
        return replace(outer, **given)
