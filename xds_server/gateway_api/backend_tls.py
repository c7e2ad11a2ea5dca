"""BackendTLSPolicies: TLS towards the endpoints of a Service, and which of several policies counts (GEP-1897, GEP-713)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xds_server.gateway_api.authorities import UnusableAuthority, authority
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import Condition, accepted, resolved
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.specs import BackendTlsPolicySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendTls:
    """TLS to a backend. `authorities` are PEM, "" for those of the system. `names` are in the backend's certificate.

    `verify` is false if any certificate will do.
    """

    hostname: str
    authorities: str
    names: tuple[str, ...]
    verify: bool = True

    def values(self) -> Mapping[str, Any]:
        """Return the key `tls` of an upstream."""
        if not self.verify:
            return {"verify": False}
        authorities = {"ca": {"inline": self.authorities}} if self.authorities else {}
        return {
            "sni": self.hostname,
            "subject_alt_names": list(self.names or (self.hostname,)),
            **authorities,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyState:
    """A policy with what is true of it. `tls` is None if it cannot be used: then its backends must not be either."""

    policy: Object[BackendTlsPolicySpec]
    conditions: tuple[Condition, ...]
    tls: BackendTls | None


def policy_for(service: Key, port_name: str, cluster: Cluster) -> PolicyState | None:
    """Return the policy of a port of a Service: the oldest one for the port by its name, else for the whole Service."""
    policies = cluster.backend_policies(service)
    found = policies.get(port_name) or policies.get(None)
    return state_of(found[0], cluster) if found else None


def state_of(policy: Object[BackendTlsPolicySpec], cluster: Cluster) -> PolicyState:
    """Return what is true of a policy."""
    if not _wins(policy, cluster):
        message = "an older policy has the same target"
        return PolicyState(policy=policy, conditions=(accepted("Conflicted", message), resolved()), tls=None)
    validation = policy.spec.validation
    names = tuple(one.hostname or one.uri or "" for one in validation.subject_alt_names)
    if validation.well_known == "System":
        tls = BackendTls(hostname=validation.hostname, authorities="", names=names)
        return PolicyState(policy=policy, conditions=(accepted(), resolved()), tls=tls)
    found: list[str] = []
    fault: Condition | None = None
    for reference in validation.authorities:
        key = (policy.meta.namespace, reference.name)
        try:
            found.append(authority(reference.group, reference.kind, key, cluster))
        except UnusableAuthority as error:
            reason = "InvalidKind" if error.what == "kind" else "InvalidCACertificateRef"
            fault = fault or resolved(reason, error.message)
    if not found:
        message = fault.message if fault is not None else "no authority is named"
        conditions = (accepted("NoValidCACertificate", message), fault or resolved())
        return PolicyState(policy=policy, conditions=conditions, tls=None)
    tls = BackendTls(hostname=validation.hostname, authorities="\n".join(found), names=names)
    return PolicyState(policy=policy, conditions=(accepted(), fault or resolved()), tls=tls)


def _wins(policy: Object[BackendTlsPolicySpec], cluster: Cluster) -> bool:
    """True if a policy is the oldest one for some of its targets."""
    return any(
        cluster.backend_policies((policy.meta.namespace, target.name))[target.section_name][0] is policy
        for target in policy.spec.target_refs
        if (target.group, target.kind) == ("", "Service")
    )
