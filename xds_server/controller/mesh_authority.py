"""An authority for the mesh in a Secret of somebody else, such as cert-manager, which rotates it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from xds_server.certificate_authority.rotation import Authorities, given
from xds_server.controller.authority_secret import SECRETS, data_of
from xds_server.errors import EnvironmentFailed, XdsError
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import NotFound
from xds_server.kubernetes.resources import Key

log = logging.getLogger(__name__)

_LOOK = 30.0
"""Seconds between two looks at the Secret."""
OVERLAP = timedelta(minutes=5)
"""For how long sidecars trust a new authority before it signs: all replicas have seen it then."""


class MeshAuthority:
    """The authority in a Secret of the type kubernetes.io/tls, which the controller never writes.

    `changed` is called if the authorities have changed.
    """

    def __init__(
        self,
        client: ApiClient,
        key: Key,
        changed: Callable[[], None] = lambda: None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._key, self._changed, self._now = client, key, changed, now
        self._announced: datetime | None = None
        """When the authority that will sign was trusted."""
        self.authorities: Authorities

    async def open(self) -> None:
        """Read the Secret. Raises ApiError, EnvironmentFailed if it cannot be used."""
        self.authorities = await self._read()

    async def run(self) -> None:
        """Follow the Secret until cancelled. What cannot be used changes nothing."""
        while True:
            await asyncio.sleep(_LOOK)
            try:
                await self.look()
            except XdsError as error:
                log.warning("cannot renew the authority of the mesh secret=%s reason=%s", self._key, error)

    async def look(self) -> None:
        """Read the Secret again. A new authority is trusted at once, and signs after a while, unless the old one has expired.

        Raises ApiError, EnvironmentFailed if it cannot be used.
        """
        found, before, now = await self._read(), self.authorities, self._now()
        if found.current == before.current:
            self._announced, wanted = (
                None,
                replace(before, upcoming=None, roots=_united(before.roots, found.roots)),
            )
        elif self._announced is None or before.upcoming != found.current:
            self._announced, wanted = now, _announcing(before, found)
        elif now - self._announced >= OVERLAP:
            self._announced, wanted = None, _succeeded(before, found)
        else:
            wanted = _announcing(before, found)
        if before.current.ends <= now:
            self._announced, wanted = None, _succeeded(before, found)
        self.authorities = wanted
        if wanted != before:
            log.info("the authority of the mesh has changed secret=%s", self._key)
            self._changed()

    async def _read(self) -> Authorities:
        try:
            found = given(data_of(await self._client.get(SECRETS, self._key)))
        except NotFound:
            raise EnvironmentFailed(
                f"there is no Secret {self._key} for the authority of the mesh (--mesh-ca-secret); create it"
            ) from None
        except XdsError:
            raise
        except Exception as error:  # noqa: BLE001 - the library has one for each part of a certificate
            raise EnvironmentFailed(
                f"the Secret {self._key} is no certificate authority: {error}; correct it"
            ) from None
        if found.current.ends <= self._now():
            raise EnvironmentFailed(f"the certificate authority in the Secret {self._key} has expired")
        return found


def _announcing(before: Authorities, found: Authorities) -> Authorities:
    return replace(before, upcoming=found.current, roots=_united(before.roots, found.roots))


def _succeeded(before: Authorities, found: Authorities) -> Authorities:
    """Return the authorities with a new one that signs. The roots of the old one stay for the certificates that it signed."""
    former = b"" if before.current == found.current else before.current.certificate
    return replace(found, former=former, roots=_united(before.roots, found.roots))


def _united(first: bytes, second: bytes) -> bytes:
    return first if second in first else first + second
