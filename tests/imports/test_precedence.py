"""What a source protects stays protected, although the source and the language choose routes by different rules."""

from __future__ import annotations

import re
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from xds_server.control_plane.compiler import Compiler
from xds_server.imports.kinds import FILE, Imported, import_files
from xds_server.sources.manifest_folder import ManifestState
from xds_server.translate.explain import Request, explain

KEYS = {"api_key", "basic_auth", "ip_access"}
HASH = "u:$2y$05$1mMSPxnyKDmXbFZ6X8gdDeXdRQ7bHfDWDiPSRuMsyVpiwk6MrkCCW"


def imported(kind: str, source: Any) -> Imported:
    return import_files(kind, {"source.yaml": yaml.safe_dump(source).encode()})


def gateway_of(found: Imported) -> Any:
    state = ManifestState(files={FILE: found.files[FILE]}, contents=found.files)
    return Compiler(translates=False).compile(state).gateway


def answer(gateway: Any, method: str, url: str) -> tuple[str, bool]:
    """Return the route of a request, and whether it is protected or has no route at all."""
    found = explain(gateway, Request(method=method, url=url))
    name = found.route or ""
    is_protected = (
        not name or found.action.startswith("4") or bool({one.key for one in found.policies} & KEYS)
    )
    return name, is_protected


def kong(*routes: dict[str, Any]) -> dict[str, Any]:
    own = [{"strip_path": False, **one} for one in routes]
    return {"_format_version": "3.0", "services": [{"name": "s", "url": "http://127.0.0.1:1", "routes": own}]}


