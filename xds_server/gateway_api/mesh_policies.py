"""MeshPolicies: what the pods of an account accept, united from all policies about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xds_server.gateway_api.capture import INJECT
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import AncestorStatus, Condition, ObjectStatus, accepted
from xds_server.gateway_api.mesh_specs import ANY, MeshAllow, MeshPolicySpec, MeshRule, UnreadablePolicy
from xds_server.gateway_api.objects import Object
from xds_server.gateway_api.specs import ParentReference


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class InboundRule:
    """Some connections or requests. `client` is a namespace and an account, "*" for all; None: a client of the mesh, or
    with `anonymous` anybody.

    `ports` are all if empty, and so are `methods` and `paths`.
    """

    client: tuple[str, str] | None = None
    anonymous: bool = False
    ports: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    when: str = ""

    @property
    def of_requests(self) -> bool:
        """True if connections alone do not tell whether it matches."""
        return bool(self.methods or self.paths or self.when)

    def concerns(self, port: int | None) -> bool:
        """True if it is about connections to a port, None for those that no rule names."""
        return not self.ports or port in self.ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """What the sidecars of some pods accept. `allow` is None if everything is allowed that `deny` does not deny.

    If nothing is in `allow`, every connection is closed. `strict` forbids plain text.
    """

    strict: bool = False
    allow: tuple[InboundRule, ...] | None = None
    deny: tuple[InboundRule, ...] = ()

    @property
    def rules(self) -> tuple[InboundRule, ...]:
        """All rules."""
        return (*(self.allow or ()), *self.deny)

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that some rule names."""
        return tuple(sorted({port for rule in self.rules for port in rule.ports}))

    def is_http(self, port: int | None) -> bool:
        """True if a rule is about the requests to a port, which has to be read as HTTP then."""
        return any(rule.of_requests and port in rule.ports for rule in self.rules)


CLOSED = Inbound(strict=True, allow=())


def inbound(namespace: str, account: str | None, cluster: Cluster) -> Inbound:
    """Return what the pods of an account accept; None stands for the accounts that no policy names.

    Several policies are united: one that is strict makes all strict, and each adds rules. One that is not understood
    closes the pods that it is for.
    """
    ours = [one.spec for one in _policies(namespace, cluster) if _concerns(one, account)]
    if any(isinstance(one, UnreadablePolicy) for one in ours):
        return CLOSED
    allowing = [one for one in ours if one.allow is not None]
    allow = {_allowed(rule, namespace) for one in allowing for rule in one.allow or ()}
    deny = {_rule(rule, namespace) for one in ours for rule in one.deny}
    return Inbound(
        strict=any(one.mtls == "strict" for one in ours),
        allow=tuple(sorted(allow, key=repr)) if allowing else None,
        deny=tuple(sorted(deny, key=repr)),
    )


def _allowed(rule: MeshAllow, namespace: str) -> InboundRule:
    return InboundRule(
        client=_client(rule, namespace),
        anonymous=rule.anonymous,
        ports=tuple(sorted(set(rule.ports))),
        methods=tuple(sorted(set(rule.methods))),
        paths=tuple(sorted(set(rule.paths))),
        when=rule.when or "",
    )


def _rule(rule: MeshRule, namespace: str) -> InboundRule:
    return InboundRule(
        client=_client(rule, namespace),
        anonymous=rule.namespace is None and rule.service_account is None,
        ports=tuple(sorted(set(rule.ports))),
        methods=tuple(sorted(set(rule.methods))),
        paths=tuple(sorted(set(rule.paths))),
    )


def _client(rule: MeshRule, namespace: str) -> tuple[str, str] | None:
    """Return namespace and account of a rule's client. An account without a namespace is one of the policy's."""
    if rule.namespace is None and rule.service_account is None:
        return None
    return rule.namespace or namespace, rule.service_account or ANY


def named_accounts(namespace: str, cluster: Cluster) -> list[str]:
    """Return the accounts of a namespace that some policy names."""
    return sorted({account for one in _policies(namespace, cluster) for account in one.spec.service_accounts})


def statuses(cluster: Cluster) -> Iterator[ObjectStatus]:
    """Yield what is true of each policy at its namespace, whose pods it is for."""
    for one in cluster.all("MeshPolicy"):
        namespace = ParentReference(group="", kind="Namespace", name=one.meta.namespace)
        ancestor = AncestorStatus(ancestor=namespace, conditions=(_accepted(one, cluster),))
        yield ObjectStatus(
            kind="MeshPolicy", key=one.meta.key, generation=one.meta.generation, ancestors=(ancestor,)
        )


def _accepted(policy: Object[MeshPolicySpec], cluster: Cluster) -> Condition:
    if isinstance(policy.spec, UnreadablePolicy):
        whose = ", ".join(policy.spec.service_accounts) or "the namespace"
        return accepted(
            "Invalid", f"the pods of {whose} accept no connection: {'; '.join(policy.spec.faults)}"
        )
    if cluster.labels(policy.meta.namespace).get(INJECT) != "enabled":
        message = f"the pods of the namespace have no sidecars; label it {INJECT}: enabled, and restart them"
        return accepted("TargetNotFound", message)
    return accepted()


def _policies(namespace: str, cluster: Cluster) -> Iterable[Object[MeshPolicySpec]]:
    return (one for one in cluster.all("MeshPolicy") if one.meta.namespace == namespace)


def _concerns(policy: Object[MeshPolicySpec], account: str | None) -> bool:
    return not policy.spec.service_accounts or account in policy.spec.service_accounts
