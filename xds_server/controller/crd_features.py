"""Features of the Gateway API that depend on the CRDs of the cluster: a field that they do not have cannot be used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from xds_server.errors import XdsError
from xds_server.gateway_api.statuses import FEATURES, RETRY_FEATURES
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import Forbidden, NotFound, Unauthorized

log = logging.getLogger(__name__)

_PATH = "/openapi/v3/apis/gateway.networking.k8s.io/v1"
"""The schema of the kinds, which every account may read (the role system:discovery)."""
_AGAIN, _LOOK = 5.0, 600.0
"""Seconds until the schema is read again: after a failure, and because the CRDs may have changed."""


class CrdFeatures:
    """What this controller supports with the CRDs of the cluster. `changed` is called when it is known, and after changes."""

    def __init__(self, client: ApiClient, changed: Callable[[], None]) -> None:
        self._client, self._changed = client, changed
        self.names: tuple[str, ...] = ()
        """Empty if it is not known yet."""

    async def run(self) -> None:
        """Follow the CRDs until cancelled."""
        while True:
            try:
                names = supported(await self._client.request("GET", _PATH))
            except (Forbidden, NotFound, Unauthorized) as error:
                log.warning(
                    "the schema of the Gateway API is not shown, so retries are not claimed reason=%s", error
                )
                names = FEATURES
            except XdsError as error:
                log.warning("the schema of the Gateway API cannot be read yet reason=%s", error)
                await asyncio.sleep(_AGAIN)
                continue
            if names != self.names:
                self.names = names
                self._changed()
            await asyncio.sleep(_LOOK)


def supported(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the features for the schema of a cluster (OpenAPI v3)."""
    kinds = (schema.get("components") or {}).get("schemas") or {}
    route: Mapping[str, Any] = next((one for name, one in kinds.items() if name.endswith(".HTTPRoute")), {})
    return (*FEATURES, *RETRY_FEATURES) if _has(route, "spec", "rules", "retry") else FEATURES


def _has(schema: Mapping[str, Any], *path: str) -> bool:
    """True if objects of a schema have a field at a path, perhaps within lists."""
    for name in path:
        properties = schema.get("properties") or (schema.get("items") or {}).get("properties") or {}
        if name not in properties:
            return False
        schema = properties[name]
    return True
