"""A mesh for tests: a cluster with our controller and its webhook, and applications in pods with real sidecars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.kubernetes.api_server import NODE, ApiServer
from tests.support.kubernetes.cluster import cluster
from tests.support.kubernetes.controller import controller, install_webhook, kubeconfig_of
from tests.support.kubernetes.objects import Objects
from tests.support.logged_process import LoggedProcess
from tests.support.wait import UNREACHABLE, wait_for

WEBHOOK = f"{NODE}:18443"
_START = 180.0
_CONTROL = 8181
"""The port of each application by which a test has it send requests. Its sidecar does not capture it."""
_APPLICATION = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: NAME, namespace: NAMESPACE}
---
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  selector: {app: NAME}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: http-alt, port: 8080}, {name: tcp, port: 9090}, {name: grpc, port: 7070}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata:
      labels: {app: NAME}
      annotations: {xds-gateway.dev/exclude-inbound-ports: "CONTROL"}
    spec:
      serviceAccountName: NAME
      containers:
        - {name: echo, image: gateway-api/echo-advanced, args: [--port=8080, --port=CONTROL, --grpc=7070, --tcp=9090], readinessProbe: {httpGet: {port: 8080}}}
"""


@dataclass(frozen=True)
class Response:
    """What a request of a pod got: `status` is 0 if there was no response, and `by` is the application that answered."""

    status: int
    by: str
    headers: Mapping[str, str]
    text: str


class Mesh:
    """A running mesh."""

    def __init__(self, server: ApiServer, objects: Objects, process: LoggedProcess, folder: Path) -> None:
        self.server, self.objects, self.controller, self.folder = server, objects, process, folder

    def namespace(self, name: str, inject: str = "enabled") -> None:
        """Make a namespace whose pods get sidecars."""
        metadata = {"name": name, "labels": {"xds-gateway.dev/inject": inject}}
        self.objects.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])

    def deploy(self, namespace: str, *names: str, **changes: Any) -> None:
        """Start an application for each name, with a Service and an account of its name, and wait until they are ready.

        `changes` are merged into the metadata of their pods.
        """
        for name in names:
            text = _APPLICATION.replace("NAMESPACE", namespace).replace("NAME", name)
            text = text.replace("CONTROL", str(_CONTROL))
            self.objects.apply(text)
            if changes:
                template: dict[str, Any] = {"metadata": {**changes}}
                template["metadata"]["labels"] = {"app": name, **changes.get("labels", {})}
                path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
                self.objects.request("PATCH", path, {"spec": {"template": template}})
        for name in names:
            wait_for(lambda name=name: self.pod(namespace, name), f"the pod of {name}", _START)

    def pods(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """Return the pods of an application that are not being deleted."""
        path = f"/api/v1/namespaces/{namespace}/pods"
        found = self.objects.request("GET", path, labelSelector=f"app={name}")["items"]
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return the pod of an application if it is ready."""
        ready = [one for one in self.pods(namespace, name) if is_ready(one)]
        return ready[0] if len(ready) == 1 == len(self.pods(namespace, name)) else None

    def get(
        self,
        client: tuple[str, str],
        url: str,
        headers: Mapping[str, str] | None = None,
        count: int = 1,
        method: str = "GET",
    ) -> Response:
        """Send a request from the pod of an application. Of several it returns the last response with the text of all."""
        pod = self.pod(*client)
        assert pod is not None, f"{client} is ready"
        url_of_pod = f"http://{pod['status']['podIP']}:{_CONTROL}/forward"
        parameters: list[tuple[str, str | int]] = [("url", url), ("count", count), ("method", method)]
        parameters += [("header", f"{name}:{value}") for name, value in (headers or {}).items()]
        answer = self.server.namespace.run(
            lambda: httpx.get(url_of_pod, params=httpx.QueryParams(parameters), timeout=60)  # type: ignore[arg-type]
        )
        return _response(answer.text)

    def fetch(self, url: str) -> str:
        """Return what a request from outside of the mesh gets, "" if it fails."""
        try:
            return self.server.namespace.run(lambda: httpx.get(url, timeout=10)).text
        except httpx.TransportError:
            return ""

    def gets(
        self,
        client: tuple[str, str],
        url: str,
        *,
        by: str = "",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send requests until one has this status and is answered by an application."""
        last: list[Response] = []

        def matches() -> Response | None:
            last[:] = [self.get(client, url, headers)]
            return last[0] if (last[0].status, last[0].by) == (status, by) else None

        found = wait_for(matches, lambda: f"{url} to answer {status} by {by!r}: {last}", also=UNREACHABLE)
        assert found is not None
        return found


def is_ready(pod: Mapping[str, Any]) -> bool:
    """True if a pod is ready."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _response(text: str) -> Response:
    lines = [line.partition("] ")[2] for line in text.splitlines() if line]
    fields = dict(line.partition("=")[::2] for line in lines)
    headers = (line.partition("=")[2] for line in lines if line.startswith("ResponseHeader="))
    hostname = fields.get("Hostname", "")
    return Response(
        status=int(fields.get("StatusCode", "0")),
        by=hostname.rsplit("-", 2)[0],
        headers=dict(one.partition(":")[::2] for one in headers),
        text=text,
    )


@contextmanager
def mesh(folder: Path) -> Iterator[Mesh]:
    """Run a cluster with a controller and its webhook, with exactly the rights of the examples."""
    xds, admin = f"{NODE}:18000", "127.0.0.1:18001"
    with cluster(folder, programs=folder) as server, server.objects() as objects:
        kubeconfig = kubeconfig_of(objects, server.inside, folder)
        install_webhook(objects, WEBHOOK)
        more = ("--webhook", WEBHOOK, "--image", "xds-redirect")
        with controller(
            server.namespace, kubeconfig, folder, xds, admin, "example.com/mesh", *more
        ) as process:
            process.says("wrote the authority of the webhook")
            yield Mesh(server, objects, process, folder)
