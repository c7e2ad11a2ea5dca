"""The spec of our own kind MeshPolicy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from filters.language import option


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshClient:
    """Clients of the mesh, by the service account of their pods."""

    namespace: str | None = option("The namespace; default that of the policy.", default=None)
    service_account: str = option(
        "The account; `*` for all of the namespace.", default="*", key="serviceAccount"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshPolicySpec:
    """What the pods of a namespace accept."""

    service_accounts: tuple[str, ...] = option(
        "The accounts of the pods; all of the namespace if left out.", default=(), key="serviceAccounts"
    )
    mtls: Literal["permissive", "strict"] = option(
        "`strict` rejects connections without a certificate of the mesh.", default="permissive"
    )
    allow: tuple[MeshClient, ...] | None = option(
        "Only these clients. It implies `strict`.", default=None, minimum_items=1
    )


UNREADABLE = MeshPolicySpec(mtls="strict", allow=())
"""Stands for a policy that is not understood: nobody may connect, because it would protect something."""
