"""GatewayPolicies at their targets: which of them apply to a route, in which order, and what is true of each (GEP-713).

The levels are those of the language: Gateway, listener, route, rule. Each policy is a policy set, and a route uses the
sets of all levels, and then those that override, from the innermost level to the outermost. At one level the oldest
policy is used last, so it wins key by key.
https://gateway-api.sigs.k8s.io/geps/gep-713/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from filters.language.problems import did_you_mean
from filters.pipeline import POLICIES
from filters.policy import Stage
from xds_server.gateway.model.policies import by_key
from xds_server.gateway_api import names
from xds_server.gateway_api.cluster import Cluster, Route
from xds_server.gateway_api.conditions import AncestorStatus, Condition, ObjectStatus, accepted
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.policy_resolution import Resolved, Resolver
from xds_server.gateway_api.policy_specs import GROUP, SECTIONS, PolicySpec, TargetRef
from xds_server.gateway_api.route_specs import HttpRouteSpec
from xds_server.gateway_api.specs import GatewaySpec, ParentReference
from xds_server.gateway_api.upstreams import ServiceUpstream

AFFECTED = f"{GROUP}/GatewayPolicyAffected"
"""The condition of a Gateway or route that has policies."""
_MOST_ANCESTORS = 16
"""Entries of `status.ancestors`, by its schema in the Gateway API."""
_Policy = Object[PolicySpec]
_Target = tuple[str, Key]
_SECTIONS_OF = {"Gateway": "listener", "HTTPRoute": "rule", "GRPCRoute": "rule"}


@dataclass(frozen=True, slots=True)
class Level:
    """The policy sets of a route of the language. If it is `closed`, a policy cannot be used, so requests get 500."""

    use: tuple[str, ...] = ()
    closed: bool = False


_NONE = Level()
_WAYS = frozenset(one.key for one in POLICIES if one.stage is Stage.AUTHENTICATE) - {"authentication"}
"""The policies that identify callers, of which one suffices unless `authentication` says otherwise."""
_Lost = dict[Key, dict[str, None]]
"""The keys that policies have which come first, by these policies."""


class GatewayPolicies:
    """What one Gateway has of our own kinds. `files`, `origins` and `contents` are those of GatewayFiles."""

    def __init__(self, book: PolicyBook, gateway: Key, routes: Iterable[Route]) -> None:
        self._book, self._target = book, ("Gateway", gateway)
        self.files: dict[str, Mapping[str, Any]] = {}
        self.origins: dict[str, Object[Any]] = {}
        self.contents: dict[str, bytes] = {}
        self.upstreams: list[ServiceUpstream] = []
        self._kept: set[Key] = set()
        self._clashes: dict[Key, Key] = {}
        """Policies whose ways to authenticate another one does not allow, with that one."""
        self._names = {one.meta.key: names.of(*one.meta.key) for one in book.policies}
        own = book.at(self._target)
        allowed = [one.spec.allowed for one in own.get(None, ()) if one.spec.allowed is not None]
        resolver = Resolver(gateway, allowed, book.cluster)
        self._identities = resolver.identities
        targets = [self._target, *((route.kind, route.meta.key) for route in routes if book.policies)]
        self._levels = [some for target in targets for some in book.at(target).values()]
        found = {one.meta.key: one for some in self._levels for one in some}
        self._resolved = {key: resolver.policy(one) for key, one in found.items()}
        for kind, objects in self._identities.items():
            for one, resolved in objects.values():
                self._add(kind, one, resolved)
        for key, policy in found.items():
            self._add("GatewayPolicy", policy, self._resolved[key])

    def _add(self, kind: str, one: Object[Any], resolved: Resolved) -> None:
        if resolved.fault:
            return
        file = f"{kind}/{'/'.join(one.meta.key)}.yaml"
        self.files[file] = {SECTIONS[kind]: {names.of(*one.meta.key): resolved.values}}
        self.origins[file] = one
        self.contents.update(resolved.contents)
        self.upstreams += resolved.upstreams

    def concern(self, route: Route) -> bool:
        """True if there may be policies of a route: its own, or those of the Gateway."""
        return bool(self._book.at(self._target) or self._book.at((route.kind, route.meta.key)))

    def level(self, route: Route, rule: str | None, listener: str) -> Level:
        """Return the policies of a rule of a route on a listener, which has its name in the language."""
        if not self.concern(route) or route.kind not in _SECTIONS_OF:  # connections have no policies
            return _NONE
        gateway, own = self._book.at(self._target), self._book.at((route.kind, route.meta.key))
        on_listener = [
            some for name, some in gateway.items() if name is not None and names.of(name) == listener
        ]
        levels = [gateway.get(None, ()), *on_listener, own.get(None, ())]
        if rule is not None:
            levels.append(own.get(rule, ()))
        found = [one for level in levels for one in reversed(level) if not one.spec.override]
        found += [one for level in reversed(levels) for one in reversed(level) if one.spec.override]
        closed = any(self._resolved[one.meta.key].fault for one in found) or self._clashing(found)
        last = dict.fromkeys(self._names[one.meta.key] for one in reversed(found))
        return Level(tuple(reversed(last)), closed)

    def _clashing(self, found: Iterable[_Policy]) -> bool:
        """True if a policy adds a way to authenticate to those on which another one insists: one of them would suffice."""
        insisting = [one for one in found if one.spec.override and _ways(one)]
        if not insisting:
            return False
        taken = {way for one in insisting for way in _ways(one)}
        others = [one for one in found if not one.spec.override and _ways(one) - taken]
        self._clashes.update((one.meta.key, insisting[0].meta.key) for one in others)
        return bool(others)

    def affecting(self, kind: str, key: Key) -> tuple[Condition, ...]:
        """Return the condition that says which policies a Gateway or route has, if it has some."""
        found = {one.meta.key: one for some in self._book.at((kind, key)).values() for one in some}
        if not found:
            return ()
        told = ", ".join("/".join(one) for one in sorted(found))
        return (Condition(AFFECTED, True, "PolicyAffected", f"GatewayPolicies: {told}"),)

    def conditions(self) -> Iterator[tuple[str, Key, tuple[Condition, ...]]]:
        """Yield what is true of each object here, with its kind and key."""
        for kind, objects in self._identities.items():
            for key, (_, resolved) in objects.items():
                yield kind, key, (accepted("Invalid", resolved.fault) if resolved.fault else accepted(),)
        for key, resolved in self._resolved.items():
            yield "GatewayPolicy", key, self._of_policy(key, resolved)

    def _of_policy(self, key: Key, resolved: Resolved) -> tuple[Condition, ...]:
        if resolved.fault:
            return (accepted("Invalid", f"requests of its targets get 500: {resolved.fault}"),)
        if key in self._clashes:
            told = f"{'/'.join(self._clashes[key])} insists on its ways to authenticate; remove those of this policy"
            return (accepted("Conflicted", f"requests of its targets get 500: {told}"),)
        lost = self._conflicts.get(key)
        if not lost:
            return (accepted(),)
        told = "; ".join(
            f"{'/'.join(first)} comes first and has {', '.join(keys)}" for first, keys in lost.items()
        )
        if key not in self._kept:
            return (accepted("Conflicted", told),)
        return (accepted(), Condition("Conflicted", True, "Conflicted", told))

    @cached_property
    def _conflicts(self) -> Mapping[Key, _Lost]:
        """What each policy loses to others of the same targets; a policy that loses nothing is not in it."""
        found: dict[Key, _Lost] = {}
        for level in self._levels:
            older: dict[str, _Policy] = {}
            for one in level:
                if one.spec.written.faults:
                    continue
                mine = one.spec.written.values
                taken = {name: older[name] for name in mine if _conflict(name, one, older.get(name))}
                for name, owner in taken.items():
                    found.setdefault(one.meta.key, {}).setdefault(owner.meta.key, {})[name] = None
                if len(taken) < len(mine) or not mine:
                    self._kept.add(one.meta.key)
                for name in mine:
                    older.setdefault(name, one)
        return found


def _ways(policy: _Policy) -> set[str]:
    values = policy.spec.written.values
    return {key for key, value in values.items() if key in _WAYS and value not in ("off", False)}


def _conflict(key: str, younger: _Policy, older: _Policy | None) -> bool:
    """True if a policy of one level has no effect beside an older one. Two limits hold both."""
    if older is None:
        return False
    values = (one.spec.written.values[key] for one in (younger, older))
    return not by_key()[key].cumulative or any(value in ("off", False) for value in values)


def _rank(policy: _Policy) -> tuple[bool, str, Key]:
    """Return what decides between policies of one target: the lowest comes first."""
    return (not policy.spec.override, policy.meta.created, policy.meta.key)


@dataclass(frozen=True)
class PolicyBook:
    """All GatewayPolicies of a cluster by their targets, in their order."""

    cluster: Cluster
    policies: tuple[_Policy, ...]
    _at: Mapping[_Target, Mapping[str | None, tuple[_Policy, ...]]] = field(default_factory=dict)

    @classmethod
    def of(cls, cluster: Cluster) -> PolicyBook:
        """Return the policies of a cluster."""
        every = tuple(sorted(cluster.all("GatewayPolicy"), key=_rank))
        found: dict[_Target, dict[str | None, dict[Key, _Policy]]] = {}
        for one in every:
            for target in one.spec.targets:
                sections = found.setdefault((target.kind, (one.meta.namespace, target.name)), {})
                sections.setdefault(target.section_name, {})[one.meta.key] = one
        at = {
            target: {section: tuple(some.values()) for section, some in sections.items()}
            for target, sections in found.items()
        }
        return cls(cluster, every, at)

    def at(self, target: _Target) -> Mapping[str | None, tuple[_Policy, ...]]:
        """Return the policies for a Gateway or route by the name of a listener or rule, None for the whole."""
        return self._at.get(target, {})

    def statuses(self, gateways: Mapping[Key, GatewayPolicies]) -> Iterator[ObjectStatus]:
        """Yield the status of each object of our own kinds. `gateways` are those of our classes."""
        found: dict[tuple[str, Key], list[AncestorStatus]] = {}
        for (namespace, name), policies in sorted(gateways.items()):
            reference = ParentReference(namespace=namespace, name=name)
            for kind, key, conditions in policies.conditions():
                ancestors = found.setdefault((kind, key), [])
                ancestors.append(AncestorStatus(ancestor=reference, conditions=conditions))
        for one in self.policies:
            ancestors = found.setdefault(("GatewayPolicy", one.meta.key), [])
            ancestors += self._not_found(one, gateways)
        for kind in SECTIONS:
            for one in self.cluster.all(kind):
                yield ObjectStatus(
                    kind=kind,
                    key=one.meta.key,
                    generation=one.meta.generation,
                    ancestors=tuple(found.get((kind, one.meta.key), ())[:_MOST_ANCESTORS]),
                )

    def _not_found(self, policy: _Policy, ours: Mapping[Key, GatewayPolicies]) -> Iterator[AncestorStatus]:
        for target in policy.spec.targets:
            message = self._missing(policy, target, ours)
            if message:
                reference = ParentReference(
                    kind=target.kind,
                    namespace=policy.meta.namespace,
                    name=target.name,
                    section_name=target.section_name,
                )
                yield AncestorStatus(ancestor=reference, conditions=(accepted("TargetNotFound", message),))

    def _missing(self, policy: _Policy, target: TargetRef, ours: Mapping[Key, GatewayPolicies]) -> str:
        """Return what is missing of a target; empty if nothing is, or if it is not ours."""
        key = (policy.meta.namespace, target.name)
        found = self.cluster.objects.get(target.kind, {}).get(key)
        if found is None:
            known = [
                name for namespace, name in self.cluster.objects.get(target.kind, {}) if namespace == key[0]
            ]
            hint = did_you_mean(target.name, known) or "add it"
            return f"there is no {target.kind} {'/'.join(key)}; {hint}"
        if target.section_name is None or (target.kind == "Gateway" and key not in ours):
            return ""
        if isinstance(found.spec, GatewaySpec):
            sections = [one.name for one in found.spec.listeners]
        else:
            spec: HttpRouteSpec = found.spec
            sections = [one.name for one in spec.rules if one.name is not None]
        if target.section_name in sections:
            return ""
        what = _SECTIONS_OF[target.kind]
        hint = did_you_mean(target.section_name, sections) or f"name its {what}s"
        return f"the {target.kind} {'/'.join(key)} has no {what} {target.section_name}; {hint}"
