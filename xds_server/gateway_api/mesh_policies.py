"""MeshPolicies: whether the pods of an account accept connections without a certificate of the mesh, and from whom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.mesh_specs import UNREADABLE, MeshPolicySpec
from xds_server.gateway_api.objects import Object


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """What the sidecars of some pods accept. `clients` are namespaces and accounts, "*" for all; None: any client.

    If there are no `clients`, every connection is closed.
    """

    strict: bool = False
    clients: tuple[tuple[str, str], ...] | None = None


def inbound(namespace: str, account: str | None, cluster: Cluster) -> Inbound:
    """Return what the pods of an account accept; None stands for the accounts that no policy names.

    Several policies are united: one that is strict makes all strict, and each adds clients. One that is not understood
    closes the pods of the namespace.
    """
    ours = [one for one in _policies(namespace, cluster) if _concerns(one, account)]
    if any(one.spec is UNREADABLE for one in ours):
        return Inbound(strict=True, clients=())
    allowing = [one for one in ours if one.spec.allow is not None]
    clients = {
        (peer.namespace or namespace, peer.service_account)
        for one in allowing
        for peer in one.spec.allow or ()
    }
    return Inbound(
        strict=bool(allowing) or any(one.spec.mtls == "strict" for one in ours),
        clients=tuple(sorted(clients)) if allowing else None,
    )


def named_accounts(namespace: str, cluster: Cluster) -> list[str]:
    """Return the accounts of a namespace that some policy names."""
    return sorted({account for one in _policies(namespace, cluster) for account in one.spec.service_accounts})


def _policies(namespace: str, cluster: Cluster) -> Iterable[Object[MeshPolicySpec]]:
    return (one for one in cluster.all("MeshPolicy") if one.meta.namespace == namespace)


def _concerns(policy: Object[MeshPolicySpec], account: str | None) -> bool:
    return not policy.spec.service_accounts or account in policy.spec.service_accounts
