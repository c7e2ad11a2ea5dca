"""`scope: local` through the real Envoy: exact counts, with nobody asked."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.envoy import Envoy
from tests.support.folder import filled, snapshot
from tests.support.identity_cases import sha256
from tests.support.ports import free_port
from tests.support.xds import XdsThread, bootstrap

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1, trusted_proxies: 1}}
upstreams: {echo: {endpoints: [$echo]}}
consumers:
  acme: {api_keys: [{sha256: $acme}]}
  beta: {api_keys: [{sha256: $beta}]}
routes:
  shared: {path: /shared, upstream: echo, policies: {rate_limit: {requests: 3, per: day, scope: local, by: route}}}
  address: {path: /address, upstream: echo, policies: {rate_limit: {requests: 2, per: day, scope: local}}}
  consumer: {path: /consumer, upstream: echo, policies: {rate_limit: {requests: 2, per: day, scope: local}, api_key: {optional: true}}}
  header: {path: /header, upstream: echo, policies: {rate_limit: {requests: 2, per: day, scope: local, by: "header:x-tenant"}}}
  both: {path: /both, upstream: echo, policies: {rate_limit: {requests: 2, per: day, scope: local, by: [consumer, "header:X-Tenant"]}, api_key: true}}
  burst: {path: /burst, upstream: echo, policies: {rate_limit: {requests: 1, per: day, scope: local, burst: 4, by: ip}}}
  two: {path: /two, upstream: echo, policies: {rate_limit: [{requests: 5, per: day, scope: local}, {requests: 2, per: hour, scope: local}]}}
  quiet: {path: /quiet, upstream: echo, policies: {rate_limit: {requests: 1, per: day, scope: local}, limit_headers: []}}
  ietf: {path: /ietf, upstream: echo, policies: {rate_limit: {requests: 2, per: day, scope: local, by: ip}, limit_headers: [ietf]}}
  same: {path: /same, upstream: echo, policies: {rate_limit: [{requests: 2, per: day, scope: local}, {requests: 2, per: hour, scope: local}]}}
  keyed: {path: /keyed, upstream: echo, policies: {rate_limit: {requests: 2, per: day, scope: local}, api_key: true}}
  own: {path: /own, respond: {body: pong}, policies: {rate_limit: {requests: 2, per: day, scope: local, by: ip}}}
  moved: {path: /moved, redirect: {to: /}, policies: {rate_limit: {requests: 1, per: day, scope: local, by: ip}}}
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("gateway"), free_port()
    digests = {name: sha256(name) for name in ("acme", "beta")}
    with XdsThread() as control:
        control.publish(snapshot(filled(YAML, port=port, echo=backend.address, **digests)))
        with Envoy(bootstrap(control.port), folder) as envoy:
            envoy.ready()
            yield f"http://127.0.0.1:{port}"


def statuses(url: str, count: int, **headers: str) -> list[int]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return [httpx.get(url, headers=sent).status_code for _ in range(count)]


def test_exactly_so_many_pass_and_the_rejection_has_its_name(url: str) -> None:
    answers = [httpx.get(f"{url}/shared") for _ in range(5)]
    assert [one.status_code for one in answers] == [200, 200, 200, 429, 429]
    assert [one.headers["x-ratelimit-limit"] for one in answers] == ["3"] * 5
    assert [one.headers["x-ratelimit-remaining"] for one in answers] == ["2", "1", "0", "0", "0"]
    for one in answers:
        assert one.headers["ratelimit-policy"] == '"requests-per-day-by-route";q=3;w=86400'
        left, _, wait = one.headers["ratelimit"].rpartition(";t=")
        assert left == f'"requests-per-day-by-route";r={one.headers["x-ratelimit-remaining"]}'
        assert abs(int(one.headers["x-ratelimit-reset"]) - int(wait) - time.time()) < 60  # Unix time
        assert "x-envoy-ratelimited" not in one.headers
    rejected = answers[-1]
    assert rejected.headers["retry-after"] == str(86400 // 3)
    assert rejected.headers["x-gateway-reason"] == "rate_limited"
    assert rejected.headers["content-type"] == "application/problem+json"
    assert rejected.json()["reason"] == "rate_limited"
    assert "retry-after" not in answers[0].headers


def test_each_address_has_its_own_bucket(url: str) -> None:
    one, other = {"x_forwarded_for": "192.0.2.1"}, {"x_forwarded_for": "192.0.2.2"}
    assert statuses(f"{url}/address", 3, **one) == [200, 200, 429]
    assert statuses(f"{url}/address", 3, **other) == [200, 200, 429]
    assert statuses(f"{url}/address", 1, x_forwarded_for="2001:db8:0:1::1") == [200]
    assert statuses(f"{url}/address", 2, x_forwarded_for="2001:db8:0:1::2") == [200, 429]


def test_each_consumer_has_its_own_and_nobody_counts_by_address(url: str) -> None:
    assert statuses(f"{url}/consumer", 3, x_api_key="acme") == [200, 200, 429]
    assert statuses(f"{url}/consumer", 3, x_api_key="beta") == [200, 200, 429]
    assert statuses(f"{url}/consumer", 3) == [200, 200, 429]
    assert statuses(f"{url}/consumer", 1, x_api_key="acme", x_forwarded_for="192.0.2.9") == [429]
    assert statuses(f"{url}/consumer", 1, x_forwarded_for="192.0.2.9") == [200]


def test_values_of_a_header_count_apart_and_absence_is_one_of_them(url: str) -> None:
    assert statuses(f"{url}/header", 3, x_tenant="a") == [200, 200, 429]
    assert statuses(f"{url}/header", 3, x_tenant="b") == [200, 200, 429]
    assert statuses(f"{url}/header", 2) == [200, 200]
    assert statuses(f"{url}/header", 1, x_tenant="") == [429]


def test_a_combination_counts_together(url: str) -> None:
    assert statuses(f"{url}/both", 3, x_api_key="acme", x_tenant="a") == [200, 200, 429]
    assert statuses(f"{url}/both", 3, x_api_key="acme", x_tenant="b") == [200, 200, 429]
    assert statuses(f"{url}/both", 3, x_api_key="beta", x_tenant="a") == [200, 200, 429]
    assert statuses(f"{url}/both", 1, x_tenant="a") == [401]


def test_a_bucket_holds_its_burst(url: str) -> None:
    assert statuses(f"{url}/burst", 5) == [200] * 4 + [429]


def test_two_limits_apply_together(url: str) -> None:
    answers = [httpx.get(f"{url}/two") for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 429]


def test_of_several_limits_one_is_told_by_its_name_where_sizes_tell_them_apart(url: str) -> None:
    """Which one is Envoy's choice; of a rejection it is the one that rejects."""
    address = {"x-forwarded-for": "192.0.2.77"}
    answers = [httpx.get(f"{url}/two", headers=address) for _ in range(3)]
    policies = '"requests-per-day";q=5;w=86400, "requests-per-hour";q=2;w=3600'
    assert {one.headers["ratelimit-policy"] for one in answers} == {policies}
    sizes = {"5": "requests-per-day", "2": "requests-per-hour"}
    for one in answers:
        figures = f'"{sizes[one.headers["x-ratelimit-limit"]]}";r={one.headers["x-ratelimit-remaining"]};t='
        assert one.headers["ratelimit"].startswith(figures)
    assert answers[-1].headers["ratelimit"].startswith('"requests-per-hour";r=0;t=')
    same = httpx.get(f"{url}/same").headers
    assert same["ratelimit-policy"].count("q=2") == 2
    assert "ratelimit" not in same


