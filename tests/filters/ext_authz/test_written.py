"""ext_authz as it is written: mistakes with their places, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from envoy.config.core.v3 import extension_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2

from protos import rules_pb2
from tests.support.folder import compiled, write
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.discovery.types import CLUSTER, EXTENSION_CONFIG, LISTENER, ROUTE, custom
from xds_server.errors import InvalidGateway
from xds_server.sources.folder import read_folder

POLICY = custom("python_policy", "gateway.rules.v1.PythonPolicy")
CLUSTER_NAME = "xds/policy-server"


def gateway(settings: str) -> str:
    return f"""
    listeners: {{http: {{port: 8080}}}}
    upstreams: {{echo: {{endpoints: [127.0.0.1:1]}}}}
    routes:
      a:
        path: /a
        upstream: echo
        policies:
          ext_authz: {settings}
    """


def compile_(folder: Path, settings: str, **files: str) -> Compiled:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return compiled(write(folder, gateway=gateway(settings)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{python: p.py:check}", "p.py:2: "),
        ("{python: p.py:other}", "p.py has no function 'other'"),
        ("{python: missing.py:check}", "the file cannot be read"),
        ("{python: p.py}", "not a function of a file"),
        ("{python: {file: p.py, function: other}}", "has no function 'other'"),
        ("{python: {inline: x}}", "exactly one of|a policy must be in a file"),
        ("{}", "exactly one of 'python', 'grpc' and 'http'"),
        ("{python: p.py:good, grpc: echo}", "exactly one of"),
        ("{grpc: nobody}", "there is no 'nobody' in upstreams"),
        ("{http: nobody}", "there is no 'nobody' in upstreams"),
        ("{http: {upstream: echo}, context: {a: b}}", "'context' is for a gRPC service"),
        ("{grpc: echo, body: {max: 2MiB}}", "expected a value from 1"),
        ("{grpc: echo, headers: [a]}", "'headers' is for a function in Python"),
        ("{python: p.py:good, headers: [a, 'b c']}", "'b c' is not a header's name"),
        ("{grpc: echo, timeout: 0s}", "expected a value from"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, settings: str, message: str) -> None:
    source = "def good(r): ...\ndef check(:\n" if "check" in settings else "def good(r): ...\n"
    with pytest.raises(InvalidGateway, match=message) as error:
        compile_(tmp_path, settings, p=source)
    assert all(problem.place is not None for problem in error.value.problems)


def test_a_source_is_a_rule_and_a_change_of_it_changes_no_listener(tmp_path: Path) -> None:
    compiler = Compiler({})
    (tmp_path / "p.py").write_text("def check(r): ...\n")
    write(tmp_path, gateway=gateway("{python: p.py:check}"))
    first = compiler.compile(read_folder(tmp_path)).snapshot
    (tmp_path / "p.py").write_text("def check(r): return 1\n")
    second = compiler.compile(read_folder(tmp_path)).snapshot
    changed = second.diff(first)
    assert {type_.message: one.changed for type_, one in changed.items()} == {
        "gateway.rules.v1.PythonPolicy": ("p.py:check",)
    }
    rule = rules_pb2.PythonPolicy.FromString(second[POLICY]["p.py:check"].body)
    assert (rule.file, rule.function, rule.source) == ("p.py", "check", b"def check(r): return 1\n")


def test_a_source_that_becomes_faulty_is_found_though_no_yaml_changed(tmp_path: Path) -> None:
    compiler = Compiler({})
    (tmp_path / "p.py").write_text("def check(r): ...\n")
    write(tmp_path, gateway=gateway("{python: p.py:check}"))
    compiler.compile(read_folder(tmp_path))
    (tmp_path / "p.py").write_text("def check(r)\n")
    with pytest.raises(InvalidGateway, match=r"p\.py:1: "):
        compiler.compile(read_folder(tmp_path))


def test_files_that_a_policy_imports_go_with_it(
    tmp_path: Path,
) -> None:
    """A change of such a file is a change of the rule."""
    (tmp_path / "policies").mkdir()
    compiler, common = Compiler({}), tmp_path / "policies" / "common.py"
    (tmp_path / "policies" / "p.py").write_text(
        "from policies.more import x\nimport json\ndef check(r): ...\n"
    )
    (tmp_path / "policies" / "more.py").write_text("from .common import x\n")
    common.write_text("x = 1\n")
    folder = read_folder(write(tmp_path, gateway=gateway("{python: policies/p.py:check}")))
    first = compiler.compile(folder).snapshot
    assert {common, tmp_path / "policies" / "more.py"} <= folder.reads
    rule = rules_pb2.PythonPolicy.FromString(first[POLICY]["policies/p.py:check"].body)
    assert {one.file: one.source for one in rule.modules} == {
        "policies/common.py": b"x = 1\n",
        "policies/more.py": b"from .common import x\n",
    }
    common.write_text("x = 2\n")
    changed = compiler.compile(read_folder(tmp_path)).snapshot.diff(first)
    assert [one.changed for one in changed.values()] == [("policies/p.py:check",)]
    common.write_text("x = (\n")
    with pytest.raises(InvalidGateway, match=r"policies/common\.py:1: "):
        compiler.compile(read_folder(tmp_path))


def test_the_source_is_watched(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("def check(r): ...\n")
    folder = read_folder(write(tmp_path, gateway=gateway("{python: p.py:check}")))
    Compiler({}).compile(folder)
    assert tmp_path / "p.py" in folder.reads


def test_the_policy_server_is_a_cluster_only_where_a_policy_needs_it(tmp_path: Path) -> None:
    plain = compile_(tmp_path, "{grpc: echo}").snapshot
    assert CLUSTER_NAME not in plain[CLUSTER]
    asked = compile_(tmp_path, "{python: p.py:check}", p="def check(r): ...\n").snapshot
    assert CLUSTER_NAME in asked[CLUSTER]
    assert asked[LISTENER] == plain[LISTENER]


def test_what_policies_say_that_they_see_is_all_that_envoy_shows(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("def check(r): ...\n")
    text = gateway("{python: p.py:check, headers: [X-One, cookie]}")
    snapshot = compiled(write(tmp_path, gateway=text)).snapshot
    (host,) = route_pb2.RouteConfiguration.FromString(snapshot[ROUTE]["0.0.0.0:8080"].body).virtual_hosts
    packed = next(one for one in host.routes if one.name == "a").typed_per_filter_config
    checks = ext_authz_pb2.ExtAuthzPerRoute.FromString(packed["xds.ext_authz.headers"].value).check_settings
    assert checks.context_extensions["headers"] == "x-one,cookie"
    extension = extension_pb2.TypedExtensionConfig.FromString(
        snapshot[EXTENSION_CONFIG]["xds.ext_authz.headers"].body
    )
    shown = ext_authz_pb2.ExtAuthz.FromString(extension.typed_config.value).allowed_headers
    assert [one.exact for one in shown.patterns] == [
        "x-one",
        "cookie",
        "x-envoy-external-address",
        "x-request-id",
    ]


@pytest.mark.parametrize("more", ["on_error: allow", "limit"])
def test_where_others_see_more_all_headers_are_shown(tmp_path: Path, more: str) -> None:
    (tmp_path / "p.py").write_text("def check(r): ...\n")
    limited = more == "limit"
    text = gateway(f"{{python: p.py:check, headers: [a]{'' if limited else ', ' + more}}}")
    if limited:
        text = text.replace("policies:\n", "policies:\n          rate_limit: 5/hour\n")
    snapshot = compiled(write(tmp_path, gateway=text)).snapshot
    (host,) = route_pb2.RouteConfiguration.FromString(snapshot[ROUTE]["0.0.0.0:8080"].body).virtual_hosts
    packed = next(one for one in host.routes if one.name == "a").typed_per_filter_config
    assert "xds.ext_authz.headers" not in packed


def test_a_route_says_which_policy_how_long_and_what_it_needs(tmp_path: Path) -> None:
    text = gateway("{python: p.py:check, timeout: 50ms, on_error: allow, body: true}").replace(
        "path: /a", 'path: "/a/{id}"'
    )
    (tmp_path / "p.py").write_text("def check(r): ...\n")
    snapshot = compiled(write(tmp_path, gateway=text)).snapshot
    (host,) = route_pb2.RouteConfiguration.FromString(snapshot[ROUTE]["0.0.0.0:8080"].body).virtual_hosts
    packed = next(one for one in host.routes if one.name == "a").typed_per_filter_config
    assert "xds.ext_authz" not in packed
    checks = ext_authz_pb2.ExtAuthzPerRoute.FromString(
        packed["xds.ext_authz.body.on_error_allow"].value
    ).check_settings
    assert dict(checks.context_extensions) == {
        "policy": "p.py:check", "route": "a", "timeout": "0.05", "body": "true", "path": "/a/(?P<id>[^/]+)",
    }  # fmt: skip
    assert (checks.with_request_body.max_request_bytes, checks.grpc_service.timeout.nanos) == (
        8192,
        50_000_000,
    )
