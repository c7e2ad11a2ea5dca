"""A mesh of real sidecars: pods of a real API server, which a webhook changes, and requests between them."""

from __future__ import annotations

import base64
import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import httpx
import pytest
from cryptography import x509

from tests.support.kubernetes import build
from tests.support.kubernetes.mesh import Mesh, is_ready, mesh
from tests.support.wait import wait_for
from xds_server.certificate_authority.authority import new_authority

pytestmark = pytest.mark.xdist_group("mesh")

SHOP, OFFICE, PLAIN = ("shop", "client"), ("office", "client"), ("shop", "plain")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Clients in two namespaces, two versions of a service, and a pod that opted out."""
    if line := build.missing():
        pytest.skip(line)
    with mesh(tmp_path_factory.mktemp("mesh")) as made:
        for namespace in ("shop", "office"):
            made.namespace(namespace)
        made.deploy("shop", "plain", labels={"xds-gateway.dev/inject": "disabled"})
        made.deploy("shop", "client", "orders", "next")
        made.deploy("office", "client")
        yield made


@pytest.fixture
def routed(running: Mesh) -> Iterator[Mesh]:
    """The mesh, without the routes of the test afterwards."""
    yield running
    for namespace in ("shop", "office"):
        for kind in ("httproutes", "grpcroutes", "tcproutes"):
            path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/{kind}"
            running.objects.request("DELETE", path)
        running.objects.request(
            "DELETE", f"/apis/xds-gateway.dev/v1alpha1/namespaces/{namespace}/meshpolicies"
        )


def _route(
    namespace: str, rules: str, parent: str = "name: orders, namespace: shop", kind: str = "HTTPRoute"
) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: orders, namespace: {namespace}}}
spec:
  parentRefs: [{{group: "", kind: Service, {parent}}}]
  rules: {rules}
"""


def _conditions(mesh: Mesh, namespace: str, kind: str = "httproutes") -> dict[str, tuple[str, str]]:
    path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/{kind}/orders"
    parents = (mesh.objects.request("GET", path).get("status") or {}).get("parents") or [{"conditions": []}]
    return {one["type"]: (one["status"], one["reason"]) for one in parents[0]["conditions"]}


def test_a_pod_gets_a_sidecar_unless_it_opts_out(running: Mesh) -> None:
    with_sidecar, without = running.pod(*SHOP), running.pod(*PLAIN)
    assert with_sidecar is not None
    assert without is not None
    names = [one["name"] for one in with_sidecar["spec"]["initContainers"]]
    assert names == ["xds-redirect", "xds-sidecar"]
    assert with_sidecar["metadata"]["labels"]["xds-gateway.dev/sidecar"] == "true"
    assert "initContainers" not in without["spec"]


def test_a_service_without_routes_is_reached_as_without_a_mesh(running: Mesh) -> None:
    for client in (SHOP, OFFICE, PLAIN):
        running.gets(client, "http://orders.shop/", by="orders")
    running.gets(SHOP, "grpc://orders.shop:7070", by="orders")
    pod = running.pod("shop", "orders")
    assert pod is not None
    running.gets(SHOP, f"http://{pod['status']['podIP']}:8080/", by="orders")


def test_a_producer_route_is_for_the_clients_of_all_namespaces(routed: Mesh) -> None:
    next_ = "{name: next, port: 80}"
    rules = f"""[{{matches: [{{headers: [{{name: x-next, value: "1"}}]}}], backendRefs: [{next_}]}},
      {{backendRefs: [{{name: orders, port: 80}}]}}]"""
    routed.objects.apply(_route("shop", rules))
    for client in (SHOP, OFFICE):
        routed.gets(client, "http://orders.shop/", by="next", headers={"x-next": "1"})
        routed.gets(client, "http://orders.shop/", by="orders")
    assert routed.get(PLAIN, "http://orders.shop/", {"x-next": "1"}).by == "orders"
    assert _conditions(routed, "shop")["Accepted"] == ("True", "Accepted")


def test_the_address_of_the_service_decides_and_not_the_host(routed: Mesh) -> None:
    routed.objects.apply(_route("shop", "[{backendRefs: [{name: next, port: 80}]}]"))
    routed.gets(SHOP, "http://orders.shop/", by="next")
    assert routed.get(SHOP, "http://orders.shop/", {"host": "client"}).by == "next"
    assert routed.get(SHOP, "http://plain.shop/", {"host": "orders.shop"}).by == "plain"