def traefik(**routers: dict[str, Any]) -> dict[str, Any]:
    services = {"s": {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:1"}]}}}
    middlewares = {"auth": {"basicAuth": {"users": [HASH]}}}
    own = {name: {"service": "s", **one} for name, one in routers.items()}
    return {"http": {"routers": own, "services": services, "middlewares": middlewares}}


def apisix(*routes: dict[str, Any]) -> dict[str, Any]:
    upstream = {"nodes": {"127.0.0.1:1": 1}}
    return {"routes": [{"upstream": upstream, "id": str(number), **one} for number, one in enumerate(routes)]}


KEY_AUTH = [{"name": "key-auth"}]


def test_kong_prefers_the_route_with_more_kinds_of_conditions() -> None:
    source = kong(
        {"name": "open", "paths": ["/m/long"]},
        {"name": "shut", "methods": ["POST"], "paths": ["/m"], "plugins": KEY_AUTH},
    )
    gateway = gateway_of(imported("kong", source))
    assert answer(gateway, "POST", "http://x:8000/m/long/a") == ("shut-first", True)
    assert answer(gateway, "GET", "http://x:8000/m/long/a") == ("open", False)


def test_the_second_route_of_a_text_prefix_takes_nothing_from_longer_prefixes() -> None:
    source = kong(
        {
            "name": "a",
            "paths": ["/a"],
            "plugins": [{"name": "ip-restriction", "config": {"allow": ["127.0.0.1"]}}],
        },
        {"name": "ab", "paths": ["/ab"], "plugins": KEY_AUTH},
        {"name": "ac", "paths": ["/ac"]},
    )
    gateway = gateway_of(imported("kong", source))
    found = {
        path: answer(gateway, "GET", f"http://x:8000{path}")[0]
        for path in ("/a", "/ax", "/ab/x", "/abx", "/ac/x")
    }
    assert found == {"/a": "a", "/ax": "a-more", "/ab/x": "ab", "/abx": "ab-more", "/ac/x": "ac"}


def test_the_priority_of_an_expression_leaves_the_other_route_out() -> None:
    source = kong(
        {"name": "wide", "expression": 'http.path ^= "/a"', "priority": 100, "plugins": KEY_AUTH},
        {"name": "narrow", "expression": 'http.path == "/a/b"', "priority": 1},
    )
    found = imported("kong", source)
    assert answer(gateway_of(found), "GET", "http://x:8000/a/b") == ("wide", True)
    assert any("'narrow' is left out" in one.message for one in found.problems)


def test_the_priority_of_a_router_of_traefik_is_kept() -> None:
    source = traefik(
        long={"rule": "PathPrefix(`/admin-with-a-long-name`)", "middlewares": ["auth"]},
        short={"rule": "Host(`a.example.com`)"},
        narrow={"rule": "Path(`/x/y`)", "priority": 1},
        wide={"rule": "PathPrefix(`/x/`)", "priority": 99, "middlewares": ["auth"]},
    )
    gateway = gateway_of(imported("traefik", source))
    assert answer(gateway, "GET", "http://a.example.com/admin-with-a-long-name/x")[1]
    assert answer(gateway, "GET", "http://b.example.com/x/y") == ("wide", True)


def test_a_protected_route_with_unknown_conditions_hands_nothing_to_an_open_one() -> None:
    source = traefik(
        guard={
            "rule": "Host(`a.example.com`) && PathPrefix(`/admin`) && !Method(`PUT`)",
            "middlewares": ["auth"],
        },
        open={"rule": "Host(`a.example.com`)"},
    )
    found = imported("traefik", source)
    assert any(one.severity == "error" and "'guard'" in one.message for one in found.problems)
    gateway = gateway_of(found)
    assert [
        answer(gateway, "GET", f"http://a.example.com{path}")[1] for path in ("/admin/x", "/adminx", "/y")
    ] == [
        True,
        True,
        False,
    ]


def test_apisix_chooses_by_priority_among_routes_of_one_path() -> None:
    source = apisix(
        {"name": "shut", "uri": "/api/*", "priority": 10, "plugins": {"key-auth": {}}},
        {"name": "open", "uri": "/api/*", "methods": ["GET"]},
        {"name": "all", "uri": "/*", "plugins": {"key-auth": {}}},
        {"name": "users", "uri": "/users/*"},
        {"name": "text", "uri": "/t*"},
        {"name": "longer", "uri": "/tx/*", "plugins": {"key-auth": {}}},
    )
    gateway = gateway_of(imported("apisix", source))
    assert answer(gateway, "GET", "http://x:9080/api/1") == ("shut", True)
    assert answer(gateway, "GET", "http://x:9080/users")[1]
    assert answer(gateway, "GET", "http://x:9080/users/1") == ("users", False)
    assert answer(gateway, "GET", "http://x:9080/tx/1") == ("longer", True)


def test_an_own_rule_of_a_route_does_not_open_what_is_closed_for_all() -> None:
    own = {"name": "ip-restriction", "config": {"allow": ["127.0.0.1"]}}
    source = kong({"name": "r", "paths": ["/r"], "plugins": [own]}) | {
        "plugins": [{"name": "openid-connect"}]
    }
    found = imported("kong", source)
    assert "127.0.0.1" not in found.files[FILE].decode().partition("routes:")[2].replace(
        "127.0.0.1:1", ""
    ).replace("host: 127.0.0.1", "")


PATHS = ["/", "/a", "/ab", "/a/b", "/a/", "/a/b/c", "/b"]
TARGETS = [
    "/",
    "/a",
    "/ab",
    "/a/b",
    "/a/x",
    "/ax",
    "/abx",
    "/ab/x",
    "/a/bx",
    "/a/b/c",
    "/a/b/c/d",
    "/b",
    "/bx",
    "/c",
]
HOSTS = ["a.io", "*.a.io", "b.io"]
CALLED = ["a.io", "x.a.io", "b.io"]


@st.composite
def kong_routes(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for number in range(draw(st.integers(2, 4))):
        one: dict[str, Any] = {"name": f"r{number}"}
        if draw(st.booleans()):
            one["hosts"] = [draw(st.sampled_from(HOSTS))]
        if draw(st.booleans()):
            one["methods"] = [draw(st.sampled_from(["GET", "POST"]))]
        path = draw(st.sampled_from([*PATHS, "~/a.*", "~/a/b", "~/.*b$"]))
        one["paths"] = [path]
        if path.startswith("~"):
            one["regex_priority"] = draw(st.integers(0, 2))
        if draw(st.booleans()):
            one["plugins"] = KEY_AUTH
        found.append(one)
    return found


def of_kong(route: dict[str, Any], method: str, host: str, path: str) -> tuple[int, ...] | None:
    """Return what Kong sorts by if a route matches, None if it does not (the traditional router, as documented)."""
    hosts, wanted = route.get("hosts", []), route["paths"][0]
    if hosts and not any(host == one or (one[0] == "*" and host.endswith(one[1:])) for one in hosts):
        return None
    if "methods" in route and method not in route["methods"]:
        return None
    is_regex = wanted.startswith("~")
    if not (re.match(wanted[1:], path) if is_regex else path.startswith(wanted)):
        return None
    kinds = 1 + ("methods" in route) + bool(hosts)
    plain = bool(hosts) and "*" not in hosts[0]
    return (kinds, plain, is_regex, route.get("regex_priority", 0), 0 if is_regex else len(wanted))


def is_shut(route: dict[str, Any]) -> bool:
    return "plugins" in route or "middlewares" in route


@settings(max_examples=150, deadline=None)
@given(kong_routes())
def test_what_kong_protects_is_never_open(routes: list[dict[str, Any]]) -> None:
    gateway = gateway_of(imported("kong", kong(*routes)))
    for host in CALLED:
        for path in TARGETS:
            for method in ("GET", "POST"):
                ranks = [
                    (rank, one) for one in routes if (rank := of_kong(one, method, host, path)) is not None
                ]
                best = max((rank for rank, _ in ranks), default=None)
                winners = [one for rank, one in ranks if rank == best]
                if winners and all(map(is_shut, winners)):
                    assert answer(gateway, method, f"http://{host}:8000{path}")[1], (
                        method,
                        host,
                        path,
                        routes,
                    )


@st.composite
def traefik_routers(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for number in range(draw(st.integers(2, 4))):
        terms = [draw(st.sampled_from(["PathPrefix", "Path"])) + f"(`{draw(st.sampled_from(PATHS))}`)"]
        if draw(st.booleans()):
            terms.insert(0, f"Host(`{draw(st.sampled_from(['a.io', 'b.io']))}`)")
        if draw(st.booleans()):
            terms.append(f"Method(`{draw(st.sampled_from(['GET', 'POST']))}`)")
        one: dict[str, Any] = {"rule": " && ".join(terms)}
        if draw(st.booleans()):
            one["priority"] = draw(st.integers(1, 60))
        if draw(st.booleans()):
            one["middlewares"] = ["auth"]
        found[f"r{number}"] = one
    return found


def of_traefik(router: dict[str, Any], method: str, host: str, path: str) -> int | None:
    """Return the priority of a router if it matches, None if it does not."""
    for name, value in re.findall(r"(\w+)\(`([^`]*)`\)", router["rule"]):
        matches = {
            "Host": host == value,
            "Method": method == value,
            "Path": path == value,
            "PathPrefix": path.startswith(value),
        }[name]
        if not matches:
            return None
    return int(router.get("priority", len(router["rule"])))


@settings(max_examples=150, deadline=None)
@given(traefik_routers())
def test_what_traefik_protects_is_never_open(routers: dict[str, dict[str, Any]]) -> None:
    gateway = gateway_of(imported("traefik", traefik(**routers)))
    for host in CALLED:
        for path in TARGETS:
            for method in ("GET", "POST"):
                ranks = [
                    (rank, one)
                    for one in routers.values()
                    if (rank := of_traefik(one, method, host, path)) is not None
                ]
                best = max((rank for rank, _ in ranks), default=None)
                winners = [one for rank, one in ranks if rank == best]
                if winners and all(map(is_shut, winners)):
                    assert answer(gateway, method, f"http://{host}{path}")[1], (method, host, path, routers)


def test_the_bare_path_of_a_copy_stays_with_the_route_that_has_it() -> None:
    gateway = gateway_of(
        imported(
            "traefik",
            traefik(
                r0={"rule": "Host(`a.io`) && PathPrefix(`/a/`)", "middlewares": ["auth"]},
                r1={"rule": "PathPrefix(`/`)", "middlewares": ["auth"]},
                r2={"rule": "PathPrefix(`/a/`) && Method(`GET`)"},
            ),
        )
    )
    assert answer(gateway, "GET", "http://a.io/a")[1]
    assert not answer(gateway, "GET", "http://a.io/a/b")[1]
