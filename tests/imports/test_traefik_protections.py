"""What protects a router of Traefik protects its routes too, or nobody may call them."""

from __future__ import annotations

import pytest

from tests.support.small_imports import Small, small
from xds_server.imports import traefik_rules

SERVERS = 'services: {s: {loadBalancer: {servers: [{url: "http://10.0.0.1:8080"}]}}}'
TLS = "tls: {certificates: [{certFile: shop.crt, keyFile: shop.key}]%s}"


def router(fields: str, middlewares: str = "{}", rest: str = "", services: str = SERVERS) -> Small:
    text = f"http:\n  routers: {{r: {{rule: 'Host(`x.io`)', service: s, {fields}}}}}\n  middlewares: {middlewares}\n  {services}\n{rest}"
    return small("traefik", text)


def two(one: str, other: str) -> Small:
    return router("middlewares: [a, b]", f"{{a: {{{one}}}, b: {{{other}}}}}")


def test_two_lists_of_addresses_must_both_allow() -> None:
    found = two(
        "ipAllowList: {sourceRange: [10.0.0.0/8]}", "ipAllowList: {sourceRange: [10.1.0.0/16, 127.0.0.0/8]}"
    )
    assert found.route("r")["policies"] == {"ip_access": {"allow": ["10.1.0.0/16"]}}
    found = two("ipAllowList: {sourceRange: [10.0.0.0/8]}", "ipAllowList: {sourceRange: [127.0.0.1]}")
    assert found.closed("r")


def test_two_limits_both_hold() -> None:
    found = two("rateLimit: {average: 5}", "rateLimit: {average: 100, period: 1m, burst: 7}")
    assert found.route("r")["policies"]["rate_limit"] == [
        {"requests": 5, "per": "second", "burst": 1, "by": "ip"},
        {"requests": 100, "per": "minute", "burst": 7, "by": "ip"},
    ]
    found = two("rateLimit: {average: 5, burst: 9}", "rateLimit: {average: 8, burst: 2}")
    assert found.route("r")["policies"]["rate_limit"] == {
        "requests": 5,
        "per": "second",
        "burst": 2,
        "by": "ip",
    }
    found = two("inFlightReq: {amount: 5}", "inFlightReq: {amount: 9}")
    assert found.route("r")["policies"]["concurrency"] == {"requests": 5, "by": "route"}


@pytest.mark.parametrize(
    ("period", "expected"), [("10s", (30, "minute")), ("2h", (60, "day")), ("48h", (2, "day"))]
)
def test_any_period_is_a_window(period: str, expected: tuple[int, str]) -> None:
    found = router("middlewares: [a]", f"{{a: {{rateLimit: {{average: 5, period: {period}}}}}}}")
    limit = found.route("r")["policies"]["rate_limit"]
    assert (limit["requests"], limit["per"]) == expected


def test_two_lists_of_users_close_the_route() -> None:
    found = two("basicAuth: {usersFile: users}", "basicAuth: {usersFile: others}")
    assert found.closed("r")
    assert "two lists of users" in found.errors[0]


def test_an_address_from_a_header_closes_the_route() -> None:
    found = router(
        "middlewares: [a]",
        "{a: {ipAllowList: {sourceRange: [10.0.0.0/8], ipStrategy: {depth: 1}, rejectStatusCode: 404}}}",
    )
    assert found.closed("r")
    assert any("rejects with 403" in one for one in found.warnings)


def test_a_router_of_another_entry_point_is_closed() -> None:
    found = router("entryPoints: [internal]")
    assert found.closed("r")
    assert "'internal' is in the static configuration" in found.errors[0]
    found = router("entryPoints: [web, internal]")
    assert not found.closed("r")
    assert not found.errors
    assert "'internal'" in found.warnings[0]


def test_a_router_with_tls_is_never_without() -> None:
    assert router("tls: {certResolver: le}").closed("r")
    assert router("entryPoints: [websecure]").closed("r")
    found = router("tls: {}", rest=TLS % "")
    assert not found.closed("r")
    assert found.route("r")["listeners"] == ["websecure"]
    assert router("observability: {}", rest=TLS % "").route("r")["listeners"] == ["web"]


CLIENTS = ", options: {%s: {minVersion: VersionTLS13, clientAuth: {caFiles: [ca.crt], clientAuthType: %s}}}"


def test_certificates_of_clients_are_demanded_by_the_listener() -> None:
    found = router("tls: {options: strict}", rest=TLS % CLIENTS % ("strict", "RequireAndVerifyClientCert"))
    tls = found.sections["listeners"]["websecure"]["tls"]
    assert tls["client_certificate"] == {"ca": {"file": "ca.crt"}, "required": True}
    assert tls["minimum_version"] == "1.3"
    assert not found.errors
    found = router("tls: {}", rest=TLS % CLIENTS % ("default", "RequireAndVerifyClientCert"))
    assert "client_certificate" in found.sections["listeners"]["websecure"]["tls"]


