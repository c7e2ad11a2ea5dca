"""The certificates of the mesh: one for each service account of its Envoys, renewed before it expires."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from xds_server.certificate_authority.authority import KeyPair, issue
from xds_server.certificate_authority.rotation import Authorities
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import SECRET
from xds_server.gateway_api import mesh_tls
from xds_server.gateway_api.mesh_tls import MeshTrust, spiffe_id
from xds_server.gateway_api.objects import Key
from xds_server.translate import names

_NAME = names.certificate(mesh_tls.SECRET)
LIFETIME = timedelta(hours=24)
_DUE = 0.5
"""The share of its life after which a certificate is renewed: there is as much time for a controller that is down."""


class MeshIdentities:
    """Issues certificates by the authorities of the controller. They stay in the memory of this process.

    Replicas issue certificates of their own, which differ but are as good.
    """

    def __init__(
        self,
        authorities: Callable[[], Authorities],
        domain: str,
        *,
        lifetime: timedelta = LIFETIME,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._authorities, self._domain, self._lifetime, self._now = authorities, domain, lifetime, now
        self._issued: dict[Key, tuple[KeyPair, KeyPair, Resource]] = {}
        """By account: the authority, the certificate, and its resource."""
        self._trust: MeshTrust | None = None

    @property
    def bundle(self) -> bytes:
        """The authorities that sidecars trust in each other's certificates, in PEM."""
        return self._authorities().bundle

    def trust(self) -> MeshTrust:
        """Return what sidecars trust. It is the same value while the bundle of the authorities is."""
        bundle = self._authorities().bundle
        if self._trust is None or self._trust.bundle != bundle:
            stand_in = self._issue(("xds-gateway", "stand-in"))
            self._trust = MeshTrust(
                domain=self._domain,
                bundle=bundle,
                certificate=stand_in.certificate,
                private_key=stand_in.private_key,
            )
        return self._trust

    def due(self) -> bool:
        """True if some certificate should be renewed."""
        return any(not self._fresh(account) for account in self._issued)

    def forget(self, account: Key) -> None:
        """Renew the certificate of an account no longer."""
        self._issued.pop(account, None)

    def with_certificate(self, snapshot: Snapshot, account: Key) -> Snapshot:
        """Return a snapshot for the Envoys of an account, with its certificate if the snapshot needs one."""
        if _NAME not in snapshot[SECRET]:
            return snapshot
        if not self._fresh(account):
            pair = self._issue(account)
            self._issued[account] = (self._authorities().current, pair, _secret(pair))
        resource = self._issued[account][2]
        return snapshot.updated({SECRET: {**snapshot[SECRET], resource.name: resource}.values()})

    def _fresh(self, account: Key) -> bool:
        if account not in self._issued:
            return False
        authority, pair, _ = self._issued[account]
        return authority == self._authorities().current and not pair.due(self._now(), _DUE)

    def _issue(self, account: Key) -> KeyPair:
        name = spiffe_id(self._domain, *account)
        return issue(self._authorities().current, [name], self._now(), self._lifetime, client=True)


def _secret(pair: KeyPair) -> Resource:
    secret = secret_pb2.Secret(name=_NAME)
    secret.tls_certificate.certificate_chain.inline_bytes = pair.certificate
    secret.tls_certificate.private_key.inline_bytes = pair.private_key
    return Resource.of(secret, _NAME)
