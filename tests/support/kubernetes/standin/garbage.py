"""Stands in for the garbage collector, as far as Gateways own objects."""

from __future__ import annotations

from contextlib import suppress

from tests.support.kubernetes.standin.node import GATEWAYS, OWNED, Node, deleting
from xds_server.kubernetes.api_errors import NotFound
from xds_server.kubernetes.resources import Key, Object


async def reconcile(node: Node) -> None:
    """Delete the objects whose Gateway is gone."""
    known = {gateway["metadata"]["uid"] for _, gateway in node.items(GATEWAYS)}
    for resource in OWNED:
        for key, object_ in node.items(resource):
            owner = _gateway_of(object_)
            if owner is None or owner["uid"] in known or deleting(object_):
                continue
            if not await _exists(node, key.namespace, owner):
                with suppress(NotFound):
                    await node.client.delete(resource, key)


def _gateway_of(object_: Object) -> Object | None:
    owners = object_["metadata"].get("ownerReferences") or []
    return next((one for one in owners if one["kind"] == "Gateway"), None)


async def _exists(node: Node, namespace: str, owner: Object) -> bool:
    """Ask the API server, because the Gateway may be newer than the local copy."""
    try:
        found = await node.client.get(GATEWAYS, Key(namespace, owner["name"]))
    except NotFound:
        return False
    return bool(found["metadata"]["uid"] == owner["uid"])