def test_certificates_of_clients_that_the_listener_cannot_demand_close_the_route() -> None:
    assert router("tls: {options: strict}", rest=TLS % CLIENTS % ("strict", "RequireAnyClientCert")).closed(
        "r"
    )
    assert router("tls: {options: missing}", rest=TLS % "").closed("r")
    found = small(
        "traefik",
        "http:\n  routers:\n    r: {rule: 'Host(`x.io`)', service: s, tls: {options: strict}}\n"
        "    other: {rule: 'Host(`y.io`)', service: s, tls: {}}\n"
        f"  {SERVERS}\n" + TLS % CLIENTS % ("strict", "RequireAndVerifyClientCert"),
    )  # fmt: skip
    assert found.closed("r")
    assert not found.closed("other")


def test_a_weight_of_zero_gets_no_requests() -> None:
    services = (
        "services: {s: {weighted: {services: [{name: a, weight: 1}, {name: b, weight: 0}]}}, "
        'a: {loadBalancer: {servers: [{url: "http://10.0.0.1", weight: 0}, {url: "http://10.0.0.2"}]}}, '
        'b: {loadBalancer: {servers: [{url: "http://10.0.0.3"}]}}}'
    )
    found = router("observability: {}", services=services)
    assert found.route("r")["split"] == {"a": 1, "b": 0}
    assert found.sections["upstreams"]["a"]["endpoints"] == ["10.0.0.2:80"]


def test_other_hosts_that_are_rejected_close_the_route() -> None:
    found = router("middlewares: [a]", "{a: {headers: {allowedHosts: [b.io]}}}")
    assert found.closed("r")
    assert "allowedHosts" in found.errors[0]
    assert not router("middlewares: [a]", "{a: {headers: {allowedHosts: [x.io, b.io]}}}").closed("r")


def test_a_share_of_mirrored_requests_and_the_options_of_a_cookie() -> None:
    services = (
        "services: {s: {mirroring: {service: a, mirrors: [{name: a, percent: 10}]}}, "
        'a: {loadBalancer: {servers: [{url: "http://10.0.0.1"}], sticky: {cookie: {name: c, secure: true, sameSite: strict}}}}}'
    )
    found = router("observability: {}", services=services)
    assert found.route("r")["mirror"] == [{"upstream": "a", "percent": "10%"}]
    assert [one.split(" no ")[1].split()[0] for one in found.warnings] == ["secure", "sameSite"]


def test_a_path_is_plain_text_in_version_3() -> None:
    (found,) = traefik_rules.conditions(traefik_rules.alternatives("Path(`/users/{id}`)")[0])
    assert found["path"] == r"~^/users/\{id\}$"
    (found,) = traefik_rules.conditions(traefik_rules.alternatives("Path(`/x/*`)")[0])
    assert found["path"] == r"~^/x/\*$"


def test_the_syntax_of_version_2_is_reported() -> None:
    text = (
        f"http:\n  routers: {{r: {{rule: 'Path(`/u/{{id}}`)', ruleSyntax: v2, service: s}}}}\n  {SERVERS}\n"
    )
    assert any(
        "patterns of version 2" in one
        for one in [*small("traefik", text).warnings, *small("traefik", text).errors]
    )


def test_hosts_with_more_labels_are_reported() -> None:
    text = f"http:\n  routers: {{r: {{rule: 'HostRegexp(`^[^.]+\\.t\\.io$`) && PathPrefix(`/p/`)', service: s}}}}\n  {SERVERS}\n"
    warnings = small("traefik", text).warnings
    assert any("any number of labels" in one for one in warnings)
    assert not any("also has /px" in one for one in warnings)


def test_a_chain_that_leads_to_itself_closes_the_route() -> None:
    found = router("middlewares: [a]", "{a: {chain: {middlewares: [b]}}, b: {chain: {middlewares: [a]}}}")
    assert found.closed("r")


def test_a_header_host_is_the_host_that_the_service_gets() -> None:
    found = router("middlewares: [a]", "{a: {headers: {customRequestHeaders: {Host: b.io}}}}")
    assert found.route("r")["rewrite"] == {"host": "b.io"}
    assert "policies" not in found.route("r")


def test_a_rule_that_is_nested_too_deeply_never_matches() -> None:
    rule = "(" * 400 + "Host(`a.io`)" + ")" * 400
    found = small("traefik", f"http: {{routers: {{r: {{rule: '{rule}', service: s}}}}, {SERVERS}}}")
    assert found.route("r")["hosts"] == ["not-imported.invalid"]
    assert any("nested too deeply" in one for one in found.warnings)
