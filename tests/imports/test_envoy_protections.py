"""What protects a listener or a route of Envoy protects what becomes of it too, or nobody may call it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.small_imports import Small, small

HTTP = "type.googleapis.com/envoy.extensions.filters.http"
NETWORK = "type.googleapis.com/envoy.extensions.filters.network"
ROUTER = {"name": "router", "typed_config": {"@type": f"{HTTP}.router.v3.Router"}}
TCP = {
    "name": "tcp",
    "typed_config": {"@type": f"{NETWORK}.tcp_proxy.v3.TcpProxy", "stat_prefix": "t", "cluster": "c"},
}


def rules(address: str, bits: int, action: str = "ALLOW") -> dict[str, Any]:
    principal = {"direct_remote_ip": {"address_prefix": address, "prefix_len": bits}}
    return {"action": action, "policies": {"p": {"permissions": [{"any": True}], "principals": [principal]}}}


def rbac(name: str, found: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{HTTP}.rbac.v3.RBAC", "rules": found}}


def bootstrap(chain: dict[str, Any]) -> Small:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}}}}
    cluster = {
        "name": "c",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {
        "name": "l",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 8080}},
        "filter_chains": [chain],
    }
    return small("envoy", json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))


def manager(*filters: dict[str, Any], **host: Any) -> Small:
    routes = [{"name": "r", "match": {"prefix": "/"}, "route": {"cluster": "c"}}]
    config = {
        "@type": f"{NETWORK}.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "route_config": {
            "name": "all",
            "virtual_hosts": [{"name": "v", "domains": ["a.io"], "routes": routes, **host}],
        },
        "http_filters": [*filters, ROUTER],
    }
    return bootstrap({"filters": [{"name": "hcm", "typed_config": config}]})


@pytest.mark.parametrize(
    "chain",
    [
        {
            "filters": [
                {
                    "name": "n",
                    "typed_config": {"@type": f"{NETWORK}.rbac.v3.RBAC", "rules": rules("10.0.0.0", 8)},
                },
                TCP,
            ]
        },
        {
            "filter_chain_match": {"source_prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]},
            "filters": [TCP],
        },
    ],
)
def test_a_protected_stream_has_no_endpoints(chain: dict[str, Any]) -> None:
    found = bootstrap(chain)
    (route,) = found.sections["stream_routes"].values()
    assert found.sections["upstreams"][route["upstream"]] == {"endpoints": []}
    assert "closed" in found.errors[0]


def test_two_lists_of_addresses_both_hold() -> None:
    found = manager(rbac("a", rules("10.0.0.0", 8)), rbac("b", rules("10.1.0.0", 16)))
    assert found.route("r")["policies"] == {"ip_access": {"allow": ["10.1.0.0/16"]}}
    found = manager(rbac("a", rules("10.0.0.0", 8)), rbac("b", rules("10.1.0.0", 16, "DENY")))
    assert found.route("r")["policies"] == {"ip_access": {"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"]}}
    assert manager(rbac("a", rules("10.0.0.0", 8)), rbac("b", rules("192.0.2.0", 24))).closed("r")


def test_two_filters_that_cannot_both_hold_close_the_route() -> None:
    users = [
        {
            "name": name,
            "typed_config": {"@type": f"{HTTP}.basic_auth.v3.BasicAuth", "users": {"filename": name}},
        }
        for name in ("users", "others")
    ]
    found = manager(*users)
    assert found.closed("r")
    assert "two filters that become basic_auth" in found.errors[0]


def test_a_host_that_demands_tls_redirects_to_it() -> None:
    found = manager(require_tls="ALL")
    assert found.sections["routes"] == {
        "v": {
            "hosts": ["a.io"],
            "listeners": ["l"],
            "path": "/*",
            "redirect": {"scheme": "https", "status": 301},
        }
    }
    assert not found.errors


def test_a_protected_route_that_never_matches_leaves_its_requests_to_no_open_one() -> None:
    authority = {"name": ":authority", "string_match": {"suffix": ".io"}}
    own = {"rbac": {"@type": f"{HTTP}.rbac.v3.RBACPerRoute", "rbac": {"rules": rules("10.0.0.0", 8)}}}
    routes = [
        {"name": "shut", "match": {"prefix": "/a", "headers": [authority]}, "route": {"cluster": "c"}, "typed_per_filter_config": own},
        {"name": "open", "match": {"prefix": "/"}, "route": {"cluster": "c"}},
    ]  # fmt: skip
    found = manager({"name": "rbac", "typed_config": {"@type": f"{HTTP}.rbac.v3.RBAC"}}, routes=routes)
    assert found.errors
    closed = [one["path"] for name, one in found.sections["routes"].items() if found.closed(name)]
    assert closed == ["~^/a.*$"]
