"""The access log: one JSON line for each request, with the reason that the client was told."""

from __future__ import annotations

from pathlib import Path

from filters.log_fields import FIELDS
from tests.support.backend import Backend
from tests.support.envoy import for_this_envoy
from tests.support.folder import filled, snapshot
from tests.support.gateway import Gateways
from tests.support.geoip import write_asns, write_countries
from tests.support.ports import free_port
from tests.support.validate import complaint
from xds_server.translate.static import bootstrap

YAML = """
listeners:
  loud: {port: $port, address: 127.0.0.1, access_log: true}
  quiet: {port: $quiet, address: 127.0.0.1}
upstreams:
  echo: {endpoints: ["$echo"]}
  none: {endpoints: []}
routes:
  echo: {path: /echo, upstream: echo}
  none: {path: /none, upstream: none}
"""


def test_every_request_leaves_a_line(tmp_path: Path, backend: Backend) -> None:
    quiet = free_port()
    with Gateways(tmp_path) as gateways:
        gateway = gateways.start(YAML, quiet=quiet, echo=backend.address)
        seen = gateway.request("POST", "/echo?a=1", content=b"body", headers={"x-tab": "1"}).json()
        problem = gateway.get("/none").json()
        gateway.get('/"nowhere"')
        with gateway.client() as client:
            client.get(f"http://127.0.0.1:{quiet}/quiet")
    # Envoy writes what it still holds when it ends.
    logged = gateway.envoy.access_log()
    lines = {line["path"]: line for line in logged}
    assert len(lines) == len(logged)
    assert set(lines) == {"/echo", "/none", "/%22nowhere%22"}
    echoed = lines["/echo"]
    assert echoed["request_id"] == seen["headers"]["x-request-id"]
    expected = {
        "method": "POST",
        "status": 200,
        "route": "echo",
        "upstream": "echo",
        "endpoint": backend.address,
    }
    expected |= {
        "bytes_received": 4,
        "client": "127.0.0.1",
        "protocol": "HTTP/1.1",
        "host": f"127.0.0.1:{gateway.port}",
    }
    assert {key: echoed[key] for key in expected} == expected
    assert "reason" not in echoed
    refused = lines["/none"]
    assert (refused["status"], refused["reason"], refused["flags"]) == (503, "no_healthy_upstream", "UH")
    assert refused["request_id"] == problem["request_id"]
    assert lines["/%22nowhere%22"]["reason"] == "not_found"


OF_ALL_KINDS = """
geoip: {countries: $folder/countries.mmdb, asns: $folder/asns.mmdb}
listeners:
  requests: {port: 8080}
  connections: {port: 8081, protocol: tcp}
  sessions: {port: 8082, protocol: udp}
upstreams: {echo: {endpoints: ["127.0.0.1:1"]}}
stream_routes: {all: {upstream: echo}}
telemetry:
  access_logs:
    json: {fields: [$fields]}
    text: {fields: [$fields], format: text}
"""


def test_envoy_accepts_every_field_of_requests_connections_and_sessions(tmp_path: Path) -> None:
    write_countries(tmp_path / "countries.mmdb", {"192.0.2.0/24": "KR"})
    write_asns(tmp_path / "asns.mmdb", {"192.0.2.0/24": 64500})
    text = filled(OF_ALL_KINDS, folder=tmp_path, fields=", ".join(field.name for field in FIELDS))
    assert complaint(bootstrap(for_this_envoy(snapshot(text)))) is None
