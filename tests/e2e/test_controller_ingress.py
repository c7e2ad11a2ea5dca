"""Ingresses with `xds controller`, a real Kubernetes API server and a real Envoy: traffic, addresses, Events."""

from __future__ import annotations

import signal
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_controller import Cluster, xds
from tests.support.certificates import authority
from tests.support.kubernetes.shared import SharedServer
from tests.support.wait import wait_for

CLASS = """
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: NAME
  annotations: {xds-gateway.dev/http-port: "PORT", xds-gateway.dev/https-port: "TLSPORT"}
spec:
  controller: example.com/NAME
  parameters: {apiGroup: xds-gateway.dev, kind: GatewayParameters, name: edge, namespace: NAME, scope: Namespace}
---
apiVersion: xds-gateway.dev/v1alpha1
kind: GatewayParameters
metadata: {name: edge, namespace: NAME}
spec: {replicas: 1}
"""
INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: NAME}
spec:
  ingressClassName: NAME
  tls: [{hosts: [tls.example.com], secretName: cert}]
  rules:
    - host: a.example.com
      http: {paths: [{path: /users, pathType: Prefix, backend: {service: {name: users, port: {number: 80}}}}]}
    - host: tls.example.com
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: users, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: foreign, namespace: NAME}
spec:
  ingressClassName: of-somebody-else
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: users, port: {number: 80}}}}]}}]
"""
FAULTY = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: younger, namespace: NAME, annotations: {nginx.ingress.kubernetes.io/auth-url: "https://login.example.com"}}
spec:
  ingressClassName: NAME
  rules:
    - host: a.example.com
      http: {paths: [{path: /users, pathType: Prefix, backend: {service: {name: users, port: {number: 80}}}}]}
    - host: b.example.com
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: users, port: {number: 80}}}}]}
"""


