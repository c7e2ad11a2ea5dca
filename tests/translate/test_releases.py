"""What older Envoys are served: everything that they can take, and 503 where they lack what a route needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from envoy.config.route.v3 import route_pb2

from tests.support.geoip import write_countries
from tests.support.reading import read
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.types import LISTENER, ROUTE
from xds_server.gateway.reader import Reader
from xds_server.translate import releases
from xds_server.translate.translator import Translator

YAML = """
listeners: {http: {port: 8080}}
upstreams: {users: {endpoints: ["127.0.0.1:1"]}}
identity:
  corp:
    issuer: https://idp.example.com
    jwks: {url: "https://idp.example.com/jwks"}
    oidc:
      authorization_endpoint: https://idp.example.com/authorize
      token_endpoint: https://idp.example.com/token
      client_id: shop
      client_secret: {env: SECRET}
      session_secret: {env: SECRET}
routes:
  plain: {path: /plain, upstream: users}
  login: {path: /login/*, upstream: users, policies: {oidc: corp}}
  limited: {path: /limited, upstream: users, policies: {rate_limit: 10/second}}
  sized: {path: /sized, upstream: users, policies: {quota: 1MB/day}}
  older: {path: /older, upstream: users, request_headers: {set: {x-a: "%REQUEST_HEADER(x-b)%"}}}
  newer: {path: /newer, upstream: users, response_headers: {set: {x-a: "a %UPSTREAM_HOSTS_ATTEMPTED% b"}}}
  packed: {path: /packed, upstream: users, policies: {compression: true}}
  typed: {path: /typed, upstream: users, policies: {compression: {content_types: [+json]}}}
  plain-text: {path: /text, upstream: users, response_headers: {set: {x-a: "%%SPAN_ID%%"}}}
"""
GEOIP = """
listeners: {http: {port: 8080}}
geoip: {countries: %s}
routes:
  open: {path: /open, respond: {body: ok}, policies: {ip_access: {deny: [192.0.2.1]}}}
  home: {path: /home, respond: {body: ok}, policies: {ip_access: {allow: {countries: [KR]}}}}
"""
DOCS = Path(__file__).resolve().parents[2] / "docs" / "reference" / "versions.md"


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    reading = read(YAML, {"SECRET": "x" * 40})
    assert reading.gateway is not None, reading.errors
    return Translator().translate(reading.gateway)


def closed(snapshot: Snapshot) -> set[str]:
    table = route_pb2.RouteConfiguration.FromString(snapshot[ROUTE]["0.0.0.0:8080"].body)
    return {
        route.name.removeprefix("503/").partition("/")[0]
        for host in table.virtual_hosts
        for route in host.routes
        if route.name.startswith("503/")
    }


@pytest.mark.parametrize(
    ("release", "lacking"),
    [
        ("envoy 1.36", {"login", "sized", "older", "newer", "typed"}),
        ("envoy 1.37", {"login", "newer", "typed"}),
        ("envoy 1.38", {"typed"}),
        ("envoy 1.39", {"typed"}),
        ("envoy 1.40", set()),
        ("envoy 1.41", set()),
        ("grpc-python 1.80", set()),
        ("", set()),
    ],
)
def test_routes_that_need_a_newer_envoy_answer_503(
    snapshot: Snapshot, release: str, lacking: set[str]
) -> None:
    found, lacks = releases.adapted(snapshot, release)
    assert {one.name for one in lacks} == closed(found) == lacking
    assert all(one.path == ("routes", one.name) and one.closed for one in lacks)
    assert set(found[LISTENER]) == {"0.0.0.0:8080"}


@pytest.mark.parametrize(
    ("release", "types", "weakened"), [("1.37", False, False), ("1.39", False, True), ("1.40", True, True)]
)
def test_an_older_envoy_gets_compressors_without_the_fields_that_it_does_not_know(
    snapshot: Snapshot, release: str, types: bool, weakened: bool
) -> None:
    found, _ = releases.adapted(snapshot, f"envoy {release}")
    body = found[LISTENER]["0.0.0.0:8080"].body
    assert (b"content_type_matcher" in body, b"weaken_etag_on_compress" in body) == (types, weakened)


def test_an_older_envoy_opens_no_database_and_closes_routes_that_need_one(tmp_path: Path) -> None:
    write_countries(tmp_path / "c.mmdb", {"192.0.2.0/24": "KR"})
    files = {"gateway.yaml": (GEOIP % (tmp_path / "c.mmdb")).encode()}
    reading = Reader().read(files, lambda path: Path(path).read_bytes(), {})
    assert reading.gateway is not None, reading.errors
    snapshot = Translator().translate(reading.gateway)
    assert b"/c.mmdb" in snapshot[LISTENER]["0.0.0.0:8080"].body
    found, lacks = releases.adapted(snapshot, "envoy 1.39")
    body = found[LISTENER]["0.0.0.0:8080"].body
    assert b"/c.mmdb" not in body
    assert b"x-geo-country" in body  # clients cannot forge it either
    assert closed(found) == {"home"}
    assert [one.path for one in lacks] == [("geoip",), ("routes", "home")]


def test_what_a_release_has_in_full_is_the_same_snapshot(snapshot: Snapshot) -> None:
    found, lacks = releases.adapted(snapshot, "envoy 1.40")
    assert found is snapshot
    assert lacks == ()


def test_the_table_for_people_has_every_need() -> None:
    text = DOCS.read_text()
    for need in releases.NEEDS:
        assert f"| {need.feature} | {'.'.join(map(str, need.since))} |" in text
