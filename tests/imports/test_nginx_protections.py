"""What protects a location of nginx protects its routes too, or nobody may call them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.small_imports import Small, small

Import = Callable[[str], Small]
PASS = "proxy_pass http://10.0.0.1:8080;"
TLS = "listen 8443 ssl; ssl_certificate shop.crt; ssl_certificate_key shop.key;"
CLIENTS = "ssl_verify_client on; ssl_client_certificate ca.crt;"


@pytest.fixture
def http(tmp_path: Path) -> Import:
    """Import what stands in the block http."""
    return lambda text: small("nginx", f"events {{}}\nhttp {{ {text} }}\n", folder=tmp_path)


@pytest.fixture
def server(http: Import) -> Import:
    """Import what stands in the block of one server."""
    return lambda text: http(f"server {{ server_name a.io; {text} }}")


def test_what_rejects_requests_is_inherited(http: Import, server: Import) -> None:
    found = server(
        f"auth_request /auth; location / {{ {PASS} }} location /open/ {{ auth_request off; {PASS} }}"
    )
    assert found.closed("a.io-root")
    assert not found.closed("a.io-open")
    assert "auth_request" in found.errors[0]
    found = server(f"location /api/ {{ auth_request /auth; {PASS} location /api/v1/ {{ {PASS} }} }}")
    assert found.closed("a.io-api")
    assert found.closed("a.io-api-v1")
    assert http(f"auth_jwt x; server {{ server_name a.io; location / {{ {PASS} }} }}").closed("a.io-root")
    assert server(f"if ($http_x) {{ return 403; }} location / {{ {PASS} }}").closed("a.io-root")


def test_an_outer_location_without_an_upstream_keeps_its_requests(server: Import) -> None:
    found = server(f"location / {{ {PASS} }} location /a/ {{ deny all; location /a/b/ {{ {PASS} }} }}")
    assert found.route("a.io-a")["respond"] == {"status": 501}
    assert found.closed("a.io-a")
    assert found.closed("a.io-a-b")


def test_an_internal_location_has_no_clients(server: Import) -> None:
    found = server(f"location / {{ {PASS} }} location /x/ {{ internal; {PASS} }}")
    assert found.route("a.io-x")["respond"] == {"status": 404}
    assert any("from within only" in one for one in found.warnings)


def test_a_server_listens_where_it_did(http: Import) -> None:
    found = http(
        f"server {{ listen 127.0.0.1:8082; listen [::1]:8082; server_name a.io; location / {{ {PASS} }} }}"
        f"server {{ listen *:8083 proxy_protocol; server_name b.io; location / {{ {PASS} }} }}"
        f"server {{ listen unix:/run/x.sock; server_name c.io; location / {{ {PASS} }} }}"
    )
    assert list(found.sections["listeners"].values()) == [
        {"port": 8082, "address": "127.0.0.1"},
        {"port": 8082, "address": "::1"},
        {"port": 8083, "proxy_protocol": True},
    ]
    assert [one["listeners"] for one in found.sections["routes"].values()] == [
        ["http--1-8082", "http-127.0.0.1-8082"],
        ["http-8083"],
    ]
    assert any("no client reaches the server" in one for one in found.warnings)


def test_certificates_of_http_and_of_clients_are_those_of_the_listener(http: Import) -> None:
    found = http(f"{CLIENTS} server {{ {TLS} server_name a.io; location / {{ {PASS} }} }}")
    tls = found.sections["listeners"]["https-8443"]["tls"]
    assert tls == {
        "certificates": ["shop"],
        "client_certificate": {"ca": {"file": "ca.crt"}, "required": True},
    }
    assert not found.errors
    certificate = "ssl_certificate shop.crt; ssl_certificate_key shop.key;"
    found = http(f"{certificate} server {{ listen 8443 ssl; server_name a.io; location / {{ {PASS} }} }}")
    assert found.sections["listeners"]["https-8443"]["tls"] == {"certificates": ["shop"]}
    assert http(f"server {{ listen 8443 ssl; server_name a.io; location / {{ {PASS} }} }}").closed(
        "a.io-root"
    )


def test_certificates_of_clients_of_one_server_at_a_port_close_its_routes(http: Import) -> None:
    found = http(
        f"server {{ {TLS} {CLIENTS} server_name a.io; location / {{ {PASS} }} }}"
        f"server {{ {TLS} server_name b.io; location / {{ {PASS} }} }}"
    )
    assert found.closed("a.io-root")
    assert not found.closed("b.io-root")
    found = http(f"server {{ {TLS} {CLIENTS} ssl_crl c.pem; server_name a.io; location / {{ {PASS} }} }}")
    assert found.closed("a.io-root")


def test_locations_that_share_an_upstream_have_their_own_tls(http: Import) -> None:
    found = http(
        "upstream be { server 10.0.0.1:8443; } server { server_name a.io;"
        " location /1/ { proxy_pass https://be; proxy_ssl_verify on; proxy_ssl_trusted_certificate ca.crt; proxy_ssl_name x.io; }"
        " location /2/ { proxy_pass https://be; } location /3/ { proxy_pass http://be; } }"
    )
    tls = [
        found.sections["upstreams"][found.route(f"a.io-{one}")["upstream"]].get("tls") for one in (1, 2, 3)
    ]
    assert tls == [{"verify": True, "sni": "x.io", "ca": {"file": "ca.crt"}}, {"verify": False}, None]


def test_locations_share_the_zones_of_limits(http: Import) -> None:
    found = http(
        "limit_req_zone $binary_remote_addr zone=one:1m rate=2r/m; limit_conn_zone $server_name zone=c:1m;"
        "server { server_name a.io; limit_req zone=one; limit_conn c 9;"
        f" location /a/ {{ {PASS} }} location /b/ {{ {PASS} }} location /c/ {{ return 200 ok; }} }}"
    )
    assert found.route("a.io-a")["use"] == found.route("a.io-b")["use"] == ["limit-one", "connections-c-9"]
    assert "use" not in found.route("a.io-c")
    assert found.sections["policy_sets"] == {
        "limit-one": {"rate_limit": {"requests": 2, "per": "minute", "by": "ip"}},
        "connections-c-9": {"concurrency": {"requests": 9, "by": "route"}},
    }


def test_addresses_from_a_header_close_the_route(server: Import) -> None:
    found = server(f"set_real_ip_from 10.0.0.0/8; deny 192.0.2.1; location / {{ {PASS} }}")
    assert found.closed("a.io-root")
    assert not server(f"set_real_ip_from 10.0.0.0/8; location / {{ {PASS} }}").closed("a.io-root")


def test_allow_without_deny_rejects_nobody(server: Import) -> None:
    assert "policies" not in server(f"allow all; location / {{ {PASS} }}").route("a.io-root")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", {"host": "10.0.0.1:8080"}),
        ("proxy_set_header Host internal.io;", {"host": "internal.io"}),
        ("proxy_set_header Host $http_host;", None),
    ],
)
def test_the_host_that_the_upstream_gets(server: Import, header: str, expected: object) -> None:
    assert server(f"location / {{ {header} {PASS} }}").route("a.io-root").get("rewrite") == expected


def test_values_that_have_no_place_are_reported(server: Import) -> None:
    found = server(
        f"add_header Link a; add_header Link b; location / {{ add_header Link a; add_header Link b;"
        f" proxy_set_header X-Forwarded-Proto https; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; {PASS} }}"
    )
    assert found.route("a.io-root")["policies"]["response_headers"] == {
        "set": {"link": "a"},
        "add": {"link": "b"},
    }
    assert [one.partition(" itself")[0] for one in found.warnings] == ["Envoy writes x-forwarded-proto"]


def test_a_body_has_the_bound_of_nginx(server: Import) -> None:
    found = server(f"location / {{ {PASS} }} location /u/ {{ client_max_body_size 0; {PASS} }}")
    assert found.route("a.io-root")["max_body"] == 1 << 20
    assert "max_body" not in found.route("a.io-u")


def test_redirects_with_variables(server: Import) -> None:
    found = server(
        "location /a/ { return 301 https://$host/new$request_uri; } location /b/ { return 301 https://b.io:8443$request_uri; }"
    )
    assert found.route("a.io-a")["respond"] == {"status": 501}
    assert found.route("a.io-b")["redirect"] == {
        "scheme": "https",
        "host": "b.io",
        "port": 8443,
        "status": 301,
    }


def test_a_location_may_get_other_conditions_twice(server: Import) -> None:
    found = server(
        f"""
        auth_basic R; auth_basic_user_file users;
        location / {{ {PASS} }}
        location ^~ /st/ {{ auth_basic off; {PASS} location /st/deep/ {{ {PASS} }} }}
        location ~* ^/API/ {{ allow 10.0.0.0/8; deny all; {PASS} }}
        location /empty {{ auth_basic ""; {PASS} }}
        """
    )
    assert "basic_auth" in str(found.route("a.io-root"))
    assert "realm" not in str(found.route("a.io-empty"))


def test_regular_expressions_of_a_location_match_inside_of_it(server: Import) -> None:
    found = server(
        f"""
        location / {{ deny all; {PASS} }}
        location /st/ {{ {PASS} location ~ \\.key$ {{ {PASS} }} location ~ /in/ {{ {PASS} }} location ~ ^/other/ {{ {PASS} }} }}
        """
    )
    paths = [one["path"] for one in found.sections["routes"].values()]
    assert "~^/st/.*\\.key$" in paths
    assert "~^/st(?:/.*)?/in/.*" in paths
    assert not any("other" in one for one in paths if one.startswith("~"))


def test_locations_in_one_without_regular_expressions_have_none_either(server: Import) -> None:
    found = server(
        f"""
        location ^~ /st/ {{ {PASS} location /st/deep/ {{ deny all; {PASS} }} location ~ \\.key$ {{ deny all; {PASS} }} }}
        location / {{ {PASS} }}
        location ~ \\.png$ {{ {PASS} }}
        """
    )
    routes = list(found.sections["routes"].values())
    denied = [one["path"] for one in routes if "ip_access" in one.get("policies", {}) or "use" in one]
    assert any(one.startswith("~") and "/st/deep" in one for one in denied), routes
    assert any("key" in one for one in denied), routes


def test_names_of_servers_that_have_no_equal_are_an_error(http: Import) -> None:
    found = http(
        f"""
        server {{ listen 80 default_server; server_name _; location / {{ {PASS} }} }}
        server {{ listen 80; server_name mail.*; deny all; location / {{ {PASS} }} }}
        server {{ listen 80; server_name .b.io; deny all; location / {{ {PASS} }} }}
        """
    )
    assert any("mail.*" in one for one in found.errors)
    assert found.route("b.io-root")["hosts"] == ["b.io", "*.b.io"]


def test_what_no_location_of_a_server_has_does_not_go_to_another_server(http: Import) -> None:
    found = http(
        f"""
        server {{ listen 80; server_name y.x.io; deny all; location /p {{ {PASS} }} }}
        server {{ listen 80; server_name *.x.io; location / {{ {PASS} }} }}
        """
    )
    assert found.route("y.x.io-rest")["hosts"] == ["y.x.io"]
    assert found.route("y.x.io-rest")["respond"] == {"status": 404}


def test_a_regular_expression_that_is_none_here_never_matches(server: Import) -> None:
    found = server(f"location ~ ^/t(?!x) {{ deny all; {PASS} }} location / {{ {PASS} }}")
    assert found.closed("a.io-root")
    assert found.errors
    assert any("have no equal, so the route never matches" in one for one in found.warnings)