def test_the_style_is_chosen_and_what_was_refused_before_is_told_nothing(url: str) -> None:
    ietf = httpx.get(f"{url}/ietf").headers
    assert ietf["ratelimit"].startswith('"requests-per-day-by-ip";r=1;t=')
    assert not any(name.startswith("x-ratelimit") for name in ietf)
    refused = httpx.get(f"{url}/keyed")
    assert refused.status_code == 401
    assert not any("ratelimit" in name for name in refused.headers)


def test_where_the_gateway_answers_itself_local_limits_hold(url: str) -> None:
    answers = [httpx.get(f"{url}/own") for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-remaining"] == "1"
    assert statuses(f"{url}/moved", 2) == [302, 429]


def test_headers_are_chosen(url: str) -> None:
    answers = [httpx.get(f"{url}/quiet") for _ in range(2)]
    assert [one.status_code for one in answers] == [200, 429]
    assert not any("ratelimit" in name for one in answers for name in one.headers)
    assert "retry-after" in answers[1].headers


def test_many_more_clients_than_envoy_remembers_by_default_count_apart(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        tenants = [f"many-{number}" for number in range(100)]
        first = [client.get("/header", headers={"x-tenant": one}).status_code for one in tenants * 3]
    assert first == [200] * 200 + [429] * 100