def test_a_consumer_route_wins_in_its_own_namespace_only(routed: Mesh) -> None:
    def marked(value: str) -> str:
        change = f"{{set: [{{name: x-route, value: {value}}}]}}"
        filters = f"[{{type: ResponseHeaderModifier, responseHeaderModifier: {change}}}]"
        return f"[{{filters: {filters}, backendRefs: [{{name: orders, namespace: shop, port: 80}}]}}]"

    def route(client: tuple[str, str]) -> str | None:
        return routed.get(client, "http://orders.shop/").headers.get("X-Route")

    routed.objects.apply(_route("shop", marked("producer")))
    wait_for(lambda: (route(SHOP), route(OFFICE)) == ("producer", "producer"), "the producer route")
    routed.objects.apply(_route("office", marked("consumer")))
    wait_for(lambda: route(OFFICE) == "consumer", "the consumer route")
    assert route(SHOP) == "producer"
    assert _conditions(routed, "office")["ResolvedRefs"] == ("True", "ResolvedRefs")


def test_a_route_for_a_port_leaves_the_others_as_they_are(routed: Mesh) -> None:
    parent = "name: orders, namespace: shop, port: 80"
    routed.objects.apply(_route("shop", "[{backendRefs: [{name: next, port: 80}]}]", parent))
    routed.gets(SHOP, "http://orders.shop/", by="next")
    assert routed.get(SHOP, "http://orders.shop:8080/").by == "orders"


def test_requests_are_split_and_unmatched_ones_get_404(routed: Mesh) -> None:
    rules = """[{matches: [{path: {value: /split}}],
      backendRefs: [{name: orders, port: 80, weight: 1}, {name: next, port: 80, weight: 1}]}]"""
    routed.objects.apply(_route("shop", rules))
    routed.gets(SHOP, "http://orders.shop/other", status=404)
    text = routed.get(SHOP, "http://orders.shop/split", count=100).text
    counts = Counter(
        line.rpartition("=")[2].rsplit("-", 2)[0] for line in text.splitlines() if "Hostname=" in line
    )
    assert sum(counts.values()) == 100
    assert min(counts["orders"], counts["next"]) > 20, counts


def test_calls_and_connections_follow_their_kinds_of_routes(routed: Mesh) -> None:
    rules = "[{backendRefs: [{name: next, port: 7070}]}]"
    routed.objects.apply(_route("shop", rules, "name: orders, port: 7070", "GRPCRoute"))
    routed.gets(OFFICE, "grpc://orders.shop:7070", by="next")
    rules = "[{backendRefs: [{name: next, port: 8080}]}]"
    routed.objects.apply(_route("shop", rules, "name: orders, port: 8080", "TCPRoute"))
    routed.gets(OFFICE, "http://orders.shop:8080/", by="next")


