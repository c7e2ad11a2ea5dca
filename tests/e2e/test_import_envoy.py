"""A configuration of Envoy and what is imported of it, each in a real Envoy: the same requests have the same results."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.envoy import Envoy
from tests.support.gateway import Gateways
from tests.support.ports import free_port
from xds_server.imports.kinds import FILE, import_files

CONFIGURATION = string.Template("""
static_resources:
  listeners:
    - name: http
      address: {socket_address: {address: 127.0.0.1, port_value: $port}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: edge
                normalize_path: true
                merge_slashes: true
                route_config:
                  request_headers_to_add: [{header: {key: x-edge, value: outer}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
                  virtual_hosts:
                    - name: api
                      domains: [api.example.com, "*.api.example.com"]
                      routes:
                        - {match: {path: /health}, direct_response: {status: 203, body: {inline_string: fine}}}
                        - match: {path_separated_prefix: /orders, headers: [{name: ":method", string_match: {safe_regex: {regex: "GET|HEAD"}}}]}
                          route: {cluster: one, prefix_rewrite: /v2/orders}
                        - {match: {path_separated_prefix: /orders}, route: {cluster: two, host_rewrite_literal: orders.internal}}
                        - match: {safe_regex: {regex: "/items/[0-9]+"}}
                          route: {cluster: one, regex_rewrite: {pattern: {regex: "^/items/([0-9]+)"}, substitution: '/item-\\\\1'}}
                        - match: {path: /new, query_parameters: [{name: beta, string_match: {exact: "1"}}]}
                          route: {cluster: two}
                        - {match: {path: /new, headers: [{name: x-old, present_match: true, invert_match: true}]}, route: {cluster: one}}
                        - match: {path_separated_prefix: /old}
                          redirect: {host_redirect: new.example.com, prefix_rewrite: /now, response_code: PERMANENT_REDIRECT}
                    - name: rest
                      domains: ["*"]
                      response_headers_to_add: [{header: {key: x-rest, value: "1"}}]
                      routes:
                        - match: {path: /token/open}
                          route: {cluster: one}
                        - {match: {path_separated_prefix: /token}, route: {cluster: one}}
                        - match: {path: /limited}
                          route: {cluster: one}
                          typed_per_filter_config:
                            envoy.filters.http.local_ratelimit:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
                              stat_prefix: limited
                              token_bucket: {max_tokens: 2, tokens_per_fill: 1, fill_interval: 3600s}
                              filter_enabled: {default_value: {numerator: 100}}
                              filter_enforced: {default_value: {numerator: 100}}
                        - match: {path: /inner}
                          route: {cluster: one}
                          typed_per_filter_config:
                            envoy.filters.http.rbac:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute
                              rbac:
                                rules: {action: DENY, policies: {here: {permissions: [{any: true}], principals: [{remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}]}}}
                        - match: {path: /both-other}
                          route: {cluster: one}
                          typed_per_filter_config:
                            envoy.filters.http.rbac:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute
                              rbac:
                                rules: {action: ALLOW, policies: {here: {permissions: [{any: true}], principals: [{remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}]}}}
                            envoy.filters.http.rbac.second:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute
                              rbac:
                                rules: {action: ALLOW, policies: {here: {permissions: [{any: true}], principals: [{remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}]}}}
                        - match: {path: /both-here}
                          route: {cluster: one}
                          typed_per_filter_config:
                            envoy.filters.http.rbac:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute
                              rbac:
                                rules: {action: ALLOW, policies: {here: {permissions: [{any: true}], principals: [{remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}]}}}
                            envoy.filters.http.rbac.second:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute
                              rbac:
                                rules: {action: ALLOW, policies: {here: {permissions: [{any: true}], principals: [{remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}]}}}
                        - {match: {prefix: /}, route: {cluster: two}}
                    - name: secure
                      domains: [secure.example.com]
                      require_tls: ALL
                      routes: [{match: {prefix: /}, route: {cluster: one}}]
                http_filters:
                  - name: envoy.filters.http.jwt_authn
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
                      providers:
                        idp:
                          issuer: $issuer
                          audiences: [shop]
                          local_jwks: {inline_string: '$jwks'}
                          claim_to_headers: [{header_name: x-user, claim_name: sub}]
                      rules:
                        - {match: {path: /token/open}}
                        - {match: {path_separated_prefix: /token}, requires: {provider_name: idp}}
                  - name: envoy.filters.http.rbac
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}
                  - name: envoy.filters.http.rbac.second
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}
                  - name: envoy.filters.http.local_ratelimit
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: none}
                  - name: envoy.filters.http.router
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
    - {name: one, load_assignment: {cluster_name: one, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $one}}}}]}]}}
    - {name: two, load_assignment: {cluster_name: two, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $two}}}}]}]}}
