"""`xds controller` with a real Kubernetes API server and a real Envoy: traffic, conditions, restarts."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.kubernetes.controller import Pod, controller, kubeconfig_of
from tests.support.kubernetes.namespace import Namespace
from tests.support.kubernetes.objects import Objects
from tests.support.kubernetes.shared import SharedServer
from tests.support.logged_process import LoggedProcess
from tests.support.wait import wait_for
from xds_server.certificate_authority.authority import new_authority
from xds_server.certificate_authority.rotation import Authorities

MANIFESTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: NAME}
spec: {controllerName: example.com/NAME}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: NAME}
spec: {gatewayClassName: NAME, listeners: [{name: http, port: PORT, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: users, namespace: NAME}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: users, namespace: NAME}
spec:
  parentRefs: [{name: web}]
  rules:
    - matches: [{path: {value: /users}}]
      backendRefs: [{name: users, port: 80}]
    - matches: [{path: {value: /missing}}]
      backendRefs: [{name: missing, port: 80}]
"""
SECOND = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: second, namespace: NAME}
spec: {parentRefs: [{name: web}], hostnames: [second.example.com]}
"""
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: users-1, namespace: NAME, labels: {kubernetes.io/service-name: users}}
addressType: IPv4
ports: [{port: 8080, name: ""}]
endpoints: [{addresses: [ADDRESS]}]
"""