def test_clients_of_grpc_follow_the_routes_without_a_sidecar(routed: Mesh) -> None:
    caller = ("shop", "caller")
    routed.deploy("shop", "caller", labels={"xds-gateway.dev/inject": "grpc"})
    pod = routed.pod(*caller)
    assert pod is not None
    assert "initContainers" not in pod["spec"]
    for name in ("orders:7070", "orders.shop:7070", "orders.shop.svc.cluster.local:7070"):
        routed.gets(caller, f"xds://{name}", by="orders")
    to_next = "backendRefs: [{name: next, port: 7070}]"
    of_service = "method: {service: proto.EchoTestService}"
    rules = f"""[{{matches: [{{{of_service}, headers: [{{name: x-next, value: "1"}}]}}], {to_next}}},
      {{matches: [{{method: {{service: proto.EchoTestService, method: Other}}}}], {to_next}}},
      {{matches: [{{{of_service}}}], backendRefs: [{{name: orders, port: 7070}}]}}]"""
    routed.objects.apply(_route("shop", rules, "name: orders, port: 7070", "GRPCRoute"))
    routed.gets(caller, "xds://orders.shop:7070", by="next", headers={"x-next": "1"})
    routed.gets(caller, "xds://orders.shop:7070", by="orders")
    rules = "[{backendRefs: [{name: orders, port: 7070, weight: 1}, {name: next, port: 7070, weight: 1}]}]"
    routed.objects.apply(_route("shop", rules, "name: orders, port: 7070", "GRPCRoute"))

    def split() -> bool:
        lines = routed.get(caller, "xds://orders.shop:7070", count=40).text.splitlines()
        found = Counter(one.rpartition("=")[2].rsplit("-", 2)[0] for one in lines if "Hostname=" in one)
        return found.total() == 40 and min(found["orders"], found["next"]) > 5

    wait_for(split, "calls to both")
    routed.objects.apply(
        _route("office", f"[{{{to_next}}}]", "name: next, namespace: shop, port: 7070", "GRPCRoute")
    )
    assert routed.get(caller, "xds://nobody.shop:7070").status == 0
    (before,) = routed.pods("shop", "orders")
    routed.objects.request("DELETE", "/apis/gateway.networking.k8s.io/v1/namespaces/shop/grpcroutes/orders")
    routed.objects.request("DELETE", f"/api/v1/namespaces/shop/pods/{before['metadata']['name']}")
    wait_for(lambda: _other_pod(routed, before["metadata"]["uid"]), "a new pod", 120)
    routed.gets(caller, "xds://orders.shop:7070", by="orders")


def test_a_pod_reaches_itself_by_a_route_of_its_service(routed: Mesh) -> None:
    routed.objects.apply(_route("shop", "[{backendRefs: [{name: client, port: 80}]}]", "name: client"))
    routed.gets(SHOP, "http://client.shop/", by="client")


def test_a_route_without_a_service_says_so(routed: Mesh) -> None:
    routed.objects.apply(_route("shop", "[{backendRefs: [{name: next, port: 80}]}]", "name: missing"))
    expected = ("False", "NoMatchingParent")
    wait_for(lambda: _conditions(routed, "shop").get("Accepted") == expected, "the condition")


def _policy(spec: str) -> str:
    return f"""
apiVersion: xds-gateway.dev/v1alpha1
kind: MeshPolicy
metadata: {{name: orders, namespace: shop}}
spec: {spec}
"""


def _encrypted(mesh: Mesh) -> int:
    """Return the bytes that the sidecar of orders has got from other sidecars."""
    name = "tcp.inbound-mesh.downstream_cx_rx_bytes_total"
    text = mesh.get(("shop", "orders"), f"http://127.0.0.1:15000/stats?filter={name}").text
    return int(text.rpartition(f"{name}: ")[2].split()[0])


def test_sidecars_speak_mutual_tls_with_each_other(routed: Mesh) -> None:
    def more(client: tuple[str, str]) -> bool:
        before = _encrypted(routed)
        return routed.get(client, "http://orders.shop/").by == "orders" and _encrypted(routed) > before

    wait_for(lambda: more(OFFICE), "a request with TLS to a Service without routes")
    routed.objects.apply(_route("shop", "[{backendRefs: [{name: orders, port: 80}]}]"))
    wait_for(lambda: more(SHOP), "a request with TLS by a route")
    assert not more(PLAIN)


def test_clients_of_a_headless_service_speak_mutual_tls_with_its_pods(routed: Mesh) -> None:
    def get() -> str:
        pod = routed.pod("shop", "orders")
        return routed.get(SHOP, f"http://{pod['status']['podIP']}:8080/").by if pod is not None else ""

    headless = """
apiVersion: v1
kind: Service
metadata: {name: pods, namespace: shop}
spec: {clusterIP: None, selector: {app: orders}, ports: [{port: 8080}]}
"""
    routed.objects.apply(headless)
    try:
        routed.objects.apply(_policy("{mtls: strict, serviceAccounts: [orders]}"))
        wait_for(lambda: routed.get(PLAIN, "http://orders.shop/").status == 0, "the policy")
        wait_for(lambda: get() == "orders", "a connection to the address of a pod")
        before = _encrypted(routed)
        assert get() == "orders"
        assert _encrypted(routed) > before
        (pod,) = routed.pods("shop", "orders")
        routed.objects.request("DELETE", f"/api/v1/namespaces/shop/pods/{pod['metadata']['name']}")
        wait_for(lambda: _other_pod(routed, pod["metadata"]["uid"]), "a new pod", 120)
        wait_for(lambda: get() == "orders", "a connection to the new pod")
    finally:
        routed.objects.request("DELETE", "/api/v1/namespaces/shop/services/pods")


