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
from xds_server.sources.gateway_folder import ManifestState

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
