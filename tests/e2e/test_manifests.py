"""`xds run` on a folder of Kubernetes manifests: the real Envoy does what the Gateway API says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.folder import filled, write
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for

MANIFESTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: infra}
spec:
  gatewayClassName: xds
  listeners:
    - {name: http, port: $port, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
    - {name: narrow, port: $port, protocol: HTTP, hostname: narrow.example.org, allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: v1
kind: Service
metadata: {name: users, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: users-1, namespace: shop, labels: {kubernetes.io/service-name: users}}
addressType: IPv4
ports: [{port: $echo_port, name: ""}]
endpoints: [{addresses: ["127.0.0.1"]}]
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: empty-1, namespace: shop, labels: {kubernetes.io/service-name: empty}}
addressType: IPv4
ports: [{port: 80, name: ""}]
endpoints: []
"""
ROUTES = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: users, namespace: shop}
spec:
  parentRefs: [{name: web, namespace: infra}]
  hostnames: [a.example.com]
  rules:
    - matches: [{path: {value: /users}, method: GET}]
      backendRefs: [{name: users, port: 80}]
    - matches: [{path: {type: Exact, value: /users}, headers: [{name: version, value: two}]}]
      filters:
        - {type: URLRewrite, urlRewrite: {hostname: two.example.com, path: {type: ReplaceFullPath, replaceFullPath: /two}}}
        - {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-rule, value: "100% $${HOME}"}]}}
      backendRefs: [{name: users, port: 80}]
    - matches: [{path: {value: /empty}}]
      backendRefs: [{name: empty, port: 80}]
    - matches: [{path: {value: /missing}}]
      backendRefs: [{name: missing, port: 80}]
    - matches: [{path: {value: /partly}}]
      backendRefs: [{name: users, port: 80}, {name: missing, port: 80}]
    - matches: [{path: {value: /old}}]
      filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]
"""
PRECEDENCE = "".join(
    f"""---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: shop, creationTimestamp: "2026-01-0{day}T00:00:00Z"}}
spec:
  parentRefs: [{{name: web, namespace: infra, sectionName: narrow}}]
  hostnames: {hostnames}
  rules:
    - matches: [{{path: {{value: {path}}}}}]
      filters: [{{type: RequestRedirect, requestRedirect: {{hostname: {name}.example.com}}}}]
"""
    for day, name, hostnames, path in (
        (1, "every", "[]", "/"),
        (2, "wide", "['*.org']", "/a"),
        (3, "wildcard", "['*.example.org']", "/a/b"),
        (4, "exact", "[narrow.example.org]", "/a/b/c"),
        (5, "late", "['*.example.org']", "/"),
    )
)


class Manifests(Running):
    def __init__(self, root: Path, backend: Backend) -> None:
        self.folder, self.port = root / "k8s", free_port()
        manifests = filled(MANIFESTS, port=self.port, echo_port=backend.port)
        write(self.folder, gateway=manifests, routes=filled(ROUTES), precedence=PRECEDENCE)
        super().__init__(self.folder, root)

    def get(
        self, path: str, method: str = "GET", host: str = "a.example.com", **headers: str
    ) -> httpx.Response:
        return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", headers={"host": host, **headers})


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Manifests]:
    with Manifests(tmp_path_factory.mktemp("manifests"), backend) as running:
        running.says("ready http")
        yield running


def test_matches(gateway: Manifests) -> None:
    assert gateway.get("/users/1").json()["path"] == "/users/1"
    assert gateway.get("/usersx").status_code == 404
    assert gateway.get("/users", "POST").status_code == 404
    assert gateway.get("/users", host="b.example.com").status_code == 404
    two = gateway.get("/users", version="two").json()
    assert (two["path"], two["headers"]["host"], two["headers"]["x-rule"]) == (
        "/two",
        "two.example.com",
        "100% ${HOME}",
    )


def test_backends(gateway: Manifests) -> None:
    assert gateway.get("/empty").status_code == 503
    assert gateway.get("/missing").status_code == 500
    statuses = Counter(gateway.get("/partly").status_code for _ in range(100))
    assert statuses.keys() == {200, 500}
    assert 20 < statuses[200] < 80


def test_a_redirect(gateway: Manifests) -> None:
    response = gateway.get("/old/x?y=1")
    assert response.status_code == 301
    assert httpx.URL(response.headers["location"]).raw_path == b"/new/x?y=1"


def test_a_mistake_changes_nothing_and_a_correction_does(gateway: Manifests) -> None:
    end = len(gateway.log)
    write(gateway.folder, routes=filled(ROUTES).replace("backendRefs", "backendRef", 1))
    gateway.says("did you mean 'backendRefs'?", end)
    assert gateway.get("/users/1").status_code == 200
    write(gateway.folder, routes=filled(ROUTES).replace("value: /users}, method", "value: /people}, method"))
    wait_for(lambda: gateway.get("/people/1").status_code == 200, "the new path")
    assert gateway.get("/users/1").status_code == 404
    write(gateway.folder, routes=filled(ROUTES))
    wait_for(lambda: gateway.get("/users/1").status_code == 200, "the old path")


POLICIES = """
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: infra}
stringData: {alice: key-of-alice}
---
apiVersion: xds-gateway.dev/v1alpha1
kind: Plan
metadata: {name: small, namespace: infra}
spec: {rate_limit: 2/hour}
---
apiVersion: xds-gateway.dev/v1alpha1
kind: Consumer
metadata: {name: alice, namespace: infra}
spec: {plan: small, api_keys: [{secretKeyRef: {name: keys, key: alice}}]}
---
apiVersion: xds-gateway.dev/v1alpha1
kind: GatewayPolicy
metadata: {name: users, namespace: shop}
spec:
  targetRefs: [{kind: HTTPRoute, name: users, sectionName: reading}]
  policies: {api_key: true}
---
apiVersion: xds-gateway.dev/v1alpha1
kind: GatewayPolicy
metadata: {name: closed, namespace: shop}
spec:
  targetRefs: [{kind: HTTPRoute, name: users, sectionName: partly}]
  policies: {authorize: {consumers: [infra/bob]}}
"""


def test_policies(gateway: Manifests) -> None:
    named = filled(ROUTES).replace(
        "- matches: [{path: {value: /users}, m", "- name: reading\n      matches: [{path: {value: /users}, m"
    )
    named = named.replace(
        "- matches: [{path: {value: /partly", "- name: partly\n      matches: [{path: {value: /partly"
    )
    write(gateway.folder, routes=named, policies=filled(POLICIES))
    wait_for(lambda: gateway.get("/users/1").status_code == 401, "the policy")
    statuses = [gateway.get("/users/1", **{"x-api-key": "key-of-alice"}).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert gateway.get("/empty").status_code == 503
    assert {gateway.get("/partly").status_code for _ in range(20)} == {500}
    assert (
        "Accepted is False: Invalid: requests of its targets get 500: there is no Consumer infra/bob"
        in gateway.log
    )
    (gateway.folder / "policies.yaml").unlink()
    wait_for(lambda: gateway.get("/users/1").status_code == 200, "the route without a policy")


@pytest.mark.parametrize(
    ("path", "route"), [("/a/b/c", "exact"), ("/a/b", "wildcard"), ("/a", "late"), ("/", "late")]
)
def test_the_hostnames_of_routes_decide_on_a_narrower_listener(
    gateway: Manifests, path: str, route: str
) -> None:
    assert (
        gateway.get(path, host="narrow.example.org").headers["location"]
        == f"http://{route}.example.com:{gateway.port}{path}"
    )
    assert gateway.get(path, host="other.example.org").status_code == 404