def _other_pod(mesh: Mesh, uid: str) -> bool:
    pod = mesh.pod("shop", "orders")
    return pod is not None and pod["metadata"]["uid"] != uid


def test_a_strict_policy_rejects_whoever_has_no_certificate(routed: Mesh) -> None:
    routed.gets(PLAIN, "http://orders.shop/", by="orders")
    routed.objects.apply(_policy("{mtls: strict, serviceAccounts: [orders]}"))
    wait_for(lambda: routed.get(PLAIN, "http://orders.shop/").status == 0, "the plain client to be rejected")
    assert routed.get(OFFICE, "http://orders.shop/").by == "orders"
    assert routed.get(PLAIN, "http://next.shop/").by == "next"
    (pod,) = routed.pods("shop", "orders")
    routed.objects.request("DELETE", f"/api/v1/namespaces/shop/pods/{pod['metadata']['name']}")
    wait_for(
        lambda: _other_pod(routed, pod["metadata"]["uid"]), "a new pod, whose probes need no certificate", 120
    )
    routed.gets(SHOP, "http://orders.shop/", by="orders")


def test_a_policy_allows_clients_by_their_service_account(routed: Mesh) -> None:
    routed.objects.apply(
        _policy("{serviceAccounts: [orders], allow: [{namespace: office, serviceAccount: client}]}")
    )
    wait_for(lambda: routed.get(SHOP, "http://orders.shop/").status == 0, "the other client to be rejected")
    assert routed.get(PLAIN, "http://orders.shop/").status == 0
    assert routed.get(OFFICE, "http://orders.shop/").by == "orders"
    routed.objects.apply(_policy("{serviceAccounts: [orders], allow: [{serviceAccount: client}]}"))
    routed.gets(SHOP, "http://orders.shop/", by="orders")
    wait_for(
        lambda: routed.get(OFFICE, "http://orders.shop/").status == 0, "the client of the other namespace"
    )


def _status(mesh: Mesh, client: tuple[str, str], path: str, method: str = "GET") -> int:
    return mesh.get(client, f"http://orders.shop{path}", method=method).status


def test_rules_decide_by_client_method_and_path(routed: Mesh) -> None:
    rules = """{serviceAccounts: [orders], allow: [
      {namespace: office, ports: [8080], methods: [GET], paths: [/open/*]},
      {serviceAccount: client, ports: [8080, 7070]},
      {anonymous: true, ports: [8080], paths: [/health]}]}"""
    routed.objects.apply(_policy(rules))
    wait_for(lambda: _status(routed, OFFICE, "/other") == 403, "a request without a right")
    assert _status(routed, OFFICE, "/open/a") == 200
    assert _status(routed, OFFICE, "/open/a", "POST") == 403
    assert _status(routed, SHOP, "/other", "POST") == 200
    assert [_status(routed, PLAIN, path) for path in ("/health", "/open/a")] == [200, 403]
    assert routed.get(SHOP, "grpc://orders.shop:7070").by == "orders"
    assert routed.get(OFFICE, "grpc://orders.shop:7070").status == 0
    assert routed.get(PLAIN, "grpc://orders.shop:7070").status == 0
    assert _status(routed, PLAIN, ":9090/") == 0
    routed.objects.apply(_route("shop", "[{backendRefs: [{name: orders, port: 80}]}]"))
    wait_for(lambda: _conditions(routed, "shop").get("Accepted") == ("True", "Accepted"), "the route")
    assert [_status(routed, OFFICE, path) for path in ("/open/a", "/other")] == [200, 403]


