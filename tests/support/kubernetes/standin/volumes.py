"""The volumes of a pod as folders: Secrets, ConfigMaps, both projected with tokens, and empty folders."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from pathlib import Path

from tests.support.kubernetes import mounted
from tests.support.kubernetes.standin.node import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import NotFound
from xds_server.kubernetes.resources import Key, Object, Resource

_AGAIN = 0.2
"""Seconds between two looks for a missing object."""
_KINDS = (("secret", "secretName", SECRETS), ("configMap", "name", CONFIG_MAPS))


async def folders(client: ApiClient, pod: Object, folder: Path) -> Mapping[str, Path]:
    """Return the folders of the volumes of a pod by name. It waits for objects that do not exist yet."""
    made: dict[str, Path] = {}
    for volume in pod["spec"].get("volumes", []):
        target = folder / volume["name"]
        target.mkdir(parents=True, exist_ok=True)
        files: dict[str, bytes] = {}
        for source in volume.get("projected", {}).get("sources") or [volume]:
            files |= await _token(client, pod, source) or await _files(client, pod, source)
        mounted.write(target, files)
        made[volume["name"]] = target
    return made


async def _token(client: ApiClient, pod: Object, source: Object) -> dict[str, bytes]:
    """Return the token of the pod's service account, bound to the pod."""
    wanted = source.get("serviceAccountToken")
    if wanted is None:
        return {}
    metadata = pod["metadata"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    spec = {"expirationSeconds": wanted.get("expirationSeconds", 3600), "boundObjectRef": bound}
    if "audience" in wanted:
        spec["audiences"] = [wanted["audience"]]
    account = {
        "metadata": {
            "namespace": metadata["namespace"],
            "name": pod["spec"].get("serviceAccountName", "default"),
        }
    }
    made = await client.create(SERVICE_ACCOUNTS, {**account, "spec": spec}, "token")
    return {wanted["path"]: made["status"]["token"].encode()}


async def _files(client: ApiClient, pod: Object, source: Object) -> dict[str, bytes]:
    for kind, name, resource in _KINDS:
        if kind not in source:
            continue
        wanted = source[kind]
        key = Key(pod["metadata"]["namespace"], wanted.get(name) or wanted["name"])
        content = await _content(client, resource, key, optional=bool(wanted.get("optional")))
        paths = {item["key"]: item["path"] for item in wanted.get("items", [])} or {
            one: one for one in content
        }
        return {path: content[one] for one, path in paths.items() if one in content}
    return {}


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
