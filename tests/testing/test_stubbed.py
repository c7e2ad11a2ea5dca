"""A gateway for tests calls nobody but stubs and our own services, and opens ports on loopback only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2

from tests.support.reading import read
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER
from xds_server.testing.stubbed import on_loopback, with_stubs
from xds_server.testing.tokens import Signer
from xds_server.translate.translator import Translator

GATEWAY = """
listeners:
  http: {port: 80, address: 0.0.0.0, proxy_protocol: true}
  other: {port: 81}
upstreams:
  named: {endpoints: ["users.example.com:443"], tls: {}, health_check: /healthz, outlier_detection: {}}
  addressed: {endpoints: ["192.0.2.1:80"], protocol: http2, source_address: 192.0.2.9, proxy_protocol: v2}
  wanted: {endpoints: [], original_destination: true}
  raw: {endpoints: ["192.0.2.1:80"], envoy: {type: STATIC, load_assignment: {cluster_name: raw}}}
  collector: {endpoints: ["192.0.2.2:4317"], protocol: grpc}
identity:
  corp:
    issuer: https://idp.example.com
    jwks: {url: "https://idp.example.com/jwks"}
    oidc:
      client_id: gateway
      client_secret: {env: SECRET}
      session_secret: {env: SECRET}
      authorization_endpoint: https://idp.example.com/authorize
      token_endpoint: https://idp.example.com/token
telemetry:
  access_logs: {all: {to: {file: /var/log/gateway.log}}}
  tracing: {upstream: collector}
routes:
  named: {path: /named, upstream: named, policies: {jwt: corp}}
  login: {path: /login, upstream: addressed, policies: {oidc: corp}}
  wanted: {path: /wanted, upstream: wanted}
  raw: {path: /raw, upstream: raw, mirror: {upstream: collector}}
"""
SERVICE = "unix:/tmp/policy.sock"


def _snapshot() -> Snapshot:
    reading = read(GATEWAY, {"SECRET": "x" * 32})
    assert reading.gateway is not None, reading.problems
    stubbed = with_stubs(reading.gateway, lambda name: Path(f"/tmp/{name}.sock"), Signer().jwks)
    snapshot = Translator({"policy-server": SERVICE, "usage-server": SERVICE}).translate(stubbed)
    return on_loopback(snapshot, reading.gateway.sections.upstreams, Path("/tmp/access.log"))


def _addresses(assignment: endpoint_pb2.ClusterLoadAssignment) -> Iterator[address_pb2.Address]:
    for locality in assignment.endpoints:
        for one in locality.lb_endpoints:
            yield one.endpoint.address


def test_every_endpoint_is_a_socket_of_this_machine() -> None:
    snapshot = _snapshot()
    clusters = [cluster_pb2.Cluster.FromString(one.body) for one in snapshot[CLUSTER].values()]
    assert {"named", "addressed", "wanted", "raw", "url/idp.example.com:443"} <= {
        one.name for one in clusters
    }
    assert {one.type for one in clusters} <= {cluster_pb2.Cluster.STATIC, cluster_pb2.Cluster.EDS}
    assert not any(one.health_checks for one in clusters)
    assigned = [
        *(one.load_assignment for one in clusters),
        *(endpoint_pb2.ClusterLoadAssignment.FromString(one.body) for one in snapshot[ENDPOINT].values()),
    ]
    assert {address.WhichOneof("address") for one in assigned for address in _addresses(one)} == {"pipe"}


def test_every_port_is_any_free_one_of_loopback() -> None:
    found = [listener_pb2.Listener.FromString(one.body) for one in _snapshot()[LISTENER].values()]
    assert [(one.address.socket_address.address, one.address.socket_address.port_value) for one in found] == [
        ("127.0.0.1", 0)
    ] * 2
    assert not any(one.listener_filters for one in found)


def test_nothing_is_logged_but_for_the_tests() -> None:
    for one in _snapshot()[LISTENER].values():
        assert b"/var/log/gateway.log" not in one.body
        assert b"/tmp/access.log" in one.body
