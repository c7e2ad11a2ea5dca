"""`xds controller` beside an API server, and an Envoy as the Deployment of a Gateway describes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import yaml

from tests.support.envoy import binary
from tests.support.kubernetes.namespace import Namespace
from tests.support.kubernetes.objects import Objects
from tests.support.wait import wait_for

ROOT = Path(__file__).resolve().parents[3]


class Process:
    """A process in a network namespace with its log. Use as a context manager."""

    def __init__(self, network: Namespace, command: list[str], log: Path) -> None:
        self._network, self._command, self._log = network, command, log
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self._log.open("ab") as log:
            command = self._network.command(*self._command)
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal, and return its exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def log(self) -> str:
        """All that it has said."""
        return self._log.read_text() if self._log.exists() else ""

    def says(self, text: str, after: int = 0) -> None:
        """Wait until the log has a text, beyond its first `after` characters."""
        wait_for(lambda: text in self.log[after:], lambda: f"{text!r} in the log:\n{self.log[-3000:]}")


def kubeconfig_of(objects: Objects, inside: Path, folder: Path) -> Path:
    """Apply the example of the controller, and return a kubeconfig with exactly its rights."""
    objects.apply((ROOT / "examples" / "kubernetes" / "controller.yaml").read_text())
    document = yaml.safe_load(inside.read_text())
    document["users"][0]["user"] = {"token": objects.token_of("xds-system", "xds-gateway")}
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    return file


def controller(network: Namespace, kubeconfig: Path, folder: Path, xds: str, name: str) -> Process:
    """Return `xds controller` for the classes of a controller `name`, which listens at `xds`."""
    command = [sys.executable, "-m", "xds_server", "controller", "--kubeconfig", str(kubeconfig)]
    command += ["--xds", xds, "--xds-service", xds, "--controller-name", name]
    return Process(network, [*command, "--secrets-anywhere"], folder / "controller.log")


def envoy(network: Namespace, deployment: dict[str, Any], folder: Path, admin: int, ready: int) -> Process:
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
    return Process(network, command, folder / "envoy.log")
