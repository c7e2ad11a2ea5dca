"""What an import of Kong or APISIX cannot keep is closed, and reported as an error."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.imports.test_precedence import apisix, gateway_of, imported, kong
from xds_server.imports.draft import CLOSED
from xds_server.imports.kinds import FILE, Imported, import_files

ROUTE = {"name": "r", "paths": ["/r"], "plugins": [{"name": "key-auth"}]}


def sections(found: Imported) -> dict[str, Any]:
    return dict(yaml.safe_load(found.files[FILE].decode().replace("$${", "${")))


def errors(found: Imported) -> list[str]:
    return [one.message for one in found.problems if one.severity == "error"]


@pytest.mark.parametrize("key", ["{vault://env/key}", '${{ env "KEY" }}', ""])
def test_a_reference_is_no_key_of_kong(key: str) -> None:
    consumers = [{"username": "jo", "keyauth_credentials": [{"key": key}]}]
    found = imported("kong", kong(ROUTE) | {"consumers": consumers})
    assert "api_keys" not in sections(found)["consumers"].get("jo", {})
    assert any("the credential is" in one for one in errors(found))


@pytest.mark.parametrize("key", ["$env://KEY", "$secret://vault/1/jo/key", "${{KEY}}", ""])
def test_a_reference_is_no_key_of_apisix(key: str) -> None:
    consumers = [{"username": "jo", "plugins": {"key-auth": {"key": key}}}]
    found = imported("apisix", apisix({"uri": "/r", "plugins": {"key-auth": {}}}) | {"consumers": consumers})
    assert "api_keys" not in sections(found)["consumers"].get("jo", {})
    assert any("the credential is" in one for one in errors(found))


def test_consumers_whose_group_has_plugins_have_no_credentials() -> None:
    limit = {"name": "rate-limiting", "config": {"minute": 5}}
    consumers = [
        {
            "username": "jo",
            "groups": [{"name": "gold"}],
            "keyauth_credentials": [{"key": "a-long-key-of-jo"}],
        },
        {"username": "al", "keyauth_credentials": [{"key": "a-long-key-of-al"}]},
    ]
    groups = [{"name": "gold", "plugins": [limit]}]
    found = imported("kong", kong(ROUTE) | {"consumers": consumers, "consumer_groups": groups})
    assert [name for name, one in sections(found)["consumers"].items() if one and "api_keys" in one] == ["al"]
    assert errors(found)


def test_consumers_of_apisix_with_other_rules_have_no_credentials() -> None:
    key = {"key-auth": {"key": "a-long-key"}}
    consumers = [
        {"username": "jo", "plugins": key, "group_id": "gold"},
        {"username": "al", "plugins": key | {"ip-restriction": {"whitelist": ["10.0.0.0/8"]}}},
        {
            "username": "mo",
            "plugins": key | {"limit-count": {"count": 3, "time_window": 60, "policy": "local"}},
        },
    ]
    found = imported("apisix", apisix({"uri": "/r", "plugins": {"key-auth": {}}}) | {"consumers": consumers})
    assert [name for name, one in sections(found)["consumers"].items() if one and "api_keys" in one] == ["mo"]
    assert len(errors(found)) == 2
    gateway_of(found)


def test_a_route_for_connections_is_no_route_for_requests() -> None:
    found = imported(
        "kong", kong(ROUTE, {"name": "t", "protocols": ["tcp"], "sources": [{"ip": "10.0.0.0/8"}]})
    )
    assert "t" not in sections(found)["routes"]
    assert any("for connections" in one for one in errors(found))


def test_two_consumers_without_username_are_not_mixed_up() -> None:
    consumers = [
        {"custom_id": "one", "keyauth_credentials": [{"key": "a-long-key-of-one"}]},
        {"custom_id": "two", "acls": [{"group": "g"}], "keyauth_credentials": [{"key": "a-long-key-of-two"}]},
    ]
    acl = {"name": "acl", "config": {"allow": ["g"]}}
    source = kong({"name": "r", "paths": ["/r"], "plugins": [{"name": "key-auth"}, acl]}) | {
        "consumers": consumers
    }
    found = sections(imported("kong", source))
    assert "consumers: [two]" in yaml.safe_dump(found, default_flow_style=None)


def test_an_anonymous_consumer_that_is_rejected_closes_the_route() -> None:
    termination = {"name": "request-termination", "config": {"status_code": 401}}
    plugins = [{"name": name, "config": {"anonymous": "nobody"}} for name in ("key-auth", "basic-auth")]
    source = kong({"name": "r", "paths": ["/r"], "plugins": plugins})
    found = imported("kong", source | {"consumers": [{"username": "nobody", "plugins": [termination]}]})
    assert any("callers without credentials" in one for one in errors(found))
    assert "0.0.0.0/0" in found.files[FILE].decode()


@pytest.mark.parametrize("key", ["plugin_config_id", "service_id", "upstream_id"])
def test_a_route_of_apisix_that_names_no_object_is_closed(key: str) -> None:
    found = imported("apisix", apisix({"uri": "/r", key: "nowhere"}))
    assert any(key in one for one in errors(found))
    assert "0.0.0.0/0" in found.files[FILE].decode()


def test_hosts_with_certificates_of_clients_are_closed() -> None:
    ssl = {"snis": ["a.io"], "cert": "c", "key": "k", "client": {"ca": "x"}}
    source = apisix({"uri": "/r", "host": "a.io", "name": "a"}, {"uri": "/r", "host": "b.io", "name": "b"})
    found = sections(imported("apisix", source | {"ssls": [ssl]}))
    assert "policies" in found["routes"]["a"]
    assert "policies" not in found["routes"]["b"]


def test_limits_and_redirects_of_apisix_make_a_gateway_without_mistakes() -> None:
    limit = {"count": 3, "time_window": 60, "allow_degradation": True}
    fault = {"abort": {"http_status": 503, "percentage": 50}}
    to_https = {"redirect": {"http_to_https": True}, "proxy-rewrite": {"regex_uri": ["^/x", "/y"]}}
    source = apisix(
        {"uri": "/a", "plugins": {"limit-count": limit, "fault-injection": fault}},
        {"uri": "/b/*path", "plugins": to_https},
        {"uri": "/c", "plugins": {"limit-req": {"rate": 0.1, "burst": 0, "key": "remote_addr"}}},
        {"uri": "/d", "remote_addrs": ["10.0.0.0/8"]},
        {"uri": "/e", "remote_addrs": ["10.0.0.0/8"]},
    )
    found = imported("apisix", source)
    gateway_of(found)
    assert "requests: 6, per: minute" in found.files[FILE].decode()


def test_a_drained_node_gets_nothing_and_one_of_lower_priority_is_a_backup() -> None:
    nodes = [{"host": f"10.0.0.{number}", "port": 80, "weight": weight, "priority": priority}
             for number, weight, priority in ((1, 1, 0), (2, 0, 0), (3, 1, -1))]  # fmt: skip
    found = sections(imported("apisix", {"routes": [{"id": "1", "uri": "/r", "upstream": {"nodes": nodes}}]}))
    (upstream,) = found["upstreams"].values()
    assert upstream["endpoints"] == ["10.0.0.1:80", {"address": "10.0.0.3:80", "priority": 1}]


def test_the_limit_of_a_route_of_kong_replaces_that_of_its_service() -> None:
    def limit(number: int) -> list[dict[str, Any]]:
        return [{"name": "rate-limiting", "config": {"minute": number}}]

    source = kong({"name": "big", "paths": ["/big"], "plugins": limit(1000)}, {"name": "r", "paths": ["/r"]})
    source["services"][0]["plugins"] = limit(5)
    big = sections(imported("kong", source))["routes"]["big"]
    assert ("use" in big, big["policies"]["rate_limit"]) == (False, ["1000/minute"])


def test_the_host_of_an_upstream_of_kong_is_sent() -> None:
    text = """
