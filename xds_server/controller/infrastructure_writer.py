"""Writes the objects that serve Gateways and sidecars, each once for its content, and deletes what is wanted no more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from xds_server.controller import infrastructure
from xds_server.controller.infrastructure import Wanted
from xds_server.errors import XdsError
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.specs import GatewaySpec
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import NotFound
from xds_server.kubernetes.resources import Key as ObjectKey
from xds_server.kubernetes.resources import Resource

log = logging.getLogger(__name__)

_AGAIN = 1.0
"""Seconds after a failure until the objects are compared again."""
RESOURCES = {
    "ServiceAccount": Resource(plural="serviceaccounts", kind="ServiceAccount"),
    "ConfigMap": Resource(plural="configmaps", kind="ConfigMap"),
    "Deployment": Resource(group="apps", plural="deployments", kind="Deployment"),
    "DaemonSet": Resource(group="apps", plural="daemonsets", kind="DaemonSet"),
    "Service": Resource(plural="services", kind="Service"),
    "HorizontalPodAutoscaler": Resource(
        group="autoscaling", version="v2", plural="horizontalpodautoscalers", kind="HorizontalPodAutoscaler"
    ),
    "PodDisruptionBudget": Resource(
        group="policy", plural="poddisruptionbudgets", kind="PodDisruptionBudget"
    ),
}


class InfrastructureWriter:
    """Writes as the field manager `manager`. `again` is called some time after a failure, so that the caller tries again."""

    def __init__(self, client: ApiClient, manager: str, again: Callable[[], None]) -> None:
        self._client, self._manager, self._again = client, manager, again
        self._written: dict[Key, Wanted] = {}
        self._applied: dict[tuple[str, Key], dict[str, Any]] = {}

    def forget(self) -> None:
        """Forget what is there, because somebody else may have written."""
        self._written.clear()
        self._applied.clear()

    async def serve(self, wanted: Wanted) -> None:
        """Have exactly the objects of a Gateway."""
        key = wanted.gateway.meta.key
        if self._written.get(key) == wanted:
            return
        applied = await self.apply(key, infrastructure.objects(wanted))
        if await self._remove(wanted.gateway, infrastructure.unwanted(wanted)) and applied:
            self._written[key] = wanted

    async def apply(self, key: Key, objects: Iterable[dict[str, Any]]) -> bool:
        """Apply objects that differ from what was applied. Returns True if all of them are there."""
        complete = True
        for one in objects:
            name = (one["kind"], key)
            if self._applied.get(name) == one:
                continue
            try:
                await self._client.apply(RESOURCES[one["kind"]], one, manager=self._manager)
                self._applied[name] = one
            except XdsError as error:
                complete = self._failed("apply", one["kind"], one["metadata"]["name"], error)
        return complete

    async def _remove(self, gateway: Object[GatewaySpec], kinds: Iterable[str]) -> bool:
        """Delete what served a Gateway with other parameters. Returns True if it is gone."""
        complete = True
        for kind in kinds:
            name = (kind, gateway.meta.key)
            if self._applied.get(name) == {}:
                continue
            try:
                await self._delete(RESOURCES[kind], gateway)
                self._applied[name] = {}
            except XdsError as error:
                complete = self._failed("delete", kind, str(gateway.meta), error)
        return complete

    async def _delete(self, kind: Resource, gateway: Object[GatewaySpec]) -> None:
        """Delete an object that belongs to a Gateway, if there is one."""
        key = ObjectKey(gateway.meta.namespace, infrastructure.name_of(gateway))
        with suppress(NotFound):
            metadata = (await self._client.get(kind, key))["metadata"]
            if any(one["uid"] == gateway.meta.uid for one in metadata.get("ownerReferences") or ()):
                await self._client.delete(kind, key, uid=metadata["uid"])

    def _failed(self, what: str, kind: str, name: str, error: XdsError) -> bool:
        log.warning("cannot %s an object object=%s %s reason=%s", what, kind, name, error)
        asyncio.get_running_loop().call_later(_AGAIN, self._again)
        return False
