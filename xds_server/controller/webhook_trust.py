"""Keeps the authority that the API server must trust current in the configuration of the webhook."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from typing import Any

from xds_server.errors import XdsError
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import Conflict, NotFound
from xds_server.kubernetes.resources import Key, Resource

log = logging.getLogger(__name__)

WEBHOOKS = Resource(
    group="admissionregistration.k8s.io",
    plural="mutatingwebhookconfigurations",
    kind="MutatingWebhookConfiguration",
    namespaced=False,
)
NAME = "inject.xds-gateway.dev"
"""The webhook in the configuration."""
_LOOK = 5.0
"""Seconds between two looks at the configuration."""


class WebhookTrust:
    """Writes `bundle` (PEM) into the configuration `name`, if there is one, while this replica leads."""

    def __init__(
        self, client: ApiClient, name: str, bundle: Callable[[], bytes], leading: Callable[[], bool]
    ) -> None:
        self._client, self._key, self._bundle, self._leading = client, Key("", name), bundle, leading
        self._told = ""

    async def run(self) -> None:
        """Look at the configuration again and again, until cancelled."""
        while True:
            if self._leading():
                await self._look()
            await asyncio.sleep(_LOOK)

    async def _look(self) -> None:
        message = ""
        try:
            found = await self._client.get(WEBHOOKS, self._key)
            if self._write(found):
                await self._client.replace(WEBHOOKS, found)
                log.info("wrote the authority of the webhook configuration=%s", self._key.name)
        except (NotFound, Conflict):
            pass  # no sidecars are wanted, or somebody else has just written it: the next look tells
        except XdsError as error:
            message = str(error)
        if message and message != self._told:
            log.warning(
                "cannot keep the authority of the webhook current, so pods may not be created "
                "configuration=%s reason=%s",
                self._key.name,
                message,
            )
        self._told = message

    def _write(self, configuration: dict[str, Any]) -> bool:
        """Write the authority into our webhooks. Returns True if that changed anything."""
        wanted = base64.b64encode(self._bundle()).decode()
        ours = [one for one in configuration.get("webhooks") or () if one.get("name") == NAME]
        old = [one for one in ours if one["clientConfig"].get("caBundle") != wanted]
        for one in old:
            one["clientConfig"]["caBundle"] = wanted
        return bool(old)
