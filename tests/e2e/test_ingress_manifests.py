"""`xds run` on a folder of Ingresses: the real Envoy does what the specification of Ingress and the annotations say."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.certificates import authority
from tests.support.folder import filled, write
from tests.support.ports import free_port
from tests.support.running import Running
from xds_server.gateway_api.ingress_certificates import chain_of

CLUSTER = """
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: xds
  annotations:
    ingressclass.kubernetes.io/is-default-class: "true"
    xds-gateway.dev/http-port: "$port"
    xds-gateway.dev/https-port: "$tls_port"
spec: {controller: xds-gateway.dev/controller}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: echo-1, labels: {kubernetes.io/service-name: echo}}
addressType: IPv4
ports: [{port: $echo_port, name: http}]
endpoints: [{addresses: ["127.0.0.1"]}]
---
apiVersion: v1
kind: Secret
metadata: {name: cert}
type: kubernetes.io/tls
data: {tls.crt: $certificate, tls.key: $key}
---
"""
BACKEND = "backend: {service: {name: echo, port: {name: http}}}"
USERS = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: users}\nstringData: {auth: 'alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g='}\n"
RULES = f"""
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: rules, creationTimestamp: "2026-01-01T00:00:00Z"}}
spec:
  tls: [{{hosts: [tls.example.com], secretName: cert}}]
  rules:
    - host: a.example.com
      http:
        paths:
          - {{path: /exact, pathType: Exact, {BACKEND}}}
          - {{path: /prefix/, pathType: Prefix, {BACKEND}}}
          - {{path: /missing, pathType: Prefix, backend: {{service: {{name: missing, port: {{number: 80}}}}}}}}
    - host: "*.example.com"
      http: {{paths: [{{path: /wild, pathType: Prefix, {BACKEND}}}]}}
    - host: tls.example.com
      http: {{paths: [{{path: /, pathType: Prefix, {BACKEND}}}]}}
"""


def annotated(name: str, host: str, path: str = "/", **annotations: str) -> str:
    """Return an Ingress with annotations of ingress-nginx."""
    lines = "".join(
        f"    nginx.ingress.kubernetes.io/{key.replace('_', '-')}: '{value}'\n"
        for key, value in annotations.items()
    )
    return (
        f"---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  annotations:\n{lines}"
        f"spec:\n  rules:\n    - host: {host}\n      http:\n        paths:\n"
        f'          - {{path: "{path}", pathType: ImplementationSpecific, {BACKEND}}}\n'
    )


ANNOTATED = "".join(
    (
        annotated("rewritten", "r.example.com", "/api(/|$)(.*)", rewrite_target="/v1/$2"),
        annotated("closed", "closed.example.com", auth_url="https://login.example.com"),
        annotated("users", "users.example.com", auth_type="basic", auth_secret="users"),
        annotated("denied", "denied.example.com", whitelist_source_range="192.0.2.0/24"),
        annotated("moved", "moved.example.com", permanent_redirect="https://new.example.com$request_uri"),
        annotated("secure", "secure.example.com", force_ssl_redirect="true"),
        annotated("big", "big.example.com", proxy_body_size="1k"),
        annotated("pages", "pages.example.com", enable_cors="true"),
        annotated("main", "canary.example.com", x_forwarded_prefix="/main"),
        annotated(
            "next", "canary.example.com", canary="true", canary_by_header="X-Canary", backend_protocol="GRPC"
        ),
        annotated("limited", "limited.example.com", limit_rpm="1", limit_burst_multiplier="2"),
    )
)


def foreign(name: str, host: str, **annotations: str) -> str:
    """Return an Ingress of another namespace, younger than that of the default one."""
    text = annotated(name, host, **annotations)
    return text.replace("metadata:\n", "metadata:\n  namespace: team\n").replace("name: http", "number: 80")


PRIVATE = annotated("private", "private.example.com").replace(
    "annotations:\n", "annotations: {kubernetes.io/ingress.allow-http: 'false'}\n"
)
ATTACKS = "".join(
    (
        PRIVATE,
        foreign("private", "private.example.com"),
        foreign("canary", "big.example.com", canary="true", canary_weight="100"),
        foreign("pattern", "big.example.com", canary="true", canary_by_header_pattern="(("),
        foreign("times", "times.example.com", proxy_connect_timeout="999999999999"),
        foreign("digits", "digits.example.com", proxy_body_size="9" * 5000),
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: echo, namespace: team}\nspec: {ports: [{port: 80}]}\n",
    )
)
CERTIFICATE = f"""---
apiVersion: v1
kind: Secret
metadata: {{name: $name}}
type: kubernetes.io/tls
data: {{tls.crt: $certificate, tls.key: $key}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: $name}}
spec:
  tls: [{{hosts: [$host], secretName: $name}}]
  rules: [{{host: $host, http: {{paths: [{{path: /, pathType: Prefix, {BACKEND}}}]}}}}]
