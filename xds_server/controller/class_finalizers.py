"""Keeps GatewayClasses that Gateways use: a finalizer has the API server delete them only when no Gateway is left.

https://gateway-api.sigs.k8s.io/reference/spec/#gatewayclass
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from xds_server.errors import XdsError
from xds_server.gateway_api.objects import Object
from xds_server.gateway_api.specs import GROUP, GatewayClassSpec
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import Conflict, Forbidden, Invalid, NotFound
from xds_server.kubernetes.resources import Resource

log = logging.getLogger(__name__)

_FINALIZER = "gateway-exists-finalizer.gateway.networking.k8s.io"
_CLASSES = Resource(group=GROUP, plural="gatewayclasses", kind="GatewayClass", namespaced=False)


class ClassFinalizers:
    """Applies as a field manager of its own, derived from `manager`, and each state of a class once."""

    def __init__(self, client: ApiClient, manager: str) -> None:
        self._client, self._manager = client, f"{manager}-finalizer"
        self._applied: dict[str, bool] = {}
        """Whether a class has the finalizer, by its UID."""

    def forget(self) -> None:
        """Forget what is there, because another replica may have written."""
        self._applied.clear()

    async def keep(self, classes: Iterable[Object[GatewayClassSpec]], in_use: Callable[[str], bool]) -> None:
        """Give the finalizer to each class in use, by name, and take it from the others. Errors are logged."""
        classes = list(classes)
        uids = {one.meta.uid for one in classes}
        self._applied = {uid: used for uid, used in self._applied.items() if uid in uids}
        for one in classes:
            used = in_use(one.meta.name)
            if self._applied.get(one.meta.uid) == used:
                continue
            self._applied[one.meta.uid] = used
            metadata = {"name": one.meta.name, "uid": one.meta.uid}
            finalizers = {"finalizers": [_FINALIZER]} if used else {}
            try:
                await self._client.apply(
                    _CLASSES, {"metadata": {**metadata, **finalizers}}, manager=self._manager
                )
            except (Conflict, NotFound):
                continue  # it is gone, or is another one of this name that is not known yet
            except (Forbidden, Invalid) as error:
                log.warning("a GatewayClass cannot be kept class=%s reason=%s", one.meta.name, error)
            except XdsError as error:
                log.warning("a GatewayClass cannot be kept yet class=%s reason=%s", one.meta.name, error)
                del self._applied[one.meta.uid]
