"""What a route does, and why a part of it has no effect."""

from __future__ import annotations

from xds_server.gateway_api.effects import Effects, effects, known
from xds_server.gateway_api.manifests import Manifests
from xds_server.gateway_api.translation import translate

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: shop}
spec:
  gatewayClassName: xds
  listeners:
    - {name: a, port: 80, protocol: HTTP, hostname: a.test}
    - {name: b, port: 80, protocol: HTTP, hostname: b.test}
---
apiVersion: v1
kind: Service
metadata: {name: users, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: old, namespace: shop, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  parentRefs: [{name: web}]
  hostnames: [a.test]
  rules: [{matches: [{path: {value: /users}, method: GET}]}]
"""
ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: new, namespace: shop, creationTimestamp: "2026-02-01T00:00:00Z"}
spec: SPEC
"""
SLICE = """
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: users-1, namespace: shop, labels: {kubernetes.io/service-name: users}}
addressType: IPv4
ports: [{port: 8080, name: ""}]
endpoints: ENDPOINTS
"""


def of(spec: str, more: str = "", name: str = "new") -> Effects | None:
    text = GATEWAY + ROUTE.replace("SPEC", spec) + more
    cluster, problems = Manifests().read({"a.yaml": text.encode()})
    assert not problems
    return effects("HTTPRoute", ("shop", name), translate(cluster, of_every_class=True), cluster)


def test_a_condition_that_an_older_route_has_is_told_with_its_name() -> None:
    found = of("{parentRefs: [{name: web}], rules: [{matches: [{path: {value: /users}, method: GET}]}]}")
    assert found is not None
    assert not found.complete
    assert {(one.listener, one.taken_by) for one in found.matches} == {
        ("a", "HTTPRoute shop/old"),
        ("b", ""),
    }
    assert {one.condition for one in found.matches} == {"GET /users/*"}


def test_a_route_without_a_parent_has_no_effect() -> None:
    found = of("{parentRefs: [{name: other}]}")
    assert found is not None
    assert not found.parents
    assert not found.complete


def test_endpoints_are_counted() -> None:
    spec = "{parentRefs: [{name: web}], rules: [{backendRefs: [{name: users, port: 80}]}]}"
    counts = {"[{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}]": 2, "[]": 0}
    for endpoints, count in counts.items():
        found = of(spec, SLICE.replace("ENDPOINTS", endpoints))
        assert found is not None
        assert [one.endpoints for one in found.backends] == [count]
        assert found.complete == bool(count)
    found = of(spec)
    assert found is not None
    assert [one.endpoints for one in found.backends] == [None]


def test_a_route_that_does_not_exist_is_none() -> None:
    assert of("{}", name="nothing") is None
    cluster, _ = Manifests().read({"a.yaml": GATEWAY.encode()})
    assert list(known(cluster)) == ["HTTPRoute/shop/old"]
