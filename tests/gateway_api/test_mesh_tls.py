"""What sidecars get if they speak TLS with each other, in the gateway language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.certificates import authority
from xds_server.control_plane.compiler import Compiler
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.gateway_files import GatewayFiles
from xds_server.gateway_api.manifests import Manifests
from xds_server.gateway_api.mesh import mesh_key, with_mesh
from xds_server.gateway_api.mesh_tls import SECRET, SERVER_NAME, MeshTrust
from xds_server.gateway_api.translation import translate
from xds_server.sources.manifest_folder import ManifestState

MANIFESTS = (Path(__file__).with_name("cases") / "mesh.in.yaml").read_text()
POLICY = """
---
apiVersion: xds-gateway.dev/v1alpha1
kind: MeshPolicy
metadata: {name: NAME, namespace: shop}
spec: SPEC
"""


def _policy(name: str, spec: str) -> str:
    return POLICY.replace("NAME", name).replace("SPEC", spec)


def _cluster(more: str = "") -> Cluster:
    cluster, problems = Manifests().read({"in.yaml": (MANIFESTS + more).encode()})
    assert [str(one) for one in problems] == []
    return cluster


def _meshes(more: str = "") -> dict[tuple[str, str], GatewayFiles]:
    cluster = _cluster(more)
    certificate, key = authority().issue("a.example.com")
    trust = MeshTrust(domain="example.com", bundle=authority().pem, certificate=certificate, private_key=key)
    found = dict(with_mesh(translate(cluster), cluster, trust=trust).meshes)
    for files in found.values():
        state = ManifestState(files=files.rendered(), contents=files.contents)
        assert Compiler({}).compile(state).gateway
    return found


def _values(files: GatewayFiles, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(files.rendered()[name])
    return found


def test_upstreams_of_the_mesh_get_tls_and_services_without_routes_their_endpoints() -> None:
    files = _meshes()[mesh_key("office")]
    upstreams = _values(files, "upstreams.yaml")["upstreams"]
    for name in ("shop.orders.80", "shop.orders.443.tcp"):
        tls = upstreams[name]["tls"]
        assert (tls["sni"], tls["client_certificate"], tls["optional"]) == (SERVER_NAME, SECRET, True)
        assert tls["subject_alt_names"] == ["spiffe://example.com/ns/shop/sa/"]
    mesh = _values(files, "mesh.yaml")
    assert mesh["stream_routes"]["shop.orders.443"]["upstream"] == "shop.orders.443.tcp"
    assert "shop.pods.80" not in mesh["listeners"], "clients of a headless Service connect to its pods"


def test_a_pod_accepts_plain_text_until_a_policy_forbids_it() -> None:
    found = _meshes(_policy("strict", "{mtls: strict, serviceAccounts: [orders]}"))
    assert sorted(found) == [("office", ""), ("shop", ""), ("shop", "@orders")]
    plain, strict = (_values(found[key], "inbound.yaml") for key in (("shop", ""), ("shop", "@orders")))
    assert sorted(plain["stream_routes"]) == ["inbound", "inbound-mesh"]
    assert sorted(strict["stream_routes"]) == ["inbound-mesh"]
    client = strict["listeners"]["inbound-mesh"]["tls"]["client_certificate"]
    assert client["subject_alt_names"] == ["spiffe://example.com/*"]


@pytest.mark.parametrize(
    ("policies", "names"),
    [
        (["{allow: [{serviceAccount: a}]}"], ["spiffe://example.com/ns/shop/sa/a"]),
        (["{allow: [{namespace: office}]}"], ["spiffe://example.com/ns/office/*"]),
        (
            ["{allow: [{serviceAccount: a}]}", "{allow: [{namespace: office, serviceAccount: b}]}", "{}"],
            ["spiffe://example.com/ns/office/sa/b", "spiffe://example.com/ns/shop/sa/a"],
        ),
    ],
)
def test_policies_unite_the_clients_that_they_allow(policies: list[str], names: list[str]) -> None:
    more = "".join(_policy(f"p{number}", spec) for number, spec in enumerate(policies))
    inbound = _values(_meshes(more)["shop", ""], "inbound.yaml")
    assert sorted(inbound["stream_routes"]) == ["inbound-mesh"]
    client = inbound["listeners"]["inbound-mesh"]["tls"]["client_certificate"]
    assert client["subject_alt_names"] == names


def _inbound(*specs: str) -> dict[str, Any]:
    more = "".join(_policy(f"p{number}", spec) for number, spec in enumerate(specs))
    return _values(_meshes(more)["shop", ""], "inbound.yaml")


def test_a_rule_about_requests_makes_its_port_http_and_leaves_the_others() -> None:
    found = _inbound("{allow: [{namespace: office, ports: [8080], methods: [GET], paths: [/orders/*]}]}")
    names = ["inbound", "inbound-8080", "inbound-mesh", "inbound-mesh-8080"]
    assert sorted(found["listeners"]) == names
    assert [found["listeners"][one].get("protocol", "http") for one in names] == ["tcp", "tcp", "tcp", "http"]
    assert "stream_routes" not in found, "nothing else is allowed"
    assert sorted(found["routes"]) == ["inbound-mesh-8080"]
    clients = ["spiffe://example.com/ns/office/*"]
    rules = [{"clients": clients, "methods": ["GET"], "paths": ["/orders/*"]}]
    assert found["routes"]["inbound-mesh-8080"]["policies"] == {"authorize": rules}
    assert found["listeners"]["inbound-mesh-8080"]["escaped_slashes"] == "reject"


def test_connections_without_a_certificate_are_told_from_others() -> None:
    found = _inbound("{allow: [{anonymous: true, ports: [9090]}, {serviceAccount: a}]}")
    assert sorted(found["stream_routes"]) == ["inbound-9090", "inbound-mesh", "inbound-mesh-9090"]
    names = {
        name: found["listeners"][name]["tls"]["client_certificate"]["subject_alt_names"]
        for name in ("inbound-mesh", "inbound-mesh-9090")
    }
    assert names == {
        "inbound-mesh": ["spiffe://example.com/ns/shop/sa/a"],
        "inbound-mesh-9090": ["spiffe://example.com/*"],
    }
    strict = _inbound("{mtls: strict, allow: [{anonymous: true, ports: [9090]}]}")
    assert sorted(strict["stream_routes"]) == ["inbound-mesh-9090"]


def test_a_rule_that_denies_wins() -> None:
    found = _inbound("{allow: [{namespace: office}], deny: [{namespace: office, serviceAccount: a}]}")
    assert sorted(found["stream_routes"]) == ["inbound-mesh"]
    denied = [{"clients": ["spiffe://example.com/ns/office/sa/a"], "deny": True}]
    assert found["stream_routes"]["inbound-mesh"]["authorize"] == denied
    closed = _inbound("{deny: [{ports: [9090]}]}")
    assert sorted(closed["stream_routes"]) == ["inbound", "inbound-mesh"]
    requests = _inbound("{deny: [{ports: [8080], paths: [/admin/*]}]}")
    assert sorted(requests["routes"]) == ["inbound-8080", "inbound-mesh-8080"]
    rules = [{"paths": ["/admin/*"], "deny": True}]
    for name in ("inbound-8080", "inbound-mesh-8080"):
        assert requests["routes"][name]["policies"] == {"authorize": rules}


def test_a_port_with_rules_for_others_only_answers_403() -> None:
    found = _inbound("{allow: [{ports: [9090]}]}", "{deny: [{ports: [8080], methods: [DELETE]}]}")
    assert found["routes"]["inbound-mesh-8080"]["respond"] == {"status": 403}
    assert "inbound-8080" not in found["routes"]
