"""python -m tests.support.kubernetes.conformance: run the official conformance suite of the Gateway API against us.

It starts an API server, a stand-in for the rest of a cluster and `xds controller`, all in a network namespace of its
own, and then the suite.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.support.kubernetes import build
from tests.support.kubernetes.api_server import NODE, ApiServer
from tests.support.kubernetes.cluster import cluster
from tests.support.kubernetes.controller import controller, install_webhook, kubeconfig_of
from tests.support.wait import wait_for
from xds_server.gateway_api.capture import INJECT
from xds_server.gateway_api.conditions import CONTROLLER
from xds_server.gateway_api.statuses import MESH_FEATURES

SUITE = "v1.6.3"
"""The newest suite that Go 1.26 compiles. It insists on the CRDs of its own version."""

_RESULT = re.compile(r"^ {4}--- (PASS|FAIL|SKIP): (\S+)", re.MULTILINE)
_XDS, _ADMIN, _WEBHOOK = f"{NODE}:18000", "127.0.0.1:18001", f"{NODE}:18443"
_CLASS = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GatewayClass",
    "metadata": {"name": "xds"},
    "spec": {"controllerName": CONTROLLER},
}
_ADDRESSES = {"usableNetworkAddresses": "10.245.200.1", "unusableNetworkAddresses": "192.0.2.1"}
"""One that the load balancer of the stand-in has, and one that it has not."""
_ECHO = "sigs.k8s.io/gateway-api/conformance/echo-basic"


def programs() -> Path:
    """Return the folder of the suite and its echo server, and build it first if needed. Raises CannotBuildError."""
    sources = build.SOURCES / "suite"
    target = build.CACHE / f"suite-{build.digest([sources], ['with the CRDs of both channels'])}"

    def make(folder: Path) -> None:
        flags = ("-trimpath", "-ldflags", "-s -w")
        build.go(folder, "test", "-c", *flags, "-o", str(folder / "conformance"), ".", sources=sources)
        module = build.go(folder, "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api", sources=sources)
        for channel in ("standard", "experimental"):
            crds = Path(module.strip(), "config", "crd", channel)
            shutil.copytree(crds, folder / channel, copy_function=shutil.copyfile)
            (folder / channel).chmod(0o755)  # the modules of Go are read-only
        build.go(folder, "build", *flags, "-o", str(folder / "echo-basic"), _ECHO, sources=sources)

    build.built(target, make)
    return target


def exec_server() -> Path:
    """Return the program that runs commands in containers, and build it first if needed. Raises CannotBuildError."""
    sources = build.SOURCES / "exec_server"
    target = build.CACHE / f"exec-server-{build.digest([sources], [])}"

    def make(folder: Path) -> None:
        build.go(folder, "build", "-trimpath", "-o", str(folder / "exec_server"), ".", sources=sources)

    build.built(target, make)
    return target / "exec_server"


def _accepted(server: ApiServer) -> None:
    """Wait until the controller has accepted the class and said what it supports, which chooses the tests."""
    with server.objects() as objects:
        path = objects.path(_CLASS)
        wait_for(
            lambda: objects.request("GET", path).get("status", {}).get("supportedFeatures"),
            "the GatewayClass to be accepted",
        )


def _run(server: ApiServer, folder: Path, found: Path, arguments: argparse.Namespace) -> int:
    command = [f"{found}/conformance", "-test.run", "TestConformance", "-test.v", "-test.timeout", "60m"]
    command += ["--gateway-class=xds", f"--conformance-profiles={arguments.profile}"]
    if "MESH" in arguments.profile:
        command += [f"--supported-features={','.join(MESH_FEATURES)}", f"--namespace-labels={INJECT}=enabled"]
    options = folder / "options.json"
    options.write_text(json.dumps({name: [{"value": one}] for name, one in _ADDRESSES.items()}))
    command.append(f"--conformance-options-file={options}")
    if arguments.test:
        command.append(f"--run-test={arguments.test}")
    log = folder / "suite.log"
    print(f"the suite runs; its log is {log}", flush=True)
    with log.open("wb") as output:
        inside = server.namespace.command("env", f"KUBECONFIG={server.inside}", *command)
        code = subprocess.run(inside, stdout=output, stderr=output).returncode
    text = log.read_text(errors="replace")
    results = _RESULT.findall(text)
    print("\n".join(f"{result} {name}" for result, name in results if result != "SKIP"))
    if not results:
        print("".join(text.splitlines(keepends=True)[-15:]))
    counts = Counter(result for result, _ in results)
    print(f"passed {counts['PASS']}, failed {counts['FAIL']}, skipped {counts['SKIP']}; logs in {folder}")
    return code


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--profile", default="GATEWAY-HTTP", help="for example GATEWAY-GRPC; several with commas"
    )
    parser.add_argument("--test", help="one test by its short name, for example HTTPRouteWeight")
    parser.add_argument(
        "--channel", choices=("standard", "experimental"), default="standard", help="of the CRDs"
    )
    parser.add_argument("--logs", type=Path, help="a folder for the logs; default: a new one")
    arguments = parser.parse_args()
    try:
        build.build()
        found, runner = programs(), exec_server()
    except build.CannotBuildError as error:
        print(error)
        return 3
    if line := build.missing():
        print(line)
        return 3
    folder = (arguments.logs or Path(tempfile.mkdtemp(prefix="xds-conformance-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with cluster(folder, programs=found, crds=found / arguments.channel, exec_server=runner) as server:
        with server.objects() as objects:
            objects.apply([_CLASS])
            kubeconfig = kubeconfig_of(objects, server.inside, folder)
            install_webhook(objects, _WEBHOOK)
        more = ("--webhook", _WEBHOOK, "--image", "xds-redirect")
        with controller(server.namespace, kubeconfig, folder, _XDS, _ADMIN, CONTROLLER, *more) as process:
            _accepted(server)
            process.says("wrote the authority of the webhook")
            return _run(server, folder, found, arguments)


if __name__ == "__main__":
    sys.exit(_main())