_format_version: "3.0"
upstreams:
- {name: named, host_header: shop.internal, targets: [{target: "10.0.0.1:80"}]}
- {name: plain, targets: [{target: "10.0.0.1:80"}]}
services:
- {name: a, host: named, routes: [{name: a, paths: [/a], strip_path: false}]}
- {name: b, host: plain, routes: [{name: b, paths: [/b], strip_path: false}]}
"""
    found = imported("kong", yaml.safe_load(text))
    routes = sections(found)["routes"]
    assert routes["a"]["rewrite"] == {"host": "shop.internal"}
    assert "rewrite" not in routes["b"]
    (told,) = [one for one in found.problems if "name of the target as Host" in one.message]
    assert told.path == ("services", 1)


def test_callers_that_nobody_identifies_are_an_error() -> None:
    route = {"name": "r", "paths": ["/r"], "plugins": [{"name": "acl", "config": {"allow": ["gold"]}}]}
    consumers = [{"username": "jo", "acls": [{"group": "gold"}]}]
    found = imported("kong", kong(route) | {"consumers": consumers})
    gateway_of(found)
    written = sections(found)
    policies = {**written.get("policies", {}), **written["routes"]["r"].get("policies", {})}
    assert policies["ip_access"] == CLOSED["ip_access"]
    assert any("nothing that is imported identifies them" in one for one in errors(found))


def test_a_key_that_is_given_twice_is_an_error() -> None:
    text = b"routes:\n- id: r\n  uri: /d/*\n  plugins: {key-auth: {}}\n  plugins: {cors: {}}\n"
    found = import_files("apisix", {"apisix.yaml": text})
    assert found.files == {}
    assert any("given twice" in one or "twice" in one for one in errors(found)), errors(found)


def test_a_regular_expression_of_a_header_of_kong_is_unknown() -> None:
    guarded = {**ROUTE, "name": "guarded", "headers": {"x-role": ["~*^adm"]}}
    found = imported("kong", kong(guarded, {"name": "open", "paths": ["/r"]}))
    gateway_of(found)
    assert errors(found)


def test_a_global_rule_of_apisix_that_a_route_has_too() -> None:
    route = {"uri": "/r", "plugins": {"key-auth": {}}}
    rules = {"global_rules": [{"id": 1, "plugins": {"key-auth": {}}}]}
    assert errors(imported("apisix", apisix(route) | rules)) == []
    other = {"uri": "/r", "plugins": {"key-auth": {"header": "x-k"}}}
    found = imported("apisix", apisix(other) | rules)
    assert any("both have api_key" in one for one in errors(found))
    assert sections(found)["routes"]
