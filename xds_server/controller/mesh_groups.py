"""The groups of a mesh.

Sidecars of one service account get what their namespace gets, with the certificate of the account. Clients of gRPC that
speak xDS themselves get the same routes and endpoints in their own form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from xds_server.controller.mesh_identities import MeshIdentities
from xds_server.controller.served import ServedGateway
from xds_server.discovery.snapshot import EMPTY, Snapshot
from xds_server.gateway_api.mesh import mesh_key
from xds_server.gateway_api.objects import Key
from xds_server.translate.grpc_clients import GrpcClients


class MeshGroups:
    """The accounts whose sidecars have connected. `publish` makes a snapshot current for a group.

    `served` has what is served by the key of a namespace, or of an account that a policy names. Without `identities`,
    sidecars have no certificates.
    """

    def __init__(
        self,
        publish: Callable[[str, Snapshot], None],
        served: Mapping[Key, ServedGateway],
        identities: MeshIdentities | None,
    ) -> None:
        self._publish, self._served, self.identities = publish, served, identities
        self._accounts: dict[Key, None] = {}
        self._grpc: dict[str, GrpcClients] = {}
        """By namespace."""

    def join(self, account: Key) -> str | None:
        """Return the group of the sidecars of an account, which has its snapshot then, or None if there is no mesh."""
        key = self._key(account)
        if key is None:
            return None
        if account not in self._accounts:
            self._accounts[account] = None
            self._current(account, key)
        return _group(account)

    def join_grpc(self, namespace: str) -> str | None:
        """Return the group of the clients of gRPC in a namespace, which has its snapshot then, or None if there is no mesh."""
        key = mesh_key(namespace)
        if key not in self._served:
            return None
        if namespace not in self._grpc:
            self._grpc[namespace] = GrpcClients()
            self._current_grpc(namespace)
        return _group_of_grpc(namespace)

    def changed(self, key: Key) -> None:
        """Have what is served by a key current for its accounts, and for clients of gRPC."""
        if key == mesh_key(key[0]) and key[0] in self._grpc:
            self._current_grpc(key[0])
        for account in self._of(key[0]):
            if self._key(account) == key:
                self._current(account, key)

    def removed(self, key: Key) -> None:
        """Serve nothing to accounts whose namespace is no longer in the mesh, and the rest to those without a policy."""
        if key == mesh_key(key[0]) and self._grpc.pop(key[0], None) is not None:
            self._publish(_group_of_grpc(key[0]), EMPTY)
        for account in self._of(key[0]):
            rest = self._key(account)
            if rest is not None:
                self._current(account, rest)
            else:
                del self._accounts[account]
                if self.identities is not None:
                    self.identities.forget(account)
                self._publish(_group(account), EMPTY)

    def _current(self, account: Key, key: Key) -> None:
        snapshot = self._served[key].snapshot
        if snapshot is None:
            return
        if self.identities is not None:
            snapshot = self.identities.with_certificate(snapshot, account)
        self._publish(_group(account), snapshot)

    def _current_grpc(self, namespace: str) -> None:
        served = self._served[mesh_key(namespace)]
        if served.snapshot is not None:
            snapshot = self._grpc[namespace].snapshot(served.snapshot, served.addresses)
            self._publish(_group_of_grpc(namespace), snapshot)

    def _key(self, account: Key) -> Key | None:
        namespace, name = account
        return next(
            (key for key in (mesh_key(namespace, name), mesh_key(namespace)) if key in self._served), None
        )

    def _of(self, namespace: str) -> Iterator[Key]:
        return iter([one for one in self._accounts if one[0] == namespace])


def is_mesh(key: Key) -> bool:
    """True for the key of sidecars, which no Gateway has."""
    return not key[1] or key[1].startswith("@")


def _group_of_grpc(namespace: str) -> str:
    return f"grpc/{namespace}/"


def _group(account: Key) -> str:
    return "/".join(mesh_key(*account))
