"""What one Gateway is served if the language rejects a part of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from tests.support.certificates import authority
from tests.support.cluster_objects import cluster_of
from xds_server.controller.served import ServedGateway
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.gateway_files import GatewayFiles
from xds_server.gateway_api.mesh import mesh_key, with_mesh
from xds_server.gateway_api.mesh_tls import MeshTrust
from xds_server.gateway_api.translation import translate
from xds_server.translate import names

MANIFESTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: shop}
spec:
  gatewayClassName: xds
  listeners:
    - {name: http, port: 8080, protocol: HTTP}
    - {name: tcp, port: 9000, protocol: TCP}
    - {name: other, port: 9001, protocol: TCP}
---
apiVersion: v1
kind: Service
metadata: {name: users, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: users, namespace: shop}
spec: {parentRefs: [{name: web, sectionName: http}], rules: [{backendRefs: [{name: users, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: raw, namespace: shop}
spec: {parentRefs: [{name: web, sectionName: tcp}], rules: [{backendRefs: [{name: users, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: good, namespace: shop}
spec: {parentRefs: [{name: web, sectionName: other}], rules: [{backendRefs: [{name: users, port: 80}]}]}
"""
KEY = ("shop", "web")


@pytest.fixture
def cluster() -> Cluster:
    return cluster_of(MANIFESTS)


def changed(files: GatewayFiles, kind: str, section: str, **wrong: Any) -> GatewayFiles:
    """Return the files with wrong values in the routes of an object, as if the language did not take them."""
    name = f"{kind}.yaml"
    routes = {key: {**value, **wrong} for key, value in files.files[name][section].items()}
    return replace(files, files={**files.files, name: {section: routes}})


@pytest.mark.parametrize(
    ("kind", "section", "wrong", "said"),
    [
        ("HTTPRoute/shop/users", "routes", {"timeout": "soon"}, "duration"),
        ("TCPRoute/shop/raw", "stream_routes", {"split": {"x": -1}}, "one of upstream and split"),
    ],
)
def test_a_rejected_route_fails_alone(
    cluster: Cluster, kind: str, section: str, wrong: dict[str, Any], said: str
) -> None:
    files = translate(cluster, of_every_class=True, live=True).gateways[KEY]
    served = ServedGateway(KEY)
    served.update(changed(files, kind, section, **wrong), cluster)
    assert served.fault == ""
    object_kind, *key = kind.split("/")
    assert served.rejected.keys() == {(object_kind, tuple(key))}
    assert said in served.rejected[object_kind, (key[0], key[1])]
    assert served.snapshot is not None
    assert len(served.snapshot[LISTENER]) == 3
    assert "shop.users.80" in served.snapshot[ENDPOINT]


def test_a_gateway_that_cannot_be_served_keeps_what_it_has(cluster: Cluster) -> None:
    files = translate(cluster, of_every_class=True, live=True).gateways[KEY]
    served = ServedGateway(KEY)
    served.update(files, cluster)
    before = served.snapshot
    listeners = {name: {**one, "port": -1} for name, one in files.files["gateway.yaml"]["listeners"].items()}
    served.update(replace(files, files={**files.files, "gateway.yaml": {"listeners": listeners}}), cluster)
    assert "port" in served.fault
    assert before is not None
    assert served.snapshot is not None
    assert served.snapshot[LISTENER] == before[LISTENER]


def test_a_condition_that_cannot_be_expressed_takes_only_its_route_away(cluster: Cluster) -> None:
    files = translate(cluster, of_every_class=True, live=True).gateways[KEY]
    served = ServedGateway(KEY)
    bad = changed(files, "HTTPRoute/shop/users", "routes", headers={"x": {"regex": "(("}})
    served.update(bad, cluster)
    assert served.fault == ""
    assert "RE2 rejects this" in served.rejected["HTTPRoute", ("shop", "users")]
    assert served.snapshot is not None
    assert len(served.snapshot[LISTENER]) == 3
    served.update(files, cluster)
    assert served.rejected == {}


def test_faulty_files_of_a_config_map_hold_nothing_else_up(cluster: Cluster) -> None:
    files = translate(cluster, of_every_class=True, live=True).gateways[KEY]
    good = replace(files, texts={"more.yaml": b"routes: {more: {path: /more, respond: {status: 204}}}"})
    served = ServedGateway(KEY)
    served.update(good, cluster)
    bad = replace(files, texts={"more.yaml": b"routes: {more: {path: /more, respnd: {status: 204}}}"})
    protected = changed(
        bad, "HTTPRoute/shop/users", "routes", policies={"ip_access": {"deny": ["0.0.0.0/0"]}}
    )
    before = served.snapshot
    served.update(protected, cluster)
    assert "respnd" in served.fault
    assert before is not None
    assert served.snapshot is not None
    assert served.snapshot[ROUTE] != before[ROUTE]
    shown = str([one.body for one in served.snapshot[ROUTE].values()])
    assert "/more" in shown


