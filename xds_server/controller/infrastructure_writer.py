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

_AGAIN, _LONGEST = 1.0, 60.0
"""Seconds after a failure until the objects are compared again: after the first one, and at most."""
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
        self._pause = _AGAIN
        self._waiting: asyncio.TimerHandle | None = None
        self.faults: dict[Key, str] = {}
        """Why objects of a Gateway cannot be written."""

    def forget(self) -> None:
        """Forget what is there, because somebody else may have written."""
        self._written.clear()
        self._applied.clear()

    async def serve(self, wanted: Wanted) -> None:
        """Have exactly the objects of a Gateway."""
        key = wanted.gateway.meta.key
        if self._written.get(key) == wanted:
            return
        self.faults.pop(key, None)
        applied = await self.apply(key, infrastructure.objects(wanted), owner=wanted.gateway.meta.uid)
        if await self._remove(wanted.gateway, infrastructure.unwanted(wanted)) and applied:
            self._written[key] = wanted
            self._pause = _AGAIN

    async def apply(self, key: Key, objects: Iterable[dict[str, Any]], owner: str = "") -> bool:
        """Apply objects that differ from what was applied. Returns True if all of them are there.

        With an `owner`, an object of that name that belongs to somebody else stays as it is.
        """
        complete = True
        for one in objects:
            name = (one["kind"], key)
            if self._applied.get(name) == one:
                continue
            try:
                if owner and name not in self._applied and await self._is_foreign(one, owner):
                    said = f"there is a {one['kind']} {one['metadata']['name']} that does not belong to this Gateway"
                    complete = self._failed(key, f"{said}; delete or rename it")
                    continue
                await self._client.apply(RESOURCES[one["kind"]], one, manager=self._manager)
                self._applied[name] = one
            except XdsError as error:
                what = f"the {one['kind']} {one['metadata']['name']} cannot be written: {error}"
                complete = self._failed(key, what)
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
                what = f"the {kind} of {gateway.meta} cannot be deleted: {error}"
                complete = self._failed(gateway.meta.key, what)
        return complete

    async def _delete(self, kind: Resource, gateway: Object[GatewaySpec]) -> None:
        """Delete an object that belongs to a Gateway, if there is one."""
        key = ObjectKey(gateway.meta.namespace, infrastructure.name_of(gateway))
        with suppress(NotFound):
            metadata = (await self._client.get(kind, key))["metadata"]
            if any(one["uid"] == gateway.meta.uid for one in metadata.get("ownerReferences") or ()):
                await self._client.delete(kind, key, uid=metadata["uid"])

    async def _is_foreign(self, one: dict[str, Any], owner: str) -> bool:
        """True if there is an object of this name that does not belong to the owner."""
        metadata = one["metadata"]
        try:
            found = await self._client.get(
                RESOURCES[one["kind"]], ObjectKey(metadata["namespace"], metadata["name"])
            )
        except NotFound:
            return False
        return all(other["uid"] != owner for other in found["metadata"].get("ownerReferences") or ())

    def _failed(self, key: Key, what: str) -> bool:
        """Note a fault, and have the caller try again: later and later, and only once for all faults."""
        if self.faults.get(key) != what:
            log.warning("a Gateway has not all of its objects gateway=%s reason=%s", "/".join(key), what)
        self.faults[key] = what
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().call_later(self._pause, self._retry)
            self._pause = min(self._pause * 2, _LONGEST)
        return False

    def _retry(self) -> None:
        self._waiting = None
        self._again()