def test_what_is_denied_has_no_other_spelling(routed: Mesh) -> None:
    routed.objects.apply(_policy("{deny: [{ports: [8080], paths: [/admin/*]}, {ports: [9090]}]}"))
    wait_for(lambda: _status(routed, PLAIN, "/admin") == 403, "a request to be denied")
    for client in (SHOP, PLAIN):
        found = [
            _status(routed, client, path)
            for path in (
                "/admin/x",
                "//admin",
                "/x/../admin",
                "/%61dmin/",
                "/x/%2e%2e/admin",
                "/x%2F../admin",
            )
        ]
        assert found == [403, 403, 403, 403, 403, 400], client
        assert [_status(routed, client, path) for path in ("/", "/administrators")] == [200, 200]
        assert _status(routed, client, ":9090/") == 0


def test_calls_are_allowed_by_their_method(routed: Mesh) -> None:
    rule = "{ports: [7070], paths: [/proto.EchoTestService/*]}"
    routed.objects.apply(_policy(f"{{allow: [{rule}, {{ports: [8080]}}]}}"))
    wait_for(lambda: routed.get(PLAIN, "http://orders.shop/").status == 0, "the policy")
    assert routed.get(SHOP, "grpc://orders.shop:7070").by == "orders"
    other = rule.replace("Service/*", "Service/Other")
    routed.objects.apply(_policy(f"{{allow: [{other}, {{ports: [8080]}}]}}"))
    wait_for(lambda: routed.get(SHOP, "grpc://orders.shop:7070").status == 0, "the call to be denied")
    assert routed.get(SHOP, "http://orders.shop/").status == 200


def test_connections_of_some_clients_are_denied(routed: Mesh) -> None:
    routed.objects.apply(_policy("{serviceAccounts: [orders], deny: [{namespace: office}]}"))
    wait_for(lambda: routed.get(OFFICE, "http://orders.shop/").status == 0, "the client to be denied")
    for client in (SHOP, PLAIN):
        assert routed.get(client, "http://orders.shop/").by == "orders"
    assert routed.get(OFFICE, "http://next.shop/").by == "next"


def _policy_state(mesh: Mesh) -> tuple[str, str, str]:
    path = "/apis/xds-gateway.dev/v1alpha1/namespaces/shop/meshpolicies/orders"
    ancestors = (mesh.objects.request("GET", path).get("status") or {}).get("ancestors") or []
    found = [
        (one["status"], one["reason"], one["message"]) for each in ancestors for one in each["conditions"]
    ]
    return found[0] if found else ("", "", "")


def test_the_status_of_a_policy_says_what_it_does(routed: Mesh) -> None:
    routed.objects.apply(_policy("{serviceAccounts: [orders], allow: [{serviceAccount: client}]}"))
    wait_for(lambda: _policy_state(routed)[:2] == ("True", "Accepted"), "the status")
    routed.objects.apply(_policy("{serviceAccounts: [orders], allow: [{ports: [8080], paths: [orders]}]}"))
    wait_for(lambda: _policy_state(routed)[:2] == ("False", "Invalid"), "the status of a mistake")
    assert "spec.allow[0].paths[0]: not a path" in _policy_state(routed)[2]
    wait_for(lambda: routed.get(SHOP, "http://orders.shop/").status == 0, "the pods to be closed")
    assert routed.get(SHOP, "http://next.shop/").by == "next"


def _forged(mesh: Mesh, *endpoints: tuple[str, str]) -> None:
    """Make a Service whose endpoints have the address of one application each, and say that they are a pod of another."""

    def pod(name: str) -> dict[str, Any]:
        found = mesh.pod("shop", name)
        assert found is not None
        return found

    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "forged", "namespace": "shop"},
        "spec": {"ports": [{"port": 80}]},
    }
    values = [
        {
            "addresses": [pod(address)["status"]["podIP"]],
            "targetRef": {"kind": "Pod", **{key: pod(named)["metadata"][key] for key in ("name", "uid")}},
        }
        for address, named in endpoints
    ]
    labels = {"kubernetes.io/service-name": "forged"}
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "forged", "namespace": "shop", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": values,
    }
    mesh.objects.apply([service, slice_])


def test_a_sidecar_rejects_a_server_with_the_account_of_another_pod(routed: Mesh) -> None:
    _forged(routed, ("orders", "orders"), ("next", "next"))
    for name in ("orders", "next"):
        routed.gets(SHOP, "http://forged.shop/", by=name)
    _forged(routed, ("next", "orders"))
    wait_for(lambda: routed.get(SHOP, "http://forged.shop/").status == 0, "the other account to be rejected")
    assert routed.get(PLAIN, "http://next.shop/").by == "next"


GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: mesh}
spec: {controllerName: example.com/mesh}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: shop}
spec: {gatewayClassName: mesh, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: orders, port: 80}]}]}
"""


def test_a_gateway_reaches_pods_that_accept_its_account_only(routed: Mesh) -> None:
    path = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/web"

    def by() -> str:
        found = routed.objects.request("GET", path).get("status", {}).get("addresses") or []
        url = f"http://{found[0]['value']}:8080/" if found else ""
        return routed.fetch(url).partition("Hostname=")[2].rsplit("-", 2)[0] if url else ""

    routed.objects.apply(_policy("{serviceAccounts: [orders], allow: [{serviceAccount: web-mesh}]}"))
    routed.objects.apply(GATEWAY)
    try:
        wait_for(lambda: by() == "orders", "a response through the Gateway", 120)
        assert routed.get(SHOP, "http://orders.shop/").status == 0
        routed.objects.apply(_policy("{serviceAccounts: [orders], allow: [{serviceAccount: client}]}"))
        wait_for(lambda: by() == "", "the Gateway to be rejected")
    finally:
        routed.objects.request("DELETE", path)


class Requests:
    """Requests from a client without a pause, each by a connection of its own. `lost` has those that failed."""

    def __init__(self, mesh: Mesh, client: tuple[str, str], url: str) -> None:
        self.count, self.lost = 0, list[str]()
        self._mesh, self._client, self._url = mesh, client, url
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            found = self._mesh.get(self._client, self._url)
            self.count += 1
            if found.status != 200:
                self.lost.append(found.text)


def _all_pods(mesh: Mesh, name: str) -> dict[str, dict[str, Any]]:
    """Return the pods of an application by their UID, also those that end."""
    path = "/api/v1/namespaces/shop/pods"
    found = mesh.objects.request("GET", path, labelSelector=f"app={name}")["items"]
    return {one["metadata"]["uid"]: one for one in found}


def _addresses(mesh: Mesh, name: str) -> set[str]:
    path = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
    found = mesh.objects.request("GET", path, labelSelector=f"kubernetes.io/service-name={name}")["items"]
    return {address for one in found for each in one["endpoints"] or [] for address in each["addresses"]}


def test_no_request_is_lost_when_a_pod_ends(routed: Mesh) -> None:
    """The application serves until its endpoint is withdrawn and longer, while clients send requests."""
    routed.deploy("shop", "ending", annotations={"xds-gateway.dev/drain-seconds": "15"})
    deployment = "/apis/apps/v1/namespaces/shop/deployments/ending"
    routed.objects.request("PATCH", deployment, {"spec": {"replicas": 2}})
    wait_for(lambda: len(_addresses(routed, "ending")) == 2, "two endpoints", 120)
    wait_for(lambda: all(map(is_ready, _all_pods(routed, "ending").values())), "two pods", 120)
    url = "http://ending.shop/"
    rules = "[{backendRefs: [{name: ending, namespace: shop, port: 80}]}]"
    routed.objects.apply(_route("office", rules, "name: ending, namespace: shop"))
    wait_for(lambda: _conditions(routed, "office").get("Accepted") == ("True", "Accepted"), "the route")
    uid, pod = next(iter(_all_pods(routed, "ending").items()))
    address = pod["status"]["podIP"]
    try:
        with ExitStack() as stack:
            every = [
                stack.enter_context(Requests(routed, client, url))
                for client in (SHOP, OFFICE, PLAIN)
                for _ in range(3)
            ]
            wait_for(lambda: min(one.count for one in every) > 5, "requests")
            name = pod["metadata"]["name"]
            routed.objects.request("DELETE", f"/api/v1/namespaces/shop/pods/{name}")
            wait_for(lambda: address not in _addresses(routed, "ending"), "the endpoint to be withdrawn")
            assert routed.get(SHOP, f"http://{address}:8080/").by == "ending"
            assert uid in _all_pods(routed, "ending"), "so it serves while it ends"
            wait_for(lambda: uid not in _all_pods(routed, "ending"), "the pod to end", 120)
            counts = [one.count for one in every]
            wait_for(
                lambda: all(one.count > count + 5 for one, count in zip(every, counts, strict=True)),
                "more requests",
            )
        assert [one.lost for one in every] == [[]] * len(every)
    finally:
        routed.objects.request("DELETE", deployment)


def _serials(mesh: Mesh, client: tuple[str, str], kind: str) -> set[int]:
    """Return the serial numbers of the certificates that a sidecar has: of its own (cert_chain) or its authorities (ca_cert)."""
    text = mesh.get(client, "http://127.0.0.1:15000/certs").text
    body = "\n".join(line.partition("body] ")[2] for line in text.splitlines())
    found = json.loads(body[body.index("{") :])["certificates"]
    return {int(one["serial_number"], 16) for each in found for one in each.get(kind, [])}


def test_new_certificates_and_authorities_reach_sidecars_without_a_lost_request(routed: Mesh) -> None:
    """A controller that starts signs new certificates, and the second one has an authority to announce."""
    pods = [SHOP, ("shop", "orders")]
    routed.objects.apply(_policy("{mtls: strict, serviceAccounts: [orders]}"))
    wait_for(lambda: routed.get(PLAIN, "http://orders.shop/").status == 0, "the policy")
    path = "/api/v1/namespaces/xds-system/secrets/example.com-mesh-authority"
    new = new_authority("next", datetime.now(UTC), timedelta(days=30))
    announced = {"next.crt": new.certificate, "next.key": new.private_key}
    serial = x509.load_pem_x509_certificate(new.certificate).serial_number
    with Requests(routed, SHOP, "http://orders.shop/") as requests:
        for data in ({}, announced):
            own = [_serials(routed, pod, "cert_chain") for pod in pods]
            encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
            routed.objects.request("PATCH", path, {"data": encoded})
            routed.controller.stop(signal.SIGKILL)
            routed.controller.start()
            for pod, before in zip(pods, own, strict=True):
                wait_for(
                    lambda pod=pod, before=before: _serials(routed, pod, "cert_chain") - before,
                    "a certificate of the controller that runs now",
                )
        for pod in pods:
            wait_for(lambda pod=pod: serial in _serials(routed, pod, "ca_cert"), "the new authority")
        count = requests.count
        wait_for(lambda: requests.count > count + 20, "more requests")
    assert requests.lost == []
    assert routed.get(PLAIN, "http://orders.shop/").status == 0


def test_the_two_ports_of_a_sidecar_cannot_be_reached_directly(running: Mesh) -> None:
    pod = running.pod("shop", "orders")
    assert pod is not None
    for port in (15001, 15006):
        assert running.get(SHOP, f"http://{pod['status']['podIP']}:{port}/").status == 0
        assert running.get(SHOP, f"http://127.0.0.1:{port}/").status == 0


def test_requests_go_on_while_the_controller_is_down(routed: Mesh) -> None:
    routed.objects.apply(_route("shop", "[{backendRefs: [{name: next, port: 80}]}]"))
    routed.gets(SHOP, "http://orders.shop/", by="next")
    routed.controller.stop(signal.SIGKILL)
    assert all(routed.get(SHOP, "http://orders.shop/").by == "next" for _ in range(5))
    template = {
        "metadata": {"labels": {"app": "late"}},
        "spec": {"containers": [{"name": "a", "image": "b"}]},
    }
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"]["name"] = "late"
    with pytest.raises(httpx.HTTPStatusError, match=r"inject\.xds-gateway\.dev"):
        routed.objects.request("POST", "/api/v1/namespaces/shop/pods", pod)
    routed.controller.start()
    routed.objects.apply(_route("shop", "[{backendRefs: [{name: orders, port: 80}]}]"))
    routed.gets(SHOP, "http://orders.shop/", by="orders")


def test_a_pod_that_cannot_have_a_sidecar_is_rejected_with_the_reason(running: Mesh) -> None:
    container = {"name": "a", "image": "b", "securityContext": {"runAsUser": 1337}}
    pod = {"metadata": {"name": "same-user"}, "spec": {"containers": [container]}}
    with pytest.raises(httpx.HTTPStatusError, match="runs as the user 1337"):
        running.objects.request("POST", "/api/v1/namespaces/shop/pods", pod)
