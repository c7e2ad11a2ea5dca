"""Manifests: YAML files with objects of Kubernetes, read as a cluster with the place of each problem."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from filters.language import Path, Place, Problem, Problems
from filters.language.problems import did_you_mean
from xds_server.gateway import document
from xds_server.gateway.document import Part
from xds_server.gateway_api import policy_specs
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import Condition
from xds_server.gateway_api.objects import GATEWAY_LABEL, KINDS, Object, kind_of, read_object
from xds_server.gateway_api.specs import GROUP
from xds_server.gateway_api.translation import Translation

_SERVED = {
    group: sorted(one.name for one in KINDS if one.group == group) for group in (GROUP, policy_specs.GROUP)
}
_SELECTORS = "targetSelectors"
"""Of Envoy Gateway: targets by their labels. The group may be left out."""
_TARGETS = ("targetRef", "targetRefs", _SELECTORS)
_OF_LISTENERS = ("ListenersNotValid", "ListenersNotResolved")
"""Reasons that sum up conditions of listeners."""


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    objects: tuple[Object[Any], ...]
    problems: tuple[Problem, ...]


class Manifests:
    """Reads successive states of a folder of manifests. A file that did not change is not read again."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}

    def read(self, files: Mapping[str, bytes]) -> tuple[Cluster, list[Problem]]:
        """Return the objects of all files, and all problems of their text and schema."""
        kept: dict[str, _File] = {}
        for name in sorted(files):
            known = self._files.get(name)
            kept[name] = (
                known if known is not None and known.content == files[name] else _read(name, files[name])
            )
        self._files = kept
        objects = [one for file in kept.values() for one in file.objects]
        problems = [one for file in kept.values() for one in file.problems]
        return Cluster.of(objects), [*problems, *_twice(objects)]


def _read(name: str, content: bytes) -> _File:
    parts, found = document.parse_all(name, content)
    objects: list[Object[Any]] = []
    problems = list(found)
    for part in parts:
        for path, value in _items(part):
            faults = Problems()
            one = _object(part, path, value, faults)
            if one is not None:
                objects.append(one)
            problems += (_placed(fault, part, path, value) for fault in faults)
    return _File(content, tuple(objects), tuple(problems))


def _items(part: Part) -> Iterator[tuple[Path, Any]]:
    """Yield the object of a document, or those of a List."""
    values = part.values
    if isinstance(values, dict) and values.get("kind") == "List" and isinstance(values.get("items"), list):
        yield from ((("items", number), one) for number, one in enumerate(values["items"]))
    else:
        yield (), values


def _object(part: Part, path: Path, value: Any, problems: Problems) -> Object[Any] | None:
    if not isinstance(value, dict) or not {"apiVersion", "kind"} <= value.keys():
        message, remedy = "an object has apiVersion and kind", "add them, or move this file out of the folder"
        problems.append(Problem(path=path, message=message, remedy=remedy))
        return None
    kind = kind_of(value)
    if kind is not None:
        return read_object(kind, value, path, problems, part.place(path))
    group = str(value["apiVersion"]).rpartition("/")[0]
    if group in _SERVED:
        what = "the Gateway API" if group == GROUP else group
        problems.append(
            Problem(
                path=(*path, "kind"),
                message=f"the kind {value['kind']} of {what} is not served",
                remedy=did_you_mean(str(value["kind"]), _SERVED[group]),
                severity="warning" if group == GROUP else "error",
            )
        )
    elif _is_policy(value):
        problems.append(
            Problem(
                path=(*path, "kind"),
                message=f"the {value['kind']} of {group} has no effect here, and its targets are served without it",
                remedy="write what it does as a GatewayPolicy, and remove it from the folder",
                severity="warning",
            )
        )
    return None


def _is_policy(value: Mapping[str, Any]) -> bool:
    """True if an object of another controller attaches to Gateways or routes, as GEP-713 says."""
    spec = value.get("spec")
    if not isinstance(spec, dict):
        return False
    for key in _TARGETS:
        targets = spec.get(key)
        for one in targets if isinstance(targets, list) else [targets]:
            if isinstance(one, dict) and one.get("group", GROUP if key == _SELECTORS else None) == GROUP:
                return True
    return False


