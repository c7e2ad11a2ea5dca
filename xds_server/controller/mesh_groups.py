"""The groups of sidecars: those of one service account get what their namespace gets, with the certificate of the account."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from xds_server.controller.mesh_identities import MeshIdentities
from xds_server.controller.served import ServedGateway
from xds_server.discovery.snapshot import EMPTY, Snapshot
from xds_server.gateway_api.mesh import mesh_key
from xds_server.gateway_api.objects import Key


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

    def join(self, account: Key) -> str | None:
        """Return the group of the sidecars of an account, which has its snapshot then, or None if there is no mesh."""
        key = self._key(account)
        if key is None:
            return None
        if account not in self._accounts:
            self._accounts[account] = None
            self._current(account, key)
        return _group(account)

    def changed(self, key: Key) -> None:
        """Have what is served by a key current for its accounts."""
        for account in self._of(key[0]):
            if self._key(account) == key:
                self._current(account, key)

    def removed(self, key: Key) -> None:
        """Serve nothing to accounts whose namespace is no longer in the mesh, and the rest to those without a policy."""
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


def _group(account: Key) -> str:
    return "/".join(mesh_key(*account))
