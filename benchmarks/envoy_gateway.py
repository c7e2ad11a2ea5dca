"""Envoy Gateway, built from its Go module, with one Envoy: what our controller is measured against."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.envoy import binary
from tests.support.kubernetes import build
from tests.support.kubernetes.api_server import ApiServer
from tests.support.kubernetes.objects import Objects
from tests.support.logged_process import LoggedProcess
from tests.support.wait import wait_for

VERSION = "v1.9.1"
CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
_MODULE = "github.com/envoyproxy/gateway"
_NAMESPACE = "envoy-gateway-system"
_PORTS = {19000: 19100, 19001: 19101}
"""The ports of Envoy's admin interface and of its metrics: Envoy Gateway itself has the usual ones in this network."""
_CONFIG = {
    "apiVersion": "gateway.envoyproxy.io/v1alpha1",
    "kind": "EnvoyGateway",
    "gateway": {"controllerName": CONTROLLER},
    "logging": {"level": {"default": "warn"}},
    "provider": {"type": "Kubernetes", "kubernetes": {"leaderElection": {"disable": True}}},
}


def program() -> Path:
    """Return the folder of the program and its CRDs, and build it first if needed. Raises CannotBuildError."""
    target = build.CACHE / f"envoy-gateway-{VERSION}"

    def make(folder: Path) -> None:
        build.install(folder, f"{_MODULE}/cmd/envoy-gateway@{VERSION}")
        found = build.go(folder, "mod", "download", "-json", f"{_MODULE}@{VERSION}", sources=folder)
        crds = Path(json.loads(found)["Dir"], "charts", "gateway-helm", "charts", "crds", "crds", "generated")
        shutil.copytree(crds, folder / "crds", copy_function=shutil.copyfile)
        (folder / "crds").chmod(0o755)  # the modules of Go are read-only

    build.built(target, make)
    return target


class EnvoyGateway:
    """Envoy Gateway for the API server of a folder. It has the certificates that its own command makes."""

    def __init__(self, server: ApiServer, objects: Objects, folder: Path) -> None:
        self._server, self._objects, self._folder = server, objects, folder
        self._program = program()
        self._certificates = folder / "certificates"

    def prepare(self) -> None:
        """Install its CRDs and certificates."""
        self._objects.install(self._program / "crds")
        self._objects.namespace(_NAMESPACE)
        command = self._command("certgen", "--disable-topology-injector")
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        self._write(self._certificates, "envoy-gateway")

    def process(self) -> LoggedProcess:
        """Return the process."""
        config = self._folder / "envoy-gateway.yaml"
        config.write_text(yaml.safe_dump(_CONFIG))
        inside = _at("/certs", self._certificates)
        command = self._command("server", "--config-path", str(config))
        return LoggedProcess(
            self._server.namespace.command(*inside, *command[command.index("env") :]),
            self._folder / "envoy-gateway.log",
        )

    def envoy(self) -> LoggedProcess:
        """Return the Envoy of the only Gateway, with the bootstrap of its Deployment but for addresses and paths."""
        (deployment,) = wait_for(self._deployments, "the Deployment of Envoy Gateway")
        pod = deployment["spec"]["template"]["spec"]
        (container,) = [one for one in pod["containers"] if one["name"] == "envoy"]
        arguments: list[str] = container["args"]
        identity = self._folder / "envoy-identity"
        self._write(identity, "envoy")
        path = f"/api/v1/namespaces/{_NAMESPACE}/configmaps/{deployment['metadata']['name']}"
        for name, text in self._objects.request("GET", path)["data"].items():
            (identity / name).write_text(text.replace("/certs/", f"{identity}/"))
        bootstrap = yaml.safe_load(arguments[arguments.index("--config-yaml") + 1])
        text = json.dumps(bootstrap).replace("/sds/", f"{identity}/")
        text = text.replace(f"envoy-gateway.{_NAMESPACE}.svc.cluster.local.", "127.0.0.1")
        for port, free in _PORTS.items():
            text = text.replace(f'"port_value": {port}', f'"port_value": {free}')
        cluster = arguments[arguments.index("--service-cluster") + 1]
        command = [
            str(binary()),
            "--service-cluster",
            cluster,
            "--service-node",
            "pod-1",
            "--config-yaml",
            text,
        ]
        command += ["--log-level", "warn", "--concurrency", "1", "--use-dynamic-base-id"]
        return LoggedProcess(self._server.namespace.command(*command), self._folder / "envoy.log")

    def _deployments(self) -> list[Any]:
        found: list[Any] = self._objects.request("GET", f"/apis/apps/v1/namespaces/{_NAMESPACE}/deployments")[
            "items"
        ]
        return found

    def _command(self, *words: str) -> list[str]:
        variables = (f"KUBECONFIG={self._server.inside}", f"ENVOY_GATEWAY_NAMESPACE={_NAMESPACE}")
        return self._server.namespace.command("env", *variables, self._program / "envoy-gateway", *words)

    def _write(self, folder: Path, secret: str) -> None:
        folder.mkdir()
        found = self._objects.request("GET", f"/api/v1/namespaces/{_NAMESPACE}/secrets/{secret}")
        for name, value in found["data"].items():
            (folder / name).write_bytes(base64.b64decode(value))


def _at(path: str, folder: Path) -> list[str]:
    """Return the begin of a command that sees a folder at a path."""
    script = f'mkdir -p {path} && mount --bind "$0" {path} && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(folder)]
