"""Objects of a Kubernetes API server for a test, by plain requests: a test's own view, apart from the client under test."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tests.support.wait import wait_for

Object = dict[str, Any]
_MANAGER = "tests"
_TYPES = {"PATCH": "application/merge-patch+json", "APPLY": "application/apply-patch+yaml"}


class Objects:
    """The API server of a kubeconfig with a token. Use as a context manager."""

    def __init__(self, kubeconfig: Path, token: str | None = None) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        self.cluster: Object = document["clusters"][0]["cluster"]
        self.token: str = token or document["users"][0]["user"]["token"]
        self.server: str = self.cluster["server"]
        authority = base64.b64decode(self.cluster["certificate-authority-data"]).decode()
        self._client = httpx.Client(
            base_url=self.server,
            headers={"Authorization": f"Bearer {self.token}"},
            verify=ssl.create_default_context(cadata=authority),
            timeout=60,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def request(self, method: str, path: str, body: Any = None, **parameters: str) -> Object:
        """Send a request and return the object of the response. `APPLY` is a server-side apply.

        Raises httpx.HTTPStatusError, whose message has the server's.
        """
        headers = {"Content-Type": _TYPES.get(method, "application/json")}
        content = None if body is None else json.dumps(body)
        method = "PATCH" if method == "APPLY" else method
        response = self._client.request(method, path, content=content, params=parameters, headers=headers)
        if response.is_error:
            message = f"{method} {path}: {response.status_code} {response.text[:1000]}"
            raise httpx.HTTPStatusError(message, request=response.request, response=response)
        found: Object = response.json()
        return found

    def ready(self) -> bool:
        """Return true if the API server says so."""
        return self._client.get("/readyz").status_code == 200

    def path(self, object_: Object) -> str:
        """Return the path of an object. One without a namespace is in `default`, if its kind has namespaces."""
        version, metadata = object_["apiVersion"], object_["metadata"]
        base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        kinds = {one["kind"]: one for one in self.request("GET", base)["resources"] if "/" not in one["name"]}
        kind = kinds[object_["kind"]]
        namespace = f"/namespaces/{metadata.get('namespace', 'default')}" if kind["namespaced"] else ""
        return f"{base}{namespace}/{kind['name']}/{metadata['name']}"

    def apply(self, manifests: str | Iterable[Object], **parameters: str) -> list[Object]:
        """Apply documents of YAML, or objects, in their order. Returns what the API server made of them.

        With `dryRun="All"` it only checks them.
        """
        documents = yaml.safe_load_all(manifests) if isinstance(manifests, str) else manifests
        return [self._apply(one, parameters) for one in documents if one]

    def _apply(self, object_: Object, parameters: Mapping[str, str]) -> Object:
        given = {"fieldManager": _MANAGER, "force": "true", **parameters}
        return self.request("APPLY", self.path(object_), object_, **given)

    def delete(self, object_: Object) -> None:
        """Delete an object."""
        self.request("DELETE", self.path(object_))

    def namespace(self, name: str) -> str:
        """Make a namespace, and return its name."""
        self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def token_of(
        self, namespace: str, account: str, seconds: int = 3600, audiences: Sequence[str] = ()
    ) -> str:
        """Make a service account, if there is none, and return a token of it, by default for the API server."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self.request("APPLY", f"{path}/{account}", _account(namespace, account), fieldManager=_MANAGER)
        spec = {"expirationSeconds": seconds, "audiences": list(audiences)}
        made = self.request("POST", f"{path}/{account}/token", {"spec": spec})
        token: str = made["status"]["token"]
        return token

    def install(self, folder: Path) -> None:
        """Apply the CRDs in the files of a folder, or in one file, and wait until the API server serves their kinds."""
        files = sorted(folder.iterdir()) if folder.is_dir() else [folder]
        documents = [one for file in files for one in yaml.safe_load_all(file.read_text())]
        crds = [one for one in documents if one and one.get("kind") == "CustomResourceDefinition"]
        for crd in self.apply(crds):
            wait_for(lambda crd=crd: self._established(crd), f"{crd['metadata']['name']} to be served")

    def _established(self, crd: Object) -> bool:
        spec = crd["spec"]
        served = [version["name"] for version in spec["versions"] if version["served"]]
        found = [self._kinds(spec["group"], version) for version in served]
        return all(spec["names"]["plural"] in kinds for kinds in found)

    def _kinds(self, group: str, version: str) -> set[str]:
        response = self._client.get(f"/apis/{group}/{version}")
        return {one["name"] for one in response.json()["resources"]} if response.is_success else set()


def _account(namespace: str, name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