MESH = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {xds-gateway.dev/inject: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: users, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
"""


def _pod(name: str, account: str) -> str:
    metadata = f"{{name: {name}, namespace: shop, uid: {name}, labels: {{xds-gateway.dev/sidecar: 'true'}}}}"
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {metadata}
spec: {{serviceAccountName: {account}}}
status: {{podIPs: [{{ip: 10.0.0.1}}, {{ip: 10.0.0.2}}]}}
"""


def _slice(ready: dict[str, bool]) -> str:
    endpoints = [
        f"{{addresses: [10.0.0.{number}], conditions: {{ready: {str(one).lower()}}}, "
        f"targetRef: {{kind: Pod, name: {pod}, uid: {pod}}}}}"
        for number, (pod, one) in enumerate(ready.items(), 1)
    ]
    return f"""
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: users-a, namespace: shop, labels: {{kubernetes.io/service-name: users}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{", ".join(endpoints)}]
"""


def test_an_address_that_a_pod_does_not_have_says_nothing_of_its_account() -> None:
    claim = _slice({"mine": True}).replace("10.0.0.1", "10.0.0.9")
    cluster = cluster_of(MESH + _pod("mine", "mine") + claim)
    assert cluster.accounts_by_address(cluster.slices(("shop", "users"))) == {}


def test_the_accounts_of_pods_are_accepted_before_they_are_ready_and_change_no_cluster() -> None:
    def accepted(*accounts: str, **ready: bool) -> set[str]:
        pods = "".join(_pod(pod, account) for pod, account in zip(ready, accounts, strict=True))
        served.move({("shop", "users")}, cluster_of(MESH + pods + _slice(ready)))
        assert served.snapshot is not None
        assert served.snapshot[CLUSTER] == clusters
        body = served.snapshot[SECRET][names.upstream_ca("shop.users.80.tcp")].body
        context = secret_pb2.Secret.FromString(body).validation_context
        assert context.trusted_ca.inline_bytes == trust.bundle
        return {one.matcher.exact for one in context.match_typed_subject_alt_names}

    certificate, key = authority().issue("a.example.com")
    trust = MeshTrust(domain="example.com", bundle=authority().pem, certificate=certificate, private_key=key)
    cluster = cluster_of(MESH)
    translation = with_mesh(translate(cluster, live=True), cluster, live=True, trust=trust)
    served = ServedGateway(mesh_key("shop"))
    served.update(translation.meshes[mesh_key("shop")], cluster)
    assert served.snapshot is not None
    clusters = served.snapshot[CLUSTER]
    old, new = "spiffe://example.com/ns/shop/sa/old", "spiffe://example.com/ns/shop/sa/new"
    assert accepted() == set()
    assert accepted("old", a=True) == {old}
    assert accepted("old", "new", a=True, b=False) == {old, new}
    assert accepted("old", "new", a=True, b=True) == {old, new}
    assert accepted("new", b=True) == {new}


@pytest.mark.parametrize("value", ["\uffff", "\x80", "\u2028", "\ufeff"])
def test_an_odd_character_of_one_route_holds_nothing_up(cluster: Cluster, value: str) -> None:
    files = translate(cluster, of_every_class=True, live=True).gateways[KEY]
    served = ServedGateway(KEY)
    served.update(changed(files, "HTTPRoute/shop/users", "routes", headers={"x": value}), cluster)
    assert served.fault == ""
    assert served.snapshot is not None


def test_routes_to_an_upstream_that_is_rejected_fail_alone(cluster: Cluster) -> None:
    files = translate(cluster, of_every_class=True, live=True).gateways[KEY]
    upstreams = {
        name: {**one, "connect_timeout": "soon"}
        for name, one in files.files["upstreams.yaml"]["upstreams"].items()
    }
    served = ServedGateway(KEY)
    served.update(replace(files, files={**files.files, "upstreams.yaml": {"upstreams": upstreams}}), cluster)
    assert served.fault == ""
    assert served.rejected.keys() == {
        ("HTTPRoute", ("shop", "users")),
        ("TCPRoute", ("shop", "raw")),
        ("TCPRoute", ("shop", "good")),
    }
    assert served.snapshot is not None
    assert len(served.snapshot[LISTENER]) == 3