class _Pod(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = str(self.server.server_address[0]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Cluster:
    """A Gateway of its own in the API server of the session, with a controller and an Envoy."""

    def __init__(self, server: SharedServer, folder: Path, stack: ExitStack) -> None:
        number = uuid.uuid4().int
        self.name, self.folder = f"t{number % 10**12}", folder
        self.made = f"web-{self.name}"
        """The name of the objects that serve it."""
        self.network: Namespace = stack.enter_context(server.namespace())
        self.objects: Objects = stack.enter_context(server.objects())
        self.objects.namespace(self.name)
        self.port, self.xds, self.pages, self.admin, self.ready = (_free(self.network) for _ in range(5))
        self.pods = [f"10.244.{number % 200 + 10}.{last}" for last in (1, 2)]
        for address in self.pods:
            pod = ThreadingHTTPServer((address, 8080), _Pod, bind_and_activate=False)
            pod.socket.close()
            pod.socket = self.network.listen(address, 8080)
            threading.Thread(target=pod.serve_forever, daemon=True).start()
            stack.callback(pod.server_close)
            stack.callback(pod.shutdown)
        self.apply(MANIFESTS)
        self.move(self.pods[0])
        xds = f"10.244.0.1:{self.xds}"
        kubeconfig = kubeconfig_of(self.objects, server.inside, folder)
        pages = f"127.0.0.1:{self.pages}"
        self.controller = controller(self.network, kubeconfig, folder, xds, pages, f"example.com/{self.name}")
        self.url = f"http://127.0.0.1:{self.network.forward('127.0.0.1', self.port)}"
        self.pod: Pod
        self.envoy: LoggedProcess

    def apply(self, manifests: str) -> None:
        self.objects.apply(manifests.replace("NAME", self.name).replace("PORT", str(self.port)))

    def move(self, address: str) -> None:
        """Have the Service of users at an address."""
        self.apply(SLICE.replace("ADDRESS", address))

    def path(self, kind: str, name: str, group: str = "apis/gateway.networking.k8s.io/v1") -> str:
        return f"/{group}/namespaces/{self.name}/{kind}/{name}"

    def conditions(self, kind: str, name: str) -> dict[str, tuple[str, str, str]]:
        status: dict[str, Any] = self.objects.request("GET", self.path(kind, name)).get("status") or {}
        parents = status.get("parents")
        found = parents[0]["conditions"] if parents else status.get("conditions") or []
        return {one["type"]: (one["status"], one["reason"], one["message"]) for one in found}

    def version(self, kind: str, name: str) -> str:
        """Return the version of an object, which changes with each write."""
        return str(self.objects.request("GET", self.path(kind, name))["metadata"]["resourceVersion"])

    def programmed(self) -> bool:
        return self.conditions("gateways", "web").get("Programmed", ("",))[0] == "True"

    def deployment(self) -> dict[str, Any]:
        """Return the Deployment of the Gateway when there is one."""
        path = self.path("deployments", self.made, "apis/apps/v1")
        missing = (httpx.HTTPStatusError,)
        return wait_for(lambda: self.objects.request("GET", path), "the Deployment", also=missing)

    def schedule(self) -> Pod:
        """Make the pod of the Deployment as it is now."""
        self.pod = Pod(self.objects, self.deployment(), self.folder, admin=self.admin, ready=self.ready)
        return self.pod

    def serve(self, stack: ExitStack) -> None:
        """Start the Envoy of the pod, and give the Service an address, as a kubelet and a cloud would."""
        missing = (httpx.HTTPStatusError,)
        self.envoy = self.pod.envoy(self.network)
        stack.enter_context(self.envoy)
        address = {"status": {"loadBalancer": {"ingress": [{"ip": "10.245.0.9"}]}}}
        path = self.path("services", self.made, "api/v1") + "/status"
        wait_for(lambda: self.objects.request("PATCH", path, address), "the Service", also=missing)

    def get(self, path: str) -> tuple[int, str]:
        response = httpx.get(self.url + path, timeout=10)
        return response.status_code, response.text

    def gets(self, path: str, expected: tuple[int, str]) -> None:
        wait_for(
            lambda: self.get(path) == expected, f"{path} to answer {expected}", also=(httpx.TransportError,)
        )


def _free(network: Namespace) -> int:
    with network.listen("0.0.0.0") as taken:
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture
def cluster(kubernetes: SharedServer, tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        found = Cluster(kubernetes, tmp_path, stack)
        stack.enter_context(found.controller)
        found.schedule()
        found.serve(stack)
        wait_for(found.programmed, lambda: f"the Gateway; the controller:\n{found.controller.log[-3000:]}")
        yield found


def test_a_gateway_serves_and_tells_the_truth(cluster: Cluster) -> None:
    cluster.gets("/users/1", (200, cluster.pods[0]))
    assert cluster.get("/missing")[0] == 500
    assert cluster.get("/else")[0] == 404
    assert cluster.conditions("httproutes", "users")["ResolvedRefs"][1:] == (
        "BackendNotFound",
        f"there is no Service {cluster.name}/missing",
    )
    status = cluster.objects.request("GET", cluster.path("gateways", "web"))["status"]
    assert status["addresses"] == [{"type": "IPAddress", "value": "10.245.0.9"}]
    assert status["listeners"][0]["attachedRoutes"] == 1
    forwarded = cluster.network.forward("127.0.0.1", cluster.ready)
    assert httpx.get(f"http://127.0.0.1:{forwarded}/ready").status_code == 200
    assert httpx.get(f"http://127.0.0.1:{forwarded}/quitquitquit").status_code == 404


def test_requests_follow_the_endpoints(cluster: Cluster) -> None:
    cluster.gets("/users/1", (200, cluster.pods[0]))
    cluster.move(cluster.pods[1])
    cluster.gets("/users/1", (200, cluster.pods[1]))


def test_what_is_served_outlives_the_controller(cluster: Cluster) -> None:
    cluster.gets("/users/1", (200, cluster.pods[0]))
    written = cluster.version("httproutes", "users")
    cluster.controller.stop(signal.SIGKILL)
    assert cluster.get("/users/1") == (200, cluster.pods[0])
    cluster.move(cluster.pods[1])
    cluster.controller.start()
    cluster.gets("/users/1", (200, cluster.pods[1]))
    cluster.apply(SECOND)
    wait_for(lambda: cluster.conditions("httproutes", "second"), "the status of a new route")
    assert cluster.version("httproutes", "users") == written  # the new leader wrote what differs


def test_a_route_that_cannot_be_served_takes_no_other_away(cluster: Cluster) -> None:
    bad = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bad, namespace: NAME}
spec:
  parentRefs: [{name: web}]
  rules:
    - matches: [{path: {value: /bad}}]
      filters: [{type: RequestRedirect, requestRedirect: {scheme: http, port: PORT}}]
"""
    cluster.apply(bad)
    wait_for(
        lambda: cluster.conditions("httproutes", "bad").get("Accepted", ("",))[0] == "False", "the condition"
    )
    assert "without end" in cluster.conditions("httproutes", "bad")["Accepted"][2]
    cluster.gets("/bad", (500, cluster.get("/bad")[1]))
    assert cluster.get("/users/1") == (200, cluster.pods[0])
    assert cluster.programmed()


def test_a_listener_whose_port_is_taken_says_so(cluster: Cluster) -> None:
    with cluster.network.listen("0.0.0.0") as taken:
        port = taken.getsockname()[1]
        listeners = [
            {"name": name, "port": number, "protocol": "HTTP"}
            for name, number in (("http", cluster.port), ("taken", port))
        ]
        path = cluster.path("gateways", "web")
        cluster.objects.request("PATCH", path, {"spec": {"listeners": listeners}})
        wait_for(
            lambda: "cannot bind" in cluster.conditions("gateways", "web")["Programmed"][2], "Envoy's words"
        )
        assert cluster.get("/users/1") == (200, cluster.pods[0])
    cluster.objects.request("PATCH", path, {"spec": {"listeners": listeners[:1]}})
    wait_for(cluster.programmed, "the Gateway again")


def test_an_envoy_is_served_for_the_account_of_its_token_only(cluster: Cluster) -> None:
    cluster.gets("/users/1", (200, cluster.pods[0]))
    cluster.controller.stop(signal.SIGTERM)
    cluster.pod.renew(account="somebody")
    cluster.controller.start()
    said = f"no Gateway has pods with the service account {cluster.name}/somebody"
    wait_for(lambda: said in cluster.controller.log, "the account to be rejected")
    assert cluster.get("/users/1") == (200, cluster.pods[0])  # Envoy keeps what it has
    cluster.pod.renew(audience="https://kubernetes.default.svc")
    said = "does not accept its token for the audience"
    wait_for(lambda: said in cluster.controller.log, "the audience to be rejected")
    cluster.move(cluster.pods[1])
    cluster.pod.renew()
    cluster.gets("/users/1", (200, cluster.pods[1]))


def test_an_envoy_that_starts_follows_a_new_authority(cluster: Cluster) -> None:
    cluster.gets("/users/1", (200, cluster.pods[0]))
    cluster.controller.stop(signal.SIGTERM)
    path = f"/api/v1/namespaces/xds-system/secrets/example.com-{cluster.name}-authority"
    secret = cluster.objects.request("GET", path)
    before = {name: base64.b64decode(value) for name, value in secret["data"].items()}
    new = new_authority("xds-gateway", datetime.now(UTC), timedelta(days=900))
    data = Authorities(current=new, former=before["tls.crt"]).data()
    encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
    cluster.objects.request("PATCH", path, {"data": encoded})
    cluster.controller.start()
    config_map = cluster.path("configmaps", f"web-{cluster.name}", "api/v1")
    wait_for(
        lambda: new.certificate.decode() in cluster.objects.request("GET", config_map)["data"]["ca.crt"],
        "the new authority in the ConfigMap",
    )
    cluster.move(cluster.pods[1])
    assert cluster.get("/users/1") == (200, cluster.pods[0])  # Envoy does not trust the new one, and goes on
    cluster.pod.renew()
    cluster.envoy.stop(signal.SIGTERM)
    cluster.envoy.start()
    cluster.gets("/users/1", (200, cluster.pods[1]))


def test_the_controller_says_that_it_is_ready_and_leads(cluster: Cluster) -> None:
    pages = f"http://127.0.0.1:{cluster.network.forward('127.0.0.1', cluster.pages)}"
    assert httpx.get(f"{pages}/ready").status_code == 200
    text = httpx.get(f"{pages}/metrics").text
    assert "xds_controller_leading 1.0" in text
    assert 'xds_controller_gateways{state="current"} 1.0' in text
    assert 'xds_controller_objects{kind="HTTPRoute"}' in text


PARAMETERS = """
apiVersion: xds-gateway.dev/v1alpha1
kind: GatewayParameters
metadata: {name: shape, namespace: NAME}
spec: SPEC
"""


def shaped(cluster: Cluster, spec: str) -> None:
    """Give the Gateway parameters."""
    cluster.apply(PARAMETERS.replace("SPEC", spec))
    reference = {"group": "xds-gateway.dev", "kind": "GatewayParameters", "name": "shape"}
    infrastructure = {"spec": {"infrastructure": {"parametersRef": reference}}}
    cluster.objects.request("PATCH", cluster.path("gateways", "web"), infrastructure)


def exists(cluster: Cluster, kind: str, group: str) -> bool:
    try:
        cluster.objects.request("GET", cluster.path(kind, f"web-{cluster.name}", group))
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 404  # noqa: PT017 - any other error is one of the test
        return False
    return True


def test_parameters_shape_what_serves_a_gateway(cluster: Cluster) -> None:
    kinds = {
        "deployments": "apis/apps/v1",
        "daemonsets": "apis/apps/v1",
        "horizontalpodautoscalers": "apis/autoscaling/v2",
        "poddisruptionbudgets": "apis/policy/v1",
    }

    def there() -> set[str]:
        return {kind for kind, group in kinds.items() if exists(cluster, kind, group)}

    assert there() == {"deployments", "poddisruptionbudgets"}
    shaped(cluster, "{autoscaling: {minReplicas: 2, maxReplicas: 9}, serviceType: ClusterIP}")
    wait_for(
        lambda: there() == {"deployments", "horizontalpodautoscalers", "poddisruptionbudgets"},
        lambda: f"an autoscaler beside {there()}",
    )
    service = cluster.path("services", f"web-{cluster.name}", "api/v1")
    wait_for(lambda: cluster.objects.request("GET", service)["spec"]["type"] == "ClusterIP", "the Service")
    shaped(cluster, "{workload: DaemonSet, nodeSelector: {edge: 'true'}, resources: {requests: {cpu: 2}}}")
    wait_for(lambda: there() == {"daemonsets"}, lambda: f"only a DaemonSet of {there()}")
    found = cluster.objects.request("GET", cluster.path("daemonsets", f"web-{cluster.name}", "apis/apps/v1"))
    pod = found["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"edge": "true"}
    assert pod["containers"][0]["resources"] == {"requests": {"cpu": "2"}}


def test_parameters_that_cannot_be_used_are_told(cluster: Cluster) -> None:
    shaped(cluster, "{workload: DaemonSet, autoscaling: {maxReplicas: 9}}")
    wait_for(
        lambda: cluster.conditions("gateways", "web")["Accepted"][1] == "InvalidParameters", "the condition"
    )
    assert "a DaemonSet has no autoscaling" in cluster.conditions("gateways", "web")["Accepted"][2]
    assert exists(cluster, "deployments", "apis/apps/v1")
    with pytest.raises(httpx.HTTPStatusError) as caught:
        shaped(cluster, "{replicas: -1}")
    assert "spec.replicas" in caught.value.response.text


def test_a_pod_that_ends_drains_first(cluster: Cluster) -> None:
    shaped(cluster, "{drainSeconds: 2}")
    wait_for(
        lambda: '"2s"' in json.dumps(cluster.deployment()).replace("\\", ""), "the time in the Deployment"
    )
    cluster.envoy.stop(signal.SIGTERM)
    cluster.envoy = cluster.schedule().envoy(cluster.network)
    with cluster.envoy:
        cluster.gets("/users/1", (200, cluster.pods[0]))
        probes = f"http://127.0.0.1:{cluster.network.forward('127.0.0.1', cluster.ready)}"
        assert httpx.get(f"{probes}/drain").status_code == 404
        assert httpx.get(f"{probes}/drain", headers={"x-drain-token": "wrong"}).status_code == 404
        assert httpx.get(f"{probes}/ready").status_code == 200
        asked = cluster.pod.drain()
        with httpx.Client() as clients, ThreadPoolExecutor(1) as executor:
            before = clients.get(f"{cluster.url}/users/1")
            assert "connection" not in before.headers
            hook = executor.submit(
                httpx.get, f"{probes}{asked.url.path}", headers=dict(asked.headers), timeout=30
            )
            wait_for(lambda: httpx.get(f"{probes}/ready").status_code == 503, "the probe to fail")
            assert not hook.done()  # the kubelet ends the Envoy only when it has the response
            after = clients.get(f"{cluster.url}/users/1")
            assert (after.status_code, after.headers["connection"]) == (200, "close")
            while not hook.done():
                assert clients.get(f"{cluster.url}/users/1").status_code == 200
            assert hook.result().status_code == 200


def xds(cluster: Cluster, *words: str) -> tuple[int, str]:
    """Run a command that looks at the live cluster. Returns its exit code and its output."""
    return run_module(cluster, "xds_server", *words)


def kubectl_gateway(cluster: Cluster, *words: str) -> tuple[int, str]:
    return run_module(cluster, "xds_server.cli.kubectl_gateway", *words)


def run_module(cluster: Cluster, module: str, *words: str) -> tuple[int, str]:
    command = cluster.network.command(
        "env", f"KUBECONFIG={cluster.folder / 'kubeconfig'}", sys.executable, "-m", module, *words
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_commands_look_at_the_live_cluster(cluster: Cluster) -> None:
    gateway = ("--gateway", f"{cluster.name}/web")
    code, text = xds(
        cluster, "explain", "k8s:", "GET", f"http://a.example.com:{cluster.port}/users/1", *gateway
    )
    assert code == 0
    assert f"> {cluster.name}.users.000.000" in text
    assert f"upstream {cluster.name}.users.80" in text
    code, text = xds(cluster, "check", "k8s:", "--no-envoy", *gateway)
    assert code == 0
    missing = f"there is no Service {cluster.name}/missing"
    assert f"HTTPRoute/{cluster.name}/users: ResolvedRefs is False: BackendNotFound: {missing}" in text
    code, text = xds(cluster, "check", "k8s:", "--gateway", f"{cluster.name}/nothing")
    assert code == 1
    assert f"there is no Gateway {cluster.name}/nothing" in text
    assert xds(cluster, "check", "k8s:other-context")[0] == 1
    code, text = xds(cluster, "why", "k8s:", f"HTTPRoute/{cluster.name}/users")
    assert code == 1
    assert missing in text
    assert f"> {cluster.name}/web http every host: /users/*: takes requests" in text
    assert f"Service {cluster.name}/users port 80: 1 endpoint" in text


def test_the_plugin_of_kubectl_shows_gateways_and_what_is_wrong(cluster: Cluster) -> None:
    code, text = kubectl_gateway(cluster, "status")
    assert code == 1
    listeners = "routes of the listeners: http: 1"
    assert f"Gateway {cluster.name}/web ({cluster.name}): Programmed is True; 10.245.0.9; {listeners}" in text
    assert f"HTTPRoute {cluster.name}/users at web: ResolvedRefs is False: BackendNotFound" in text
    code, text = kubectl_gateway(cluster, "why", f"HTTPRoute/{cluster.name}/user")
    assert code == 2
    assert f"did you mean 'HTTPRoute/{cluster.name}/users'?" in text
    url = f"http://a.example.com:{cluster.port}/users/1"
    code, text = kubectl_gateway(cluster, "explain", "GET", url, "--gateway", f"{cluster.name}/web")
    assert code == 0
    assert f"upstream {cluster.name}.users.80" in text


def test_objects_of_somebody_else_stay_as_they_are(cluster: Cluster) -> None:
    name = f"pay-{cluster.name}"
    service = {"metadata": {"name": name, "namespace": cluster.name}, "spec": {"ports": [{"port": 5432}]}}
    cluster.objects.apply([{"apiVersion": "v1", "kind": "Service", **service}])
    gateway = {
        "gatewayClassName": cluster.name,
        "listeners": [{"name": "http", "port": 81, "protocol": "HTTP"}],
    }
    cluster.objects.apply(
        [
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "metadata": {"name": "pay", "namespace": cluster.name},
                "spec": gateway,
            }
        ]
    )
    wait_for(
        lambda: (
            "does not belong to this Gateway"
            in cluster.conditions("gateways", "pay").get("Programmed", "   ")[2]
        ),
        "the condition",
    )
    found = cluster.objects.request("GET", cluster.path("services", name, "api/v1"))
    assert found["spec"]["ports"][0]["port"] == 5432
    assert "ownerReferences" not in found["metadata"]
    assert cluster.programmed()


def test_what_the_api_server_rejects_is_told(cluster: Cluster) -> None:
    shaped(cluster, "{resources: {requests: {cpu: abc}}}")
    wait_for(
        lambda: "quantities must match" in cluster.conditions("gateways", "web")["Programmed"][2], "its words"
    )
    shaped(cluster, "{drainSeconds: 3}")
    wait_for(cluster.programmed, "the Gateway again")
