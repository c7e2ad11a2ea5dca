"""The redirect of a pod's connections to its sidecar, by IPv4 and IPv6: rules of nftables and a real Envoy."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from tests.support.cluster_objects import cluster_of
from tests.support.envoy import binary, for_this_envoy
from tests.support.kubernetes.namespace import Namespace
from tests.support.wait import UNREACHABLE, wait_for
from xds_server.control_plane.compiler import Compiler
from xds_server.gateway_api.mesh import mesh_key, with_mesh
from xds_server.gateway_api.translation import translate
from xds_server.sidecar.injection import USER
from xds_server.sidecar.redirect import Redirect
from xds_server.sources.manifest_folder import ManifestState
from xds_server.translate.readable import plain
from xds_server.translate.static import bootstrap

POD = {4: "10.9.0.2", 6: "fd00:9::2"}
OTHER = {4: "10.9.0.1", 6: "fd00:9::1"}
SERVICE = {4: "10.96.0.10", 6: "fd00:96::10"}
SIDECAR = {4: "127.0.0.6", 6: "::1"}
MANIFESTS = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: shop, labels: {{xds-gateway.dev/inject: enabled}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: orders, namespace: shop}}
spec: {{clusterIPs: [{SERVICE[4]}, "{SERVICE[6]}"], ports: [{{port: 80, name: http}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: orders, namespace: shop, labels: {{kubernetes.io/service-name: orders}}}}
addressType: IPv6
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: ["{OTHER[6]}"]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: orders, namespace: shop}}
spec:
  parentRefs: [{{group: "", kind: Service, name: orders}}]
  rules:
    - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-route, value: "1"}}]}}}}]
      backendRefs: [{{name: orders, port: 80}}]
"""
STRICT = """
---
apiVersion: xds-gateway.dev/v1alpha1
kind: MeshPolicy
metadata: {name: orders, namespace: shop}
spec: {mtls: strict}
"""
both = pytest.mark.parametrize("version", [4, 6])


class _Peer(http.server.BaseHTTPRequestHandler):
    """Answers with the address of its client."""

    def do_GET(self) -> None:
        body = self.client_address[0].removeprefix("::ffff:").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


class _Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


@contextmanager
def _serving(namespace: Namespace, port: int) -> Iterator[None]:
    server = namespace.run(lambda: _Server(("::", port), _Peer))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Pod:
    """A pod with a sidecar, and a machine that it is connected to."""

    inside: Namespace
    outside: Namespace

    def get(self, client: Namespace, address: str, port: int) -> httpx.Response:
        """Send a request."""
        host = f"[{address}]" if ":" in address else address
        return client.run(lambda: httpx.get(f"http://{host}:{port}/", timeout=10))


@contextmanager
def _pod(folder: Path, manifests: str) -> Iterator[Pod]:
    if os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("ip"):
        pytest.skip("the redirect needs root, nftables and iproute2")
    with ExitStack() as stack:
        inside, outside = (stack.enter_context(Namespace.new()) for _ in range(2))
        outside.call("ip", "link", "add", "pod", "type", "veth", "peer", "name", "eth0", "netns", inside.path)
        for namespace, device, addresses, gateway in (
            (outside, "pod", OTHER, None),
            (inside, "eth0", POD, OTHER),
        ):
            namespace.call("ip", "addr", "add", f"{addresses[4]}/24", "dev", device)
            namespace.call("ip", "addr", "add", f"{addresses[6]}/64", "dev", device, "nodad")
            namespace.call("ip", "link", "set", device, "up")
            for version in (4, 6) if gateway else ():
                namespace.call("ip", f"-{version}", "route", "add", "default", "via", OTHER[version])
        rules = Redirect(uid=USER, exclude_inbound=(8181,)).rules()
        done = subprocess.run(inside.command("nft", "-f", "-"), input=rules, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        for namespace, port in ((inside, 8080), (inside, 8181), (outside, 8080)):
            stack.enter_context(_serving(namespace, port))
        stack.enter_context(_envoy(inside, folder, manifests))
        pod = Pod(inside, outside)
        wait_for(lambda: pod.get(inside, SERVICE[6], 80).status_code == 200, "the sidecar", also=UNREACHABLE)
        yield pod


@contextmanager
def _envoy(namespace: Namespace, log_folder: Path, manifests: str) -> Iterator[None]:
    cluster = cluster_of(manifests)
    files = with_mesh(translate(cluster), cluster).meshes[mesh_key("shop")]
    state = ManifestState(files=files.rendered(), contents=files.contents)
    config = plain(bootstrap(for_this_envoy(Compiler({}).compile(state).snapshot)))
    with TemporaryDirectory() as readable, (log_folder / "envoy.log").open("wb") as log:
        Path(readable).chmod(0o755)  # another user reads it
        file = Path(readable, "bootstrap.json")
        file.write_text(json.dumps(config))
        user = ("setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups")
        command = namespace.command(
            *user, binary(), "-c", file, "--use-dynamic-base-id", "--concurrency", "1"
        )
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A pod whose Service has a route."""
    with _pod(tmp_path_factory.mktemp("pod"), MANIFESTS) as made:
        yield made


@both
def test_connections_to_the_pod_come_from_the_sidecar(pod: Pod, version: int) -> None:
    assert pod.get(pod.outside, POD[version], 8080).text == SIDECAR[version]
    assert pod.get(pod.outside, POD[version], 8181).text == OTHER[version], "it is excluded"


@both
def test_a_route_of_a_service_takes_connections_to_its_address(pod: Pod, version: int) -> None:
    response = pod.get(pod.inside, SERVICE[version], 80)
    assert (response.text, response.headers.get("x-route")) == (POD[6], "1")


@both
def test_other_connections_of_the_application_go_on(pod: Pod, version: int) -> None:
    response = pod.get(pod.inside, OTHER[version], 8080)
    assert (response.text, response.headers.get("x-route")) == (POD[version], None)
    assert pod.get(pod.inside, POD[version], 8080).status_code == 200, "a pod reaches itself"


@both
@pytest.mark.parametrize("port", [15001, 15006])
def test_the_ports_of_the_sidecar_reject_what_was_not_redirected(pod: Pod, version: int, port: int) -> None:
    for client in (pod.inside, pod.outside):
        with pytest.raises(httpx.TransportError):
            pod.get(client, POD[version], port)


@both
def test_a_strict_policy_holds_for_both_families(tmp_path: Path, version: int) -> None:
    with _pod(tmp_path, MANIFESTS + STRICT) as pod, pytest.raises(httpx.TransportError):
        pod.get(pod.outside, POD[version], 8080)
