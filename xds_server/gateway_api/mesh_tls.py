"""Mutual TLS between sidecars, in the gateway language: certificates with SPIFFE IDs of service accounts.

https://spiffe.io/docs/latest/spiffe-specs/spiffe-id/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xds_server.gateway.model.upstreams import UpstreamTls
from xds_server.gateway_api.mesh_specs import ANY

SECRET = "xds-mesh"  # noqa: S105 - a name
"""The secret with the certificate of a sidecar. What the language has is a stand-in for that of each account."""
SERVER_NAME = "mesh.xds-gateway.dev"
"""The server name (SNI) by which a sidecar tells connections of other sidecars from TLS of applications."""
_PARTS = {"certificate": f"{SECRET}/tls.crt", "private_key": f"{SECRET}/tls.key"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshTrust:
    """The trust domain, the authorities of its certificates (PEM), and the stand-in for a certificate (PEM)."""

    domain: str
    bundle: bytes
    certificate: bytes
    private_key: bytes

    def contents(self) -> Mapping[str, bytes]:
        """Return what the secret refers to."""
        return {_PARTS["certificate"]: self.certificate, _PARTS["private_key"]: self.private_key}

    def secrets(self) -> Mapping[str, Any]:
        """Return the secret in the gateway language."""
        return {SECRET: {key: {"file": path} for key, path in _PARTS.items()}}

    def upstream(self, namespace: str) -> Mapping[str, Any]:
        """Return `tls` of an upstream in a namespace, for those endpoints that have a sidecar.

        Its endpoints must have the name of one of their accounts. These names come with the endpoints (`names_of`), so
        this has only the part that they have in common, which is the name of nobody.
        """
        return {
            "sni": SERVER_NAME,
            "ca": {"inline": self.bundle.decode()},
            "client_certificate": SECRET,
            "subject_alt_names": [spiffe_id(self.domain, namespace, "")],
            "minimum_version": "1.3",
            "optional": True,
        }

    def pods(self, namespace: str, account: str) -> Mapping[str, Any]:
        """Return `tls` of an upstream of pods that have a sidecar and this account."""
        values = {
            **self.upstream(namespace),
            "subject_alt_names": [spiffe_id(self.domain, namespace, account)],
        }
        return {key: one for key, one in values.items() if key != "optional"}

    def listener(self, clients: Sequence[str]) -> Mapping[str, Any]:
        """Return `tls` of a listener for connections of other sidecars. Only clients with these names may connect."""
        return {
            "certificates": [SECRET],
            "minimum_version": "1.3",
            "client_certificate": {
                "ca": {"inline": self.bundle.decode()},
                "subject_alt_names": [*clients],
            },
        }

    def name(self, client: tuple[str, str]) -> str:
        """Return the name of clients by namespace and account, "*" for all."""
        return spiffe_id(self.domain, *client) if client[0] != ANY else f"spiffe://{self.domain}/*"


def spiffe_id(domain: str, namespace: str, account: str) -> str:
    """Return the name of a service account in its certificate, or the prefix for all of a namespace.

    That of an account without a name ends as the others begin.
    """
    return f"spiffe://{domain}/ns/{namespace}/{'*' if account == '*' else f'sa/{account}'}"


def names_of(tls: UpstreamTls, accounts: Iterable[str]) -> list[str]:
    """Return the names that endpoints of these accounts may have, if `tls` is that of an upstream of the mesh."""
    return [f"{common}{account}" for common in tls.subject_alt_names for account in sorted(accounts)]
