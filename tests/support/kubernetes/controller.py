"""`xds controller` beside an API server, and an Envoy as the Deployment of a Gateway describes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.envoy import binary
from tests.support.kubernetes.namespace import Namespace
from tests.support.kubernetes.objects import Objects
from tests.support.logged_process import ROOT, LoggedProcess


def kubeconfig_of(objects: Objects, inside: Path, folder: Path) -> Path:
    """Apply the example of the controller, and return a kubeconfig with exactly its rights."""
    objects.apply((ROOT / "examples" / "kubernetes" / "controller.yaml").read_text())
    document = yaml.safe_load(inside.read_text())
    document["users"][0]["user"] = {"token": objects.token_of("xds-system", "xds-gateway")}
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    return file


def controller(network: Namespace, kubeconfig: Path, folder: Path, xds: str, name: str) -> LoggedProcess:
    """Return `xds controller` for the classes of a controller `name`, which listens at `xds`."""
    command = [sys.executable, "-m", "xds_server", "controller", "--kubeconfig", str(kubeconfig)]
    command += ["--xds", xds, "--xds-service", xds, "--controller-name", name]
    return LoggedProcess(network.command(*command, "--secrets-anywhere"), folder / "controller.log")


def envoy(
    network: Namespace, deployment: dict[str, Any], folder: Path, admin: int, ready: int
) -> LoggedProcess:
    """Return the Envoy of a Deployment. Its two fixed ports are others here, because it has no pod of its own."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    arguments = [one.replace("$(POD_NAME)", "pod-1") for one in container["args"]]
    at = arguments.index("--config-yaml") + 1
    bootstrap = json.loads(arguments[at])
    bootstrap["admin"]["address"]["socket_address"]["port_value"] = admin
    static = bootstrap["static_resources"]
    static["listeners"][0]["address"]["socket_address"]["port_value"] = ready
    for cluster in static["clusters"]:
        if cluster["name"] == "xds/admin":
            (group,) = cluster["load_assignment"]["endpoints"]
            (endpoint,) = group["lb_endpoints"]
            endpoint["endpoint"]["address"]["socket_address"]["port_value"] = admin
    arguments[at] = json.dumps(bootstrap)
    command = [str(binary()), *arguments, "--concurrency", "1", "--use-dynamic-base-id"]
    return LoggedProcess(network.command(*command), folder / "envoy.log")
