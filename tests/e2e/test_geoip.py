"""geoip through the real Envoy: the country and the autonomous system of the real client, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.geoip import write_asns, write_countries
from tests.support.running import Served
from tests.support.wait import wait_for

GATEWAY = """
listeners: {http: {port: $port, address: 127.0.0.1, trusted_proxies: 1}}
geoip: {countries: $folder/countries.mmdb, asns: $folder/asns.mmdb}
telemetry:
  access_logs: {file: {to: {file: $folder/access.log}, fields: [path, status, country, asn]}}
upstreams: {echo: {endpoints: ["$echo"]}}
policies:
  ip_access: {deny: {countries: [KP], asns: [64501]}}
routes:
  open: {path: /open, upstream: echo}
  home: {path: /home, upstream: echo, policies: {ip_access: {allow: {countries: [KR, JP]}}}}
  mixed: {path: /mixed, upstream: echo, policies: {ip_access: {allow: {countries: [KR], addresses: [203.0.113.7]}}}}
  operator: {path: /operator, upstream: echo, policies: {ip_access: {allow: {asns: [64500]}}}}
  limited: {path: /limited, upstream: echo, policies: {rate_limit: {requests: 1, per: day, by: "header:x-geo-country", scope: local}}}
  off: {path: /off, upstream: echo, policies: {ip_access: off}}
  version: {path: /version, respond: {body: "$version"}, policies: {ip_access: off}}
"""
SEOUL, PYONGYANG, TOKYO = "192.0.2.7", "198.51.100.7", "2001:db8::7"
OFFICE, HOSTED, UNKNOWN = "203.0.113.7", "192.0.2.200", "127.0.0.1"
COUNTRIES = {"192.0.2.0/24": "KR", "198.51.100.0/24": "KP", "2001:db8::/32": "JP", "203.0.113.0/24": "DE"}
ASNS = {"192.0.2.0/25": 64500, "192.0.2.128/25": 64501}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_countries(tmp_path / "countries.mmdb", COUNTRIES)
    write_asns(tmp_path / "asns.mmdb", ASNS)
    return tmp_path


@pytest.fixture
def served(folder: Path, backend: Backend) -> Iterator[Served]:
    running = Served(folder, GATEWAY, echo=backend.address, folder=folder)
    running.write("1")
    with running:
        running.until("1")
        yield running


def get(served: Served, path: str, address: str, **headers: str) -> httpx.Response:
    return httpx.get(f"{served.url}{path}", headers={"x-forwarded-for": address, **headers})


def seen(served: Served, path: str, address: str, **headers: str) -> dict[str, str]:
    """The headers of an accepted request, as the upstream sees them."""
    response = get(served, path, address, **headers)
    assert response.status_code == 200, response.text
    received: dict[str, str] = response.json()["headers"]
    return received


def test_countries_and_operators_decide_and_the_newest_database_counts(served: Served, folder: Path) -> None:
    for path, address, reason in (
        ("/open", SEOUL, None),
        ("/open", UNKNOWN, None),
        ("/open", PYONGYANG, "country_denied"),
        ("/open", HOSTED, "asn_denied"),
        ("/off", PYONGYANG, None),
        ("/home", SEOUL, None),
        ("/home", TOKYO, None),
        ("/home", OFFICE, "country_denied"),
        ("/home", UNKNOWN, "country_denied"),
        ("/mixed", OFFICE, None),
        ("/mixed", TOKYO, "ip_denied"),
        ("/operator", SEOUL, None),
        ("/operator", OFFICE, "asn_denied"),
        # a client writes what it likes before the address that the proxy has seen
        ("/home", f"{SEOUL}, {OFFICE}", "country_denied"),
        ("/open", f"{SEOUL}, {PYONGYANG}", "country_denied"),
    ):
        response = get(served, path, address)
        expected = (200, None) if reason is None else (403, reason)
        assert (response.status_code, response.headers.get("x-gateway-reason")) == expected, (path, address)
    forged = {"x-geo-country": "KR", "x-geo-asn": "64500"}
    assert get(served, "/home", UNKNOWN, **forged).headers["x-gateway-reason"] == "country_denied"
    assert get(served, "/operator", UNKNOWN, **forged).headers["x-gateway-reason"] == "asn_denied"
    assert not {"x-geo-country", "x-geo-asn"} & seen(served, "/open", UNKNOWN, **forged).keys()
    headers = seen(served, "/open", SEOUL, **{"x-geo-country": "DE"})
    assert (headers["x-geo-country"], headers["x-geo-asn"]) == ("KR", "64500")

    assert [get(served, "/limited", one).status_code for one in (SEOUL, TOKYO, SEOUL)] == [200, 200, 429]

    def logged() -> bool:
        lines = (folder / "access.log").read_text().splitlines()
        denied = {"path": "/home", "status": 403, "country": "DE"}
        return denied in [json.loads(line) for line in lines]

    wait_for(logged, "the country in the access log")

    write_countries(folder / "countries.mmdb", {**COUNTRIES, "203.0.113.0/24": "KR"})
    wait_for(lambda: get(served, "/home", OFFICE).status_code == 200, "the new database")


def test_a_broken_database_changes_nothing_that_is_served(served: Served, folder: Path) -> None:
    broken = folder / "broken"
    broken.write_bytes(b"half a download")
    broken.rename(folder / "countries.mmdb")
    served.says("not a database in the MaxMind DB format")
    assert get(served, "/home", SEOUL).status_code == 200
    assert get(served, "/open", PYONGYANG).status_code == 403
    write_countries(folder / "countries.mmdb", {**COUNTRIES, "203.0.113.0/24": "KR"})
    wait_for(lambda: get(served, "/home", OFFICE).status_code == 200, "the next database")
    served.write("2")
    served.until("2")
