"""Stands in for the controllers of namespaces and service accounts.

It makes the default account of each namespace, and deletes everything in a namespace that is being deleted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

from tests.support.kubernetes.standin.node import NAMESPACES, SERVICE_ACCOUNTS, Node, deleting
from xds_server.kubernetes.api_errors import ApiError, Conflict, NotFound
from xds_server.kubernetes.resources import Key, Resource

log = logging.getLogger(__name__)

_KEPT = frozenset(["events", "leases"])
_AGAIN = 0.2


class Namespaces:
    """The namespaces that are being emptied."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._emptying: set[str] = set()
        self._with_account: set[str] = set()

    async def reconcile(self) -> None:
        """Begin to empty what is being deleted, and make accounts that are missing."""
        for key, object_ in self._node.items(NAMESPACES):
            uid = object_["metadata"]["uid"]
            if not deleting(object_) and uid not in self._with_account:
                await self._make_account(key.name)
                self._with_account.add(uid)
            if deleting(object_) and key.name not in self._emptying:
                self._emptying.add(key.name)
                self._node.spawn(self._empty(key))

    async def _make_account(self, namespace: str) -> None:
        with suppress(Conflict):
            metadata = {"name": "default", "namespace": namespace}
            await self._node.client.create(SERVICE_ACCOUNTS, {"metadata": metadata})

    async def _empty(self, key: Key) -> None:
        try:
            while await self._delete_all(key.name):  # noqa: ASYNC110 - only another look tells
                await asyncio.sleep(_AGAIN)
            object_ = await self._node.client.get(NAMESPACES, key)
            object_["spec"]["finalizers"] = []
            await self._node.client.replace(NAMESPACES, object_, "finalize")
        except NotFound:
            pass
        except ApiError as error:
            log.warning("cannot empty a namespace name=%s reason=%s", key, error)
        finally:
            self._emptying.discard(key.name)

    async def _delete_all(self, namespace: str) -> int:
        """Delete the objects of all kinds. Returns how many there were."""
        count = 0
        async for resource in self._kinds():
            found = await self._node.client.list(resource, namespace)
            count += len(found)
            if found:
                await self._node.client.request("DELETE", resource.collection(namespace))
        return count

    async def _kinds(self) -> AsyncIterator[Resource]:
        client = self._node.client
        found = (await client.request("GET", "/apis"))["groups"]
        groups = [(group["name"], group["preferredVersion"]["version"]) for group in found]
        for group, version in [("", "v1"), *groups]:
            base = f"/apis/{group}/{version}" if group else f"/api/{version}"
            for kind in (await client.request("GET", base))["resources"]:
                if kind["namespaced"] and "deletecollection" in kind["verbs"] and kind["name"] not in _KEPT:
                    yield Resource(group=group, version=version, plural=kind["name"], kind=kind["kind"])
