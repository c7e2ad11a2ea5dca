"""IngressClasses in a cluster: what stands for one as a Gateway does, and what is told of its Ingresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xds_server.controller.watched_kinds import RESOURCES
from xds_server.gateway_api import parameters, statuses
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import Condition
from xds_server.gateway_api.ingress import NAMESPACE, IngressClass, class_key
from xds_server.gateway_api.objects import Key, Meta, Object
from xds_server.gateway_api.parameter_specs import GatewayParametersSpec
from xds_server.gateway_api.specs import GatewaySpec
from xds_server.gateway_api.translation import Translation
from xds_server.kubernetes.event_writer import EventWriter, Told
from xds_server.kubernetes.resources import Key as ObjectKey

_PREFIX = "Ingress."
"""Begins the name of what stands for a class. No Gateway has such a name, because it has upper case."""


def is_class(key: Key) -> bool:
    """True for the key of an IngressClass among those of Gateways."""
    return key[0] == NAMESPACE


def find(key: Key, cluster: Cluster) -> IngressClass | None:
    """Return the IngressClass of a key."""
    return cluster.objects.get("IngressClass", {}).get(("", key[1]))


def as_gateway(one: IngressClass, namespace: str) -> Object[GatewaySpec]:
    """Return what stands for a class where objects are made that serve a Gateway.

    They are in the namespace of its parameters, or else in `namespace`.
    """
    reference = one.spec.declared.parameters
    within = (reference.namespace if reference is not None else None) or namespace
    meta = Meta(namespace=within, name=_PREFIX + one.meta.name, uid=one.meta.uid, created=one.meta.created)
    return Object(kind=one.kind, meta=meta, spec=GatewaySpec(gateway_class_name="ingress", listeners=()))


def name_of(gateway: Object[GatewaySpec]) -> str:
    """Return the name of a Gateway, or of the class that it stands for."""
    return gateway.meta.name.removeprefix(_PREFIX)


def parameters_of(one: IngressClass, cluster: Cluster) -> tuple[GatewayParametersSpec, Condition | None]:
    """Return the parameters of a class, and why they cannot be used."""
    return parameters.of_ingress_class(one, cluster)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassState:
    """What is true of an IngressClass: whether its Envoys have it, its addresses, and the objects that the language rejects."""

    programmed: Condition
    addresses: tuple[str, ...]
    rejected: Mapping[tuple[str, Key], str]


class IngressWriter:
    """Has the addresses of Ingresses written by `want`, and what is wrong with them told by Events."""

    def __init__(
        self, events: EventWriter, want: Callable[[str, Key, Mapping[str, Any], Cluster], None]
    ) -> None:
        self._events, self._want = events, want
        self._addressed: dict[Key, tuple[Translation, tuple[str, ...]]] = {}
        self._ours: set[Key] = set()
        """The Ingresses that got addresses."""
        self._all_read = False
        """Whether those of other classes were looked at since somebody else may have written."""

    def forget(self) -> None:
        """Forget what is there, because somebody else may have written."""
        self._addressed.clear()
        self._all_read = False

    def write(self, translation: Translation, cluster: Cluster, states: Mapping[Key, ClassState]) -> None:
        """Have the current state written. Ingresses get addresses when Envoys have what they say."""
        for key, state in states.items():
            addressed = (translation, state.addresses)
            if state.programmed.status and self._addressed.get(key) != addressed:
                self._addressed[key] = addressed
                for one in translation.ingress_statuses:
                    if one.kind == "Ingress" and one.ingress_class == key[1]:
                        self._ours.add(one.key)
                        self._want("Ingress", one.key, statuses.ingress_status(state.addresses), cluster)
        served = {one.key for one in translation.ingress_statuses if one.kind == "Ingress"}
        present = cluster.objects.get("Ingress", {}).keys()
        # any of the others may have got its address of a former leader, which the API server knows
        gone = (self._ours & present if self._all_read else present) - served
        for name in gone:
            self._want("Ingress", name, {}, cluster)
        self._ours &= served
        self._all_read = True
        self._events.want((*_faults(translation, cluster, states), *_of_classes(cluster, states)))


def _faults(translation: Translation, cluster: Cluster, states: Mapping[Key, ClassState]) -> Iterator[Told]:
    for status in translation.ingress_statuses:
        found = cluster.objects.get(status.kind, {}).get(status.key)
        key, uid = ObjectKey(*status.key), found.meta.uid if found is not None else ""
        for fault in status.faults:
            yield Told(RESOURCES[status.kind], key, uid, fault.reason, str(fault))
        rejected = states[class_key(status.ingress_class)].rejected.get((status.kind, status.key))
        if rejected is not None:
            message = f"its requests get 500: {rejected}"
            yield Told(RESOURCES[status.kind], key, uid, "RequestsRejected", message)


def _of_classes(cluster: Cluster, states: Mapping[Key, ClassState]) -> Iterator[Told]:
    for key, state in states.items():
        one = find(key, cluster)
        if one is None:
            continue
        name = ObjectKey("", one.meta.name)
        if not state.programmed.status and state.programmed.reason != "Pending":
            yield Told(
                RESOURCES["IngressClass"], name, one.meta.uid, "NotProgrammed", state.programmed.message
            )
