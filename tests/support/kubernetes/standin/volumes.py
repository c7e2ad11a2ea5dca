"""The volumes of a pod as folders: Secrets, ConfigMaps, both projected, and empty folders."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from pathlib import Path

from tests.support.kubernetes.standin.node import CONFIG_MAPS, SECRETS
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import NotFound
from xds_server.kubernetes.resources import Key, Object, Resource

_AGAIN = 0.2
"""Seconds between two looks for a missing object."""
_KINDS = (("secret", "secretName", SECRETS), ("configMap", "name", CONFIG_MAPS))


async def folders(client: ApiClient, namespace: str, spec: Object, folder: Path) -> Mapping[str, Path]:
    """Return the folders of the volumes of a pod by name. It waits for objects that do not exist yet."""
    made: dict[str, Path] = {}
    for volume in spec.get("volumes", []):
        target = folder / volume["name"]
        target.mkdir(parents=True, exist_ok=True)
        for source in volume.get("projected", {}).get("sources") or [volume]:
            await _fill(client, namespace, source, target)
        made[volume["name"]] = target
    return made


async def _fill(client: ApiClient, namespace: str, source: Object, target: Path) -> None:
    for kind, name, resource in _KINDS:
        if kind not in source:
            continue
        wanted = source[kind]
        key = Key(namespace, wanted.get(name) or wanted["name"])
        content = await _content(client, resource, key, optional=bool(wanted.get("optional")))
        paths = {item["key"]: item["path"] for item in wanted.get("items", [])} or {
            one: one for one in content
        }
        for one, path in paths.items():
            if one in content:
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                (target / path).write_bytes(content[one])


async def _content(client: ApiClient, resource: Resource, key: Key, *, optional: bool) -> dict[str, bytes]:
    while True:
        try:
            data = (await client.get(resource, key)).get("data") or {}
        except NotFound:
            if optional:
                return {}
            await asyncio.sleep(_AGAIN)
        else:
            decode = base64.b64decode if resource is SECRETS else str.encode
            return {name: decode(value) for name, value in data.items()}
