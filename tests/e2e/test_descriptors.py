"""An Envoy that someone else configures, with the standard rate limit filter, and descriptor files that count for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.envoy import Envoy
from tests.support.policy_server import PolicyServerProcess
from tests.support.ports import free_port
from tests.support.wait import wait_for

FILE = """
domain: shop
descriptors:
  - key: user
    rate_limit: {unit: day, requests_per_unit: 3}
  - key: user
    value: root
    rate_limit: {unlimited: true}
  - key: user
    value: "bot-*"
    rate_limit: {unit: day, requests_per_unit: 1}
  - key: path
    value: /quiet
    shadow_mode: true
    rate_limit: {unit: day, requests_per_unit: 1}
  - key: tenant
    descriptors:
      - key: path
        value: /orders
        rate_limit: {unit: month, requests_per_unit: 2}
  - key: changing
    rate_limit: {unit: day, requests_per_unit: 2}
  - key: tokens
    rate_limit: {unit: day, requests_per_unit: 100}
"""
HTTP = "type.googleapis.com/envoy.extensions.filters.http"


def headers(*names: str) -> dict[str, Any]:
    """A descriptor of request headers; none where one is absent."""
    known = {"path": ":path"}
    actions = [
        {"request_headers": {"header_name": known.get(one, f"x-{one}"), "descriptor_key": one}}
        for one in names
    ]
    return {"actions": actions}


def cluster(name: str, address: dict[str, Any], http2: bool = False) -> dict[str, Any]:
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    extended = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options} if http2 else {}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [endpoint]},
        "typed_extension_protocol_options": extended,
    }


def configuration(port: int, backend: int, limits: Path) -> dict[str, Any]:
    rate_limit = {
        "@type": f"{HTTP}.ratelimit.v3.RateLimit",
        "domain": "shop",
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "timeout": "5s",
        "failure_mode_deny": True,
        "rate_limit_service": {
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}},
        },
    }
    counted = [headers("user"), headers("tenant", "path"), headers("path"), headers("changing")]
    route = {"match": {"prefix": "/"}, "route": {"cluster": "echo", "rate_limits": counted}}
    tokens = headers("tokens")
    at_the_end = {"hits_addend": {"format": "%REQ(x-cost)%"}, "apply_on_stream_done": True}
    spent = [{**tokens, "hits_addend": {"number": 0}}, {**tokens, **at_the_end}]
    per_route = {"@type": f"{HTTP}.ratelimit.v3.RateLimitPerRoute", "rate_limits": spent}
    metered = {
        "match": {"prefix": "/metered"},
        "route": {"cluster": "echo"},
        "typed_per_filter_config": {"envoy.filters.http.ratelimit": per_route},
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [metered, route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.ratelimit", "typed_config": rate_limit},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{HTTP}.router.v3.Router"}},
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": filters}],
    }
    clusters = [
        cluster("echo", {"socket_address": {"address": "127.0.0.1", "port_value": backend}}),
        cluster("limits", {"pipe": {"path": str(limits)}}, http2=True),
    ]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


class Elsewhere:
    """The Envoy, and the file by which its requests are counted."""

    def __init__(self, file: Path, port: int, server: PolicyServerProcess) -> None:
        self.file = file
        self.server = server
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str = "/", **sent: str) -> httpx.Response:
        return httpx.get(
            self._url + path, headers={f"x-{one}": value for one, value in sent.items()}, timeout=30
        )

    def statuses(self, count: int, path: str = "/", **sent: str) -> list[int]:
        return [self.get(path, **sent).status_code for _ in range(count)]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    folder = tmp_path_factory.mktemp("elsewhere")
    file, port, socket = folder / "shop.yaml", free_port(), folder / "limits.sock"
    file.write_text(FILE)
    started = PolicyServerProcess("none", f"unix:{socket}", folder, "--descriptors", str(file))
    with Backend() as echo, started as server, Envoy(configuration(port, echo.port, socket), folder) as envoy:
        envoy.ready()
        found = Elsewhere(file, port, server)
        wait_for(lambda: found.get(user="root").status_code == 200, "the first decision")
        yield found


def test_each_value_is_counted_exactly_and_envoy_tells_the_figures(elsewhere: Elsewhere) -> None:
    answers = [elsewhere.get(user="me") for _ in range(5)]
    assert [one.status_code for one in answers] == [200, 200, 200, 429, 429]
    assert [one.headers["x-ratelimit-remaining"] for one in answers] == ["2", "1", "0", "0", "0"]
    assert answers[0].headers["x-ratelimit-limit"].startswith("3, 3;w=86400")
    assert all(0 < int(one.headers["x-ratelimit-reset"]) <= 86400 for one in answers)
    assert answers[3].headers["x-envoy-ratelimited"] == "true"
    assert elsewhere.statuses(1, user="you") == [200]


def test_values_wildcards_and_nested_descriptors_have_limits_of_their_own(elsewhere: Elsewhere) -> None:
    assert elsewhere.statuses(6, user="root") == [200] * 6
    assert elsewhere.statuses(2, user="bot-1") == [200, 429]
    assert elsewhere.statuses(2, user="bot-2") == [200, 429]
    assert elsewhere.statuses(3, "/orders", tenant="a") == [200, 200, 429]
    assert elsewhere.statuses(3, "/orders", tenant="b") == [200, 200, 429]
    assert elsewhere.statuses(4, "/other", tenant="a") == [200] * 4


def test_what_is_known_at_the_end_of_a_request_rejects_the_next(elsewhere: Elsewhere) -> None:
    """As tokens and bytes are limited: Envoy asks with a cost of 0, and reports the true cost when all is done."""
    assert elsewhere.get("/metered", tokens="me", cost="90").headers["x-ratelimit-remaining"] == "100"
    wait_for(
        lambda: elsewhere.get("/metered", tokens="me").headers["x-ratelimit-remaining"] == "10", "the 90"
    )
    assert elsewhere.get("/metered", tokens="me", cost="500").status_code == 200
    wait_for(lambda: elsewhere.get("/metered", tokens="me").status_code == 429, "the 500")
    assert elsewhere.get("/metered", tokens="me").headers["x-ratelimit-remaining"] == "0"
    assert elsewhere.get("/metered", tokens="you").status_code == 200


def test_failure_mode_deny_of_an_envoy_holds_where_redis_is_away(tmp_path: Path) -> None:
    file, port, socket = tmp_path / "shop.yaml", free_port(), tmp_path / "limits.sock"
    file.write_text(FILE)
    arguments = ("--descriptors", str(file), "--counters", f"redis://127.0.0.1:{free_port()}")
    started = PolicyServerProcess("none", f"unix:{socket}", tmp_path, *arguments)
    with (
        Backend() as echo,
        started as server,
        Envoy(configuration(port, echo.port, socket), tmp_path) as envoy,
    ):
        envoy.ready()
        found = Elsewhere(file, port, server)
        wait_for(lambda: found.get(user="root").status_code == 200, "an answer that needs no counter")
        assert found.statuses(3, user="me") == [500] * 3
        assert 'decisions_total{outcome="uncounted"} 3.0' in server.metrics()


def test_shadow_never_rejects(elsewhere: Elsewhere) -> None:
    assert elsewhere.statuses(3, "/quiet") == [200] * 3


def test_a_changed_file_keeps_its_counts(
    elsewhere: Elsewhere,
) -> None:
    """A mistake in the file keeps the last good one in force."""
    assert elsewhere.statuses(3, changing="x") == [200, 200, 429]
    elsewhere.file.write_text(FILE.replace("day, requests_per_unit: 2", "day, requests_per_unit: 4"))
    elsewhere.server.says("descriptors loaded domains=1")
    assert elsewhere.statuses(3, changing="x") == [200, 200, 429]
    elsewhere.file.write_text(FILE.replace("unit: day", "unit: fortnight"))
    elsewhere.server.says("there is no unit 'fortnight'")
    assert "the last good descriptors stay" in elsewhere.server.log
    assert f"{elsewhere.file}:5:" in elsewhere.server.log
    assert elsewhere.statuses(1, changing="x") == [429]
    assert elsewhere.statuses(1, changing="y") == [200]