def _placed(problem: Problem, part: Part, path: Path, value: Any) -> Problem:
    """Return a problem with its place, and with the object in place of its position in the file."""
    place = part.place(problem.path, at_key=problem.at_key)
    name = (value.get("metadata") or {}).get("name") if isinstance(value, dict) else None
    of = (f"{value['kind']}/{name}",) if name and "kind" in value else ()
    return replace(problem, place=place, path=(*of, *problem.path[len(path) :]))


def _twice(objects: Iterable[Object[Any]]) -> Iterator[Problem]:
    first: dict[Any, Place | None] = {}
    for one in objects:
        key = (one.kind, one.meta.key)
        if key in first:
            yield Problem(
                path=(f"{one.kind}/{one.meta.name}",),
                message="this object is given twice",
                remedy="remove or rename one of them",
                place=one.place,
                also=first[key],
            )
        first.setdefault(key, one.place)


def findings(translation: Translation, cluster: Cluster) -> Iterator[Problem]:
    """Yield a warning for each condition that is not as it should be. What has no fault is served nevertheless."""
    for gateway in translation.gateway_statuses:
        one = cluster.gateway(gateway.key)
        general = (each for each in gateway.conditions if each.reason not in _OF_LISTENERS)
        yield from _warnings(one, (), general)
        for listener in gateway.listeners:
            yield from _warnings(one, (f"listeners.{listener.name}",), listener.conditions)
    for owner in translation.set_statuses:
        listener_set = cluster.listener_set(owner.key)
        yield from _warnings(listener_set, (), (owner.accepted,))
        for listener in owner.listeners:
            yield from _warnings(listener_set, (f"listeners.{listener.name}",), listener.conditions)
    objects = {(one.kind, one.meta.key): one for one in cluster.routes()}
    attached = {(status.kind, status.key) for status in translation.route_statuses}
    for status in translation.route_statuses:
        for parent in status.parents:
            yield from _warnings(objects[status.kind, status.key], (), parent.conditions)
    policies = {one.meta.key: one for one in cluster.all("BackendTLSPolicy")}
    for policy in translation.policy_statuses:
        yield from _warnings(policies[policy.key], (), policy.conditions)
    for own in translation.object_statuses:
        for ancestor in own.ancestors:
            yield from _warnings(cluster.objects[own.kind][own.key], (), ancestor.conditions)
    yield from _of_ingresses(translation, cluster)
    yield from _without_gateway(cluster)
    for key, route in objects.items():
        if key not in attached:
            message = "no Gateway that is served here is a parent of this route"
            yield Problem(
                path=(f"{route.kind}/{route.meta}",),
                message=message,
                remedy="name one under parentRefs",
                severity="warning",
                place=route.place,
            )


def _of_ingresses(translation: Translation, cluster: Cluster) -> Iterator[Problem]:
    for status in translation.ingress_statuses:
        for fault in status.faults:
            one = cluster.objects[status.kind][status.key]
            yield Problem(
                path=(f"{one.kind}/{one.meta}", *fault.path),
                message=fault.message,
                remedy=fault.remedy,
                severity="warning",
                place=one.place,
            )


def _without_gateway(cluster: Cluster) -> Iterator[Problem]:
    for one in cluster.all("ConfigMap"):
        name = one.meta.labels.get(GATEWAY_LABEL)
        if name is not None and cluster.gateway((one.meta.namespace, name)) is None:
            known = [key[1] for key in cluster.objects.get("Gateway", {}) if key[0] == one.meta.namespace]
            yield Problem(
                path=(f"ConfigMap/{one.meta}", "metadata", "labels", GATEWAY_LABEL),
                message=f"there is no Gateway {one.meta.namespace}/{name}",
                remedy=did_you_mean(name, known) or "remove the label",
                severity="warning",
                place=one.place,
            )


def _warnings(
    one: Object[Any] | None, path: tuple[str, ...], conditions: Iterable[Condition]
) -> Iterator[Problem]:
    if one is None:
        return
    for condition in conditions:
        if condition.status == (condition.type in ("Conflicted", "PartiallyInvalid")):
            yield Problem(
                path=(f"{one.kind}/{one.meta}", *path),
                message=f"{condition.type} is {condition.status}: {condition.reason}: {condition.message}",
                severity="warning",
                place=one.place,
            )