class IngressCluster(Cluster):
    """An IngressClass of its own beside the Gateway."""

    def __init__(self, server: SharedServer, folder: Path, stack: ExitStack) -> None:
        super().__init__(server, folder, stack)
        self.made = f"{self.name}-ingress"
        self.tls = self.network.listen("0.0.0.0")
        self.tls_port: int = self.tls.getsockname()[1]
        self.tls.close()
        self.objects.request("DELETE", self.path("gateways", "web"))  # which would take the same port
        self.apply(CLASS.replace("TLSPORT", str(self.tls_port)))
        chain, key = (b64encode(part).decode() for part in authority().issue("tls.example.com"))
        secret = {"type": "kubernetes.io/tls", "data": {"tls.crt": chain, "tls.key": key}}
        metadata = {"name": "cert", "namespace": self.name}
        self.objects.apply([{"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **secret}])
        self.apply(INGRESS)

    def status(self, name: str) -> Any:
        path = self.path("ingresses", name, "apis/networking.k8s.io/v1")
        return self.objects.request("GET", path)["status"]["loadBalancer"]

    def events(self, name: str) -> set[tuple[str, str]]:
        found = self.objects.request("GET", f"/api/v1/namespaces/{self.name}/events")["items"]
        return {
            (one["reason"], one["message"].partition(";")[0])
            for one in found
            if (one["involvedObject"]["kind"], one["involvedObject"]["name"]) == ("Ingress", name)
        }

    def answer(self, host: str, path: str) -> tuple[int, str]:
        response = httpx.get(self.url + path, headers={"host": host}, timeout=10)
        return response.status_code, response.text

    def answers(self, host: str, path: str, expected: tuple[int, str]) -> None:
        wait_for(
            lambda: self.answer(host, path) == expected,
            f"{host}{path} to answer {expected}",
            also=(httpx.TransportError,),
        )


@pytest.fixture
def cluster(kubernetes: SharedServer, tmp_path: Path) -> Iterator[IngressCluster]:
    with ExitStack() as stack:
        found = IngressCluster(kubernetes, tmp_path, stack)
        stack.enter_context(found.controller)
        found.schedule()
        found.serve(stack)
        wait_for(
            lambda: found.status("web"),
            lambda: f"the address; the controller:\n{found.controller.log[-3000:]}",
        )
        yield found


def test_ingresses_are_served_and_get_addresses(cluster: IngressCluster) -> None:
    assert cluster.status("web") == {"ingress": [{"ip": "10.245.0.9"}]}
    assert cluster.status("foreign") == {}
    cluster.answers("a.example.com", "/users/1", (200, cluster.pods[0]))
    assert cluster.answer("a.example.com", "/else")[0] == 404
    assert cluster.answer("b.example.com", "/users/1")[0] == 404
    assert cluster.answer("tls.example.com", "/")[0] == 308
    context = ssl.create_default_context(cadata=authority().pem.decode())
    port = cluster.network.forward("127.0.0.1", cluster.tls_port)
    with httpx.Client(verify=context) as client:
        found = client.get(
            f"https://127.0.0.1:{port}/",
            headers={"host": "tls.example.com"},
            extensions={"sni_hostname": "tls.example.com"},
        )
    assert (found.status_code, found.text) == (200, cluster.pods[0])
    cluster.move(cluster.pods[1])
    cluster.answers("a.example.com", "/users/1", (200, cluster.pods[1]))
    assert cluster.events("web") == set()


def test_what_is_wrong_is_an_event(cluster: IngressCluster) -> None:
    cluster.apply(FAULTY)
    expected = {
        (
            "RequestsRejected",
            (
                "nginx.ingress.kubernetes.io/auth-url: it may protect something and has no equal, so the requests of this "
                "Ingress get 500"
            ),
        ),
        (
            "Conflict",
            f"spec.rules[0].http.paths[0]: the path /users/* of a.example.com belongs to the older Ingress {cluster.name}/web",
        ),
    }
    wait_for(
        lambda: cluster.events("younger") == expected,
        lambda: f"the Events beside {cluster.events('younger')}",
    )
    wait_for(lambda: cluster.answer("b.example.com", "/")[0] == 500, "the requests to fail")
    assert cluster.answer("a.example.com", "/users/1") == (200, cluster.pods[0])
    wait_for(lambda: cluster.status("younger"), "its address")


UNREADABLE = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: unreadable, namespace: NAME, annotations: {nginx.ingress.kubernetes.io/use-regex: "true"}}
spec:
  ingressClassName: NAME
  rules:
    - host: c.example.com
      http:
        paths:
          - {path: "/(", pathType: ImplementationSpecific, backend: {service: {name: users, port: {number: 80}}}}
          - {path: /good, pathType: ImplementationSpecific, backend: {service: {name: users, port: {number: 80}}}}
"""


def test_what_the_language_rejects_is_an_event_too(cluster: IngressCluster) -> None:
    cluster.apply(UNREADABLE)
    wait_for(lambda: cluster.events("unreadable"), "the Event")
    ((reason, message),) = cluster.events("unreadable")
    assert reason == "RequestsRejected"
    assert "missing )" in message
    cluster.answers("c.example.com", "/good/1", (200, cluster.pods[0]))
    assert cluster.answer("a.example.com", "/users/1") == (200, cluster.pods[0])


def test_an_ingress_of_another_class_loses_its_address(cluster: IngressCluster) -> None:
    cluster.answers("a.example.com", "/users/1", (200, cluster.pods[0]))
    path = cluster.path("ingresses", "web", "apis/networking.k8s.io/v1")
    cluster.objects.request("PATCH", path, {"spec": {"ingressClassName": "of-somebody-else"}})
    wait_for(lambda: cluster.answer("a.example.com", "/users/1")[0] == 404, "the requests to get 404")
    wait_for(lambda: cluster.status("web") == {}, "the address to go")


def test_an_ingress_that_leaves_while_no_controller_runs_loses_its_address(cluster: IngressCluster) -> None:
    cluster.controller.stop(signal.SIGTERM)
    address = {"ingress": [{"ip": "192.0.2.1"}]}
    api = "apis/networking.k8s.io/v1"
    foreign = cluster.path("ingresses", "foreign", api)
    cluster.objects.request("PATCH", f"{foreign}/status", {"status": {"loadBalancer": address}})
    cluster.objects.request(
        "PATCH", cluster.path("ingresses", "web", api), {"spec": {"ingressClassName": "of-somebody-else"}}
    )
    assert cluster.status("web") != {}
    cluster.controller.start()
    wait_for(lambda: cluster.status("web") == {}, "the address to go")
    assert cluster.status("foreign") == address


def test_the_objects_belong_to_the_class(cluster: IngressCluster) -> None:
    deployment = cluster.deployment()
    (owner,) = deployment["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("IngressClass", cluster.name)
    assert deployment["spec"]["replicas"] == 1
    service = cluster.objects.request("GET", cluster.path("services", cluster.made, "api/v1"))
    assert {one["port"] for one in service["spec"]["ports"]} == {cluster.port, cluster.tls_port}


def test_commands_look_at_a_class(cluster: IngressCluster) -> None:
    given = ("--gateway", f"@ingress/{cluster.name}")
    code, text = xds(
        cluster, "explain", "k8s:", "GET", f"http://a.example.com:{cluster.port}/users/1", *given
    )
    assert code == 0
    assert f"upstream {cluster.name}.users.80" in text
    code, text = xds(cluster, "check", "k8s:", "--no-envoy", "--gateway", "@ingress/of-somebody-else")
    assert code == 0