""")
TOKEN = {"authorization": f"Bearer {tokens.token()}"}
HOST = {"host": "api.example.com"}
REQUESTS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("GET", "/health", HOST),
    ("GET", "/orders", HOST),
    ("GET", "/orders/7?a=1", HOST),
    ("HEAD", "/orders/7", HOST),
    ("POST", "/orders/7", HOST),
    ("GET", "/ordersx", HOST),
    ("GET", "/items/12", HOST),
    ("GET", "/items/x", HOST),
    ("GET", "/new?beta=1", HOST),
    ("GET", "/new", HOST),
    ("GET", "/new", {**HOST, "x-old": "1"}),
    ("GET", "/old/page?q=1", HOST),
    ("GET", "/nothing", HOST),
    ("GET", "/orders//7", {"host": "eu.api.example.com"}),
    ("GET", "/orders/7", {"host": "other.example.com"}),
    ("GET", "/token/open", {}),
    ("GET", "/token/x", {}),
    ("GET", "/token/x", TOKEN),
    ("GET", "/token", {"authorization": "Bearer wrong"}),
    ("GET", "/inner", {}),
    ("GET", "/both-other", {}),
    ("GET", "/both-here", {}),
    ("GET", "/orders/7?a=1", {"host": "secure.example.com"}),
    ("GET", "/limited", {}),
    ("GET", "/limited", {}),
    ("GET", "/limited", {}),
    ("GET", "/", {}),
    ("GET", "/closed", {}),
    ("GET", "/closed/x", {}),
    ("GET", "/closed.html", {}),
    ("GET", "/close", {}),
    ("GET", "/locked/x", {}),
    ("GET", "/locked-x", {}),
)


class Result(NamedTuple):
    """What a client sees, and what the service saw."""

    status: int
    location: str | None
    rest: str | None
    service: Any


class Both(NamedTuple):
    """Where the configuration runs as it is, and where what is imported of it runs."""

    theirs: str
    ours: str


@pytest.fixture(scope="module")
def both(gateways: Gateways, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder, port = tmp_path_factory.mktemp("envoy"), free_port()
    with Backend("one") as one, Backend("two") as two:
        values = {
            "port": port,
            "one": one.port,
            "two": two.port,
            "issuer": tokens.ISSUER,
            "jwks": tokens.jwks(),
        }
        text = CONFIGURATION.substitute(values)
        with Envoy(yaml.safe_load(text), folder) as envoy:
            envoy.ready()
            imported = import_files("envoy", {"envoy.yaml": text.encode()})
            assert not [one for one in imported.problems if one.severity == "error"]
            mine = imported.files[FILE].decode().replace("$", "$$").replace(str(port), "$port")
            files = {name: content.decode() for name, content in imported.files.items() if name != FILE}
            yield Both(f"http://127.0.0.1:{port}", gateways.start(mine, files=files).url)


def _result(url: str, method: str, path: str, headers: dict[str, str]) -> Result:
    found = httpx.request(method, url + path, headers=headers, timeout=30)
    service: Any = None
    if (
        found.headers.get("content-type", "").startswith("application/json")
        and found.status_code == 200
        and found.content
    ):
        seen = found.json()
        kept = {name: seen["headers"].get(name) for name in ("host", "x-edge", "x-user", "authorization")}
        service = (seen["backend"], seen["method"], seen["path"], kept)
    return Result(found.status_code, found.headers.get("location"), found.headers.get("x-rest"), service)


def test_the_same_requests_have_the_same_results(both: Both) -> None:
    for method, path, headers in REQUESTS:
        named = {"host": "rest.example.com", **headers}
        assert _result(both.ours, method, path, named) == _result(both.theirs, method, path, named), (
            method,
            path,
        )


@pytest.mark.parametrize(
    ("filters", "right", "wrong"),
    [
        (
            {"@type": "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
             "credentials": [{"key": "key-of-alice-0123456789", "client": "alice"}], "key_sources": [{"header": "x-key"}]},
            {"x-key": "key-of-alice-0123456789"},
            {"x-key": "wrong"},
        ),
        (
            {"@type": "type.googleapis.com/envoy.extensions.filters.http.basic_auth.v3.BasicAuth",
             "users": {"inline_string": "ann:{SHA}dEy5qfs9VYN0TqPs6bTYGdkL3uI=\n"}},
            {"authorization": "Basic " + base64.b64encode(b"ann:ann").decode()},
            {"authorization": "Basic " + base64.b64encode(b"ann:bob").decode()},
        ),
    ],
)  # fmt: skip
def test_callers_are_the_same(
    gateways: Gateways,
    backend: Backend,
    tmp_path: Path,
    filters: dict[str, Any],
    right: dict[str, str],
    wrong: dict[str, str],
) -> None:
    port = free_port()
    named = lambda name, config: {"name": name, "typed_config": config}  # noqa: E731
    package = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{package}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
                                            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "echo"}}]}]},
        "http_filters": [named("caller", filters), named("router", {"@type": f"{package}.http.router.v3.Router"})],
    }  # fmt: skip
    endpoint = {
        "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": backend.port}}}
    }
    cluster = {
        "name": "echo",
        "load_assignment": {"cluster_name": "echo", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [named("manager", manager)]}],
    }
    bootstrap = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
    imported = import_files("envoy", {"envoy.json": json.dumps(bootstrap).encode()})
    assert not [one for one in imported.problems if one.severity == "error"]
    text = imported.files[FILE].decode().replace("$", "$$").replace(str(port), "$port")
    files = {name: content.decode() for name, content in imported.files.items() if name != FILE}
    ours = gateways.start(text, files=files)
    with Envoy(bootstrap, tmp_path) as envoy:
        envoy.ready()
        for headers, status in ((right, 200), (wrong, 401), ({}, 401)):
            theirs = httpx.get(f"http://127.0.0.1:{port}/x", headers=headers, timeout=30)
            assert [theirs.status_code, ours.get("/x", headers=headers).status_code] == [status, status]


def test_what_has_no_equal_is_closed(gateways: Gateways) -> None:
    text = CONFIGURATION.substitute(port=1, one=1, two=1, issuer="x", jwks="{}")
    values = yaml.safe_load(text)
    manager = values["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    package = "type.googleapis.com/envoy.extensions.filters.http"
    manager["http_filters"][0] = {
        "name": "authz",
        "typed_config": {"@type": f"{package}.ext_authz.v3.ExtAuthz"},
    }
    values["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = 12345
    imported = import_files("envoy", {"envoy.yaml": yaml.safe_dump(values).encode()})
    assert "ExtAuthz has no equal, so its routes are closed" in "".join(map(str, imported.problems))
    gateway = gateways.start(imported.files[FILE].decode().replace("$", "$$").replace("12345", "$port"))
    statuses = {gateway.get(path, headers=HOST).status_code for path in ("/health", "/orders", "/new?beta=1")}
    assert statuses == {403}


def test_names_in_camel_case_are_an_error() -> None:
    found = import_files("envoy", {"envoy.yaml": b"staticResources: {listeners: []}"})
    assert [
        "'staticResources' is not read" in str(one) for one in found.problems if one.severity == "error"
    ] == [True]
