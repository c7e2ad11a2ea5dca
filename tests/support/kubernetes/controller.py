"""`xds controller` beside an API server, and an Envoy as the Deployment of a Gateway describes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.envoy import binary
from tests.support.kubernetes import mounted
from tests.support.kubernetes.namespace import Namespace
from tests.support.kubernetes.objects import Objects
from tests.support.logged_process import ROOT, LoggedProcess
from xds_server.controller.policy_servers import FOLDER

EXAMPLE = ROOT / "examples" / "kubernetes"


def define(objects: Objects) -> None:
    """Apply our own kinds."""
    objects.install(EXAMPLE / "crds.yaml")
    objects.apply((EXAMPLE / "crds.yaml").read_text())  # the rules about their keys too


def kubeconfig_of(objects: Objects, inside: Path, folder: Path) -> Path:
    """Apply the example of the controller with our own kinds, and return a kubeconfig with exactly its rights."""
    define(objects)
    objects.apply((EXAMPLE / "controller.yaml").read_text())
    document = yaml.safe_load(inside.read_text())
    document["users"][0]["user"] = {"token": objects.token_of("xds-system", "xds-gateway")}
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    return file


def install_webhook(objects: Objects, address: str) -> None:
    """Apply the example of the mesh, with the webhook at an address of the host and port in place of a Service."""
    text = (ROOT / "examples" / "kubernetes" / "mesh.yaml").read_text()
    documents = list(yaml.safe_load_all(text))
    (webhook,) = documents[0]["webhooks"]
    webhook["clientConfig"] = {"url": f"https://{address}{webhook['clientConfig']['service']['path']}"}
    objects.apply(documents)


def controller(
    network: Namespace, kubeconfig: Path, folder: Path, xds: str, admin: str, name: str, *more: str
) -> LoggedProcess:
    """Return `xds controller` for the classes of a controller `name`, which listens at `xds` and `admin`."""
    command = [sys.executable, "-m", "xds_server", "controller", "--kubeconfig", str(kubeconfig)]
    command += ["--xds", xds, "--xds-service", xds, "--admin", admin, "--controller-name", name, *more]
    return LoggedProcess(network.command(*command), folder / "controller.log")


class Pod:
    """A pod of a Deployment. Envoy's two fixed ports are others here, because the pod has no network of its own."""

    def __init__(
        self, objects: Objects, deployment: dict[str, Any], folder: Path, *, admin: int, ready: int
    ) -> None:
        self._objects, self._namespace = objects, deployment["metadata"]["namespace"]
        self._spec = deployment["spec"]["template"]["spec"]
        self._folder, self._admin, self._ready = folder, admin, ready
        self._identity, self._shared = folder / "identity", folder / "run"
        self._shared.mkdir(exist_ok=True)
        self.renew()

    def renew(self, *, account: str | None = None, audience: str | None = None) -> None:
        """Write the volume as a kubelet does now, with the token of another account or audience if given."""
        files: dict[str, bytes] = {}
        volume = next(one for one in self._spec["volumes"] if "projected" in one)
        for source in volume["projected"]["sources"]:
            if "configMap" in source:
                path = f"/api/v1/namespaces/{self._namespace}/configmaps/{source['configMap']['name']}"
                data = self._objects.request("GET", path)["data"]
                files |= {name: text.encode() for name, text in data.items()}
            else:
                wanted = source["serviceAccountToken"]
                name = account or self._spec["serviceAccountName"]
                token = self._objects.token_of(
                    self._namespace, name, audiences=[audience or wanted["audience"]]
                )
                files[wanted["path"]] = token.encode()
        mounted.write(self._identity, files)

    def envoy(self, network: Namespace) -> LoggedProcess:
        """Return the Envoy with exactly the arguments of the Deployment but for two ports."""
        arguments = self._arguments("envoy")
        at = arguments.index("--config-yaml") + 1
        arguments[at] = json.dumps(self._bootstrap(json.loads(arguments[at])))
        command = [str(binary()), *arguments, "--concurrency", "1", "--use-dynamic-base-id"]
        return LoggedProcess(self._inside(network, command), self._folder / "envoy.log")

    def policy_server(self, network: Namespace) -> LoggedProcess:
        """Return the policy server of the pod."""
        command = [sys.executable, "-m", "xds_server", *self._arguments("policy-server")]
        return LoggedProcess(self._inside(network, command), self._folder / "policy-server.log")

    def drain(self) -> httpx.Request:
        """Return the request that a kubelet sends before it ends the Envoy."""
        (found,) = [one for one in self._spec["containers"] if one["name"] == "envoy"]
        hook = found["lifecycle"]["preStop"]["httpGet"]
        headers = {one["name"]: one["value"] for one in hook["httpHeaders"]}
        return httpx.Request("GET", f"http://pod{hook['path']}", headers=headers)

    def _arguments(self, container: str) -> list[str]:
        (found,) = [one for one in self._spec["containers"] if one["name"] == container]
        return [one.replace("$(POD_NAME)", "pod-1") for one in found["args"]]

    def _inside(self, network: Namespace, command: list[str]) -> list[str]:
        """Return a command that sees the volumes of the pod where they are mounted, below /run."""
        script = "mount -t tmpfs tmpfs /run"
        for number, path in enumerate((FOLDER, "/run/xds-gateway")):
            script += f' && mkdir {path} && mount --bind "${{{number}}}" {path}'
        script += ' && shift && exec "$@"'
        return network.command(
            "unshare", "--mount", "sh", "-c", script, str(self._shared), str(self._identity), *command
        )

    def _bootstrap(self, bootstrap: dict[str, Any]) -> dict[str, Any]:
        bootstrap["admin"]["address"]["socket_address"]["port_value"] = self._admin
        static = bootstrap["static_resources"]
        static["listeners"][0]["address"]["socket_address"]["port_value"] = self._ready
        for cluster in static["clusters"]:
            if cluster["name"] == "xds/admin":
                (group,) = cluster["load_assignment"]["endpoints"]
                (endpoint,) = group["lb_endpoints"]
                endpoint["endpoint"]["address"]["socket_address"]["port_value"] = self._admin
        return bootstrap


def containers(deployment: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the containers of a Deployment by their names."""
    return {one["name"]: one for one in deployment["spec"]["template"]["spec"]["containers"]}