"""


def certified(host: str, name: str) -> str:
    """Return an Ingress with a certificate for its host."""
    certificate, key = (b64encode(part).decode() for part in authority().issue(host))
    return filled(CERTIFICATE, name=name, host=host, certificate=certificate, key=key)


def neighbours() -> tuple[str, str]:
    """Return names of Secrets whose certificates share a chain of Envoy, and one that is in another chain."""
    first = chain_of(("default", "cert"))
    found = [(name, chain_of(("default", name)) == first) for name in map("cert-{}".format, range(100))]
    return next(name for name, same in found if same), next(name for name, same in found if not same)


class Ingresses(Running):
    def __init__(self, root: Path, backend: Backend) -> None:
        self.folder, self.port, self.tls_port = root / "k8s", free_port(), free_port()
        certificate, key = (b64encode(part).decode() for part in authority().issue("tls.example.com"))
        cluster = filled(
            CLUSTER,
            port=self.port,
            tls_port=self.tls_port,
            echo_port=backend.port,
            certificate=certificate,
            key=key,
        )
        same, other = neighbours()
        more = certified("two.example.com", same) + certified("three.example.com", other)
        write(self.folder, more=more, cluster=cluster, rules=RULES, annotated=ANNOTATED + USERS + ATTACKS)
        super().__init__(self.folder, root)

    def get(self, host: str, path: str, **options: Any) -> httpx.Response:
        headers = {"host": host, **options.pop("headers", {})}
        return httpx.request(
            options.pop("method", "GET"), f"http://127.0.0.1:{self.port}{path}", headers=headers, **options
        )

    def secure(self, server_name: str, host: str) -> int:
        """Return the status of a request by TLS, with a certificate that must be that of the server name."""
        context = ssl.create_default_context(cadata=authority().pem.decode())
        with httpx.Client(verify=context) as client:
            url, named = f"https://127.0.0.1:{self.tls_port}/a", {"sni_hostname": server_name}
            return client.get(url, headers={"host": host}, extensions=named).status_code

    def status(self, host: str, path: str, **options: Any) -> int:
        return self.get(host, path, **options).status_code


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Ingresses]:
    with Ingresses(tmp_path_factory.mktemp("ingresses"), backend) as running:
        running.says("ready http")
        yield running


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        ("a.example.com", "/exact", 200),
        ("a.example.com", "/exact/", 404),
        ("a.example.com", "/prefix", 200),
        ("a.example.com", "/prefix/x", 200),
        ("a.example.com", "/prefixes", 404),
        ("a.example.com", "/missing", 500),
        ("a.example.com", "/wild", 200),
        ("b.example.com", "/wild", 200),
        ("b.example.com", "/else", 404),
        ("B.Example.com:8080", "/wild", 200),
        ("c.b.example.com", "/wild", 404),  # a wildcard stands for one label
        ("example.com", "/wild", 404),
        ("closed.example.com", "/", 500),
        ("denied.example.com", "/", 403),
        ("private.example.com", "/", 404),  # the Ingress forgoes plain HTTP, and no other namespace gets it
        ("big.example.com", "/", 200),  # the canary of another namespace has no endpoints
    ],
)
def test_hosts_and_paths(gateway: Ingresses, host: str, path: str, status: int) -> None:
    assert gateway.status(host, path) == status


def test_a_host_with_a_certificate_is_served_by_tls_alone(gateway: Ingresses) -> None:
    moved = gateway.get("tls.example.com", "/a?b=c")
    assert (moved.status_code, moved.headers["location"]) == (
        308,
        f"https://tls.example.com:{gateway.tls_port}/a?b=c",
    )
    assert gateway.secure("tls.example.com", "tls.example.com") == 200
    with pytest.raises(httpx.TransportError), httpx.Client(verify=False) as client:
        client.get(f"https://127.0.0.1:{gateway.tls_port}/a", extensions={"sni_hostname": "a.example.com"})


def test_each_host_has_its_certificate(gateway: Ingresses) -> None:
    for host in ("tls.example.com", "two.example.com", "three.example.com"):
        assert gateway.secure(host, host) == 200
    assert gateway.secure("tls.example.com", "two.example.com") == 200  # the same chain of Envoy
    assert gateway.secure("tls.example.com", "three.example.com") == 421


def test_annotations(gateway: Ingresses) -> None:
    assert gateway.get("r.example.com", "/api/users/1?q=1").json()["path"] == "/v1/users/1?q=1"
    assert gateway.get("r.example.com", "/API").json()["path"] == "/v1/"
    assert gateway.status("r.example.com", "/apis") == 404
    moved = gateway.get("moved.example.com", "/x?y=1")
    assert (moved.status_code, moved.headers["location"]) == (301, "https://new.example.com/x?y=1")
    assert gateway.get("secure.example.com", "/").status_code == 308
    assert gateway.status("big.example.com", "/", method="POST", content=b"a" * 1025) == 413
    assert gateway.status("big.example.com", "/", method="POST", content=b"a" * 1024) == 200
    preflight = {"origin": "https://any.example.com", "access-control-request-method": "PUT"}
    answer = gateway.get("pages.example.com", "/", method="OPTIONS", headers=preflight)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


def test_users_of_a_secret(gateway: Ingresses) -> None:
    assert gateway.status("users.example.com", "/") == 401
    assert gateway.status("users.example.com", "/", auth=("alice", "wrong")) == 401
    assert gateway.status("users.example.com", "/", auth=("alice", "password")) == 200


def test_a_canary_takes_requests_with_its_header(gateway: Ingresses) -> None:
    found = gateway.get("canary.example.com", "/").json()
    assert found["headers"]["x-forwarded-prefix"] == "/main"
    # the Service of the canary is called by HTTP/2 here, which the backend does not speak
    assert gateway.status("canary.example.com", "/", headers={"x-canary": "always"}) >= 500
    assert gateway.status("canary.example.com", "/", headers={"x-canary": "never"}) == 200


def test_a_limit_is_for_each_address(gateway: Ingresses) -> None:
    statuses = Counter(gateway.status("limited.example.com", "/") for _ in range(4))
    assert statuses == {200: 2, 429: 2}
