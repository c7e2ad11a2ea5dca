"""The certificate authority of the controller, whose key is in a Secret that all replicas share."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from xds_server.certificate_authority.authority import KeyPair, issue
from xds_server.certificate_authority.rotation import Authorities, advanced
from xds_server.errors import EnvironmentFailed, XdsError
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import Conflict, NotFound
from xds_server.kubernetes.resources import Key, Object, Resource

log = logging.getLogger(__name__)

SECRETS = Resource(plural="secrets", kind="Secret")
LABEL = "app.kubernetes.io/managed-by"
"""The label of a Secret that the controller rotates. One without it belongs to somebody else, such as cert-manager."""
_OURS = "xds-gateway"
_LOOK = 60.0
"""Seconds between two looks at the Secret."""
_SERVING = timedelta(days=7)
"""The life of the certificate of the xDS port, which is in the memory of this process only."""
_HALF = 0.5
_ATTEMPTS = 5


class AuthoritySecret:
    """The authority in a Secret, and the certificate of the xDS port that it signed for `names`.

    `changed` is called if the bundle that Envoys must trust has changed.
    """

    def __init__(
        self, client: ApiClient, key: Key, names: Iterable[str], changed: Callable[[], None] = lambda: None
    ) -> None:
        self._client, self._key, self._names, self._changed = client, key, tuple(names), changed
        self._serving: KeyPair | None = None
        self.authorities: Authorities

    @property
    def bundle(self) -> bytes:
        """The certificates of the authorities to trust, in PEM."""
        return self.authorities.bundle

    def serving(self) -> tuple[bytes, bytes]:
        """Return the certificate of the xDS port and its key, in PEM."""
        assert self._serving is not None, "opened first"
        return self._serving.certificate, self._serving.private_key

    def token_of(self, name: str) -> str:
        """Return a secret for a name, which every replica finds without talking to the others."""
        key = self.authorities.current.private_key
        return hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:32]

    async def open(self) -> None:
        """Read the Secret, or create it. Raises ApiError, EnvironmentFailed if the Secret cannot be used."""
        await self._look()

    async def run(self) -> None:
        """Rotate what is old, and follow what other replicas do, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK)
            try:
                await self._look()
            except XdsError as error:
                log.warning("cannot renew the certificate authority secret=%s reason=%s", self._key, error)

    async def _look(self) -> None:
        for _ in range(_ATTEMPTS):
            try:
                self._use(await self._current())
                return
            except Conflict:  # another replica was faster
                continue
        raise EnvironmentFailed(f"the Secret {self._key} changes all the time")

    async def _current(self) -> Authorities:
        """Return the authorities as they should be, which the Secret has then. Raises Conflict."""
        now = datetime.now(UTC)
        try:
            found = await self._client.get(SECRETS, self._key)
        except NotFound:
            new = advanced(None, now)
            metadata = {"name": self._key.name, "namespace": self._key.namespace, "labels": {LABEL: _OURS}}
            secret = {"metadata": metadata, "type": "kubernetes.io/tls", "data": _encoded(new)}
            await self._client.create(SECRETS, secret)
            log.info("created a certificate authority secret=%s", self._key)
            return new
        try:
            authorities = Authorities.of(data_of(found))
        except ValueError as error:
            raise EnvironmentFailed(
                f"the Secret {self._key} is no certificate authority: {error}; correct or delete it"
            ) from None
        if (found["metadata"].get("labels") or {}).get(LABEL) != _OURS:
            return authorities
        wanted = advanced(authorities, now)
        if wanted != authorities:
            await self._client.replace(SECRETS, {**found, "data": _encoded(wanted)})
            log.info("rotated the certificate authority secret=%s", self._key)
        return wanted

    def _use(self, authorities: Authorities) -> None:
        now, before = datetime.now(UTC), getattr(self, "authorities", None)
        if authorities.current.ends <= now:
            raise EnvironmentFailed(f"the certificate authority in the Secret {self._key} has expired")
        self.authorities = authorities
        new = before is None or before.current != authorities.current
        if new or self._serving is None or self._serving.due(now, _HALF):
            self._serving = issue(authorities.current, self._names, now, _SERVING)
        if before is not None and before.bundle != authorities.bundle:
            self._changed()


def _encoded(authorities: Authorities) -> dict[str, str]:
    data = {**authorities.data(), "ca.crt": authorities.bundle}
    return {name: base64.b64encode(value).decode() for name, value in data.items()}


def data_of(found: Object) -> dict[str, bytes]:
    """Return the data of a Secret."""
    return {name: base64.b64decode(value) for name, value in (found.get("data") or {}).items()}
