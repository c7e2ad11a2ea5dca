"""ext_proc as it is written: mistakes with their places, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.ext_proc.v3 import ext_proc_pb2
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode

from filters.processing.names import CHAIN, FILTER
from protos import rules_pb2
from tests.support.folder import compiled, write
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.discovery.types import EXTENSION_CONFIG, LISTENER, ROUTE, custom
from xds_server.errors import InvalidGateway
from xds_server.sources.folder import read_folder

PROCESSOR = custom("python_processor", "gateway.rules.v1.PythonProcessor")
HEAD = "from filters.ext_proc import Processor\n"
HEADERS = "    async def request_headers(self, request): ...\n"
WHOLE = "    async def response_body(self, request, response, body): ...\n"
PIECES = "    async def response_chunk(self, request, response, chunk, last): ...\n"
SOURCE = (
    f"{HEAD}class Headers(Processor):\n{HEADERS}class Whole(Processor):\n{HEADERS}{WHOLE}"
    f"class Pieces(Processor):\n{PIECES}class Nothing(Processor): ...\n"
)


def gateway(settings: str, route: str = "upstream: echo") -> str:
    return f"""
listeners: {{http: {{port: 8080}}}}
upstreams: {{echo: {{endpoints: [127.0.0.1:1]}}, calls: {{endpoints: [127.0.0.1:1], protocol: grpc}}}}
routes:
  a:
    path: "/a/{{id}}/50%25"
    {route}
    policies:
      ext_proc: {settings}
"""


def compile_(folder: Path, settings: str, route: str = "upstream: echo", source: str = SOURCE) -> Compiled:
    (folder / "p.py").write_text(source)
    return compiled(write(folder, gateway=gateway(settings, route)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{python: p.py:Other}", "p.py has no class 'Other' at its top level .*; correct the class"),
        ("{python: p.py:Nothing}", "the class Nothing of p.py has none of the methods request_body"),
        ("{python: missing.py:P}", "the file cannot be read"),
        ("{python: p.py}", "not a class of a file .*; write policies/rename.py:Rename"),
        ("{python: {file: p.py, class: Other}}", "has no class 'Other'"),
        ("{python: {inline: x, class: P}}", "a processor must be in a file"),
        ("{}", "python"),
        ("{python: p.py:Headers, timeout: 0s}", "expected a value from"),
        ("{python: p.py:Headers, max_body: 4MiB}", "expected a value from 1"),
        ("{python: p.py:Headers, on_error: maybe}", "on_error"),
        ("{python: p.py:Headers, body: true}", "body"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, settings: str, message: str) -> None:
    with pytest.raises(InvalidGateway, match=message) as error:
        compile_(tmp_path, settings)
    assert all(problem.place is not None for problem in error.value.problems)


def test_a_syntax_error_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidGateway, match=r"p.py:2: expected ':'"):
        compile_(tmp_path, "{python: p.py:P}", source=f"{HEAD}class P(Processor)\n")


@pytest.mark.parametrize(
    "route", ["upstream: echo\n    websocket: true", "upstream: calls", "split: {echo: 1, calls: 1}"]
)
def test_whole_bodies_are_no_matter_of_streams(tmp_path: Path, route: str) -> None:
    message = (
        "routes.a.policies.ext_proc.python: 'response_body' needs whole bodies, and upgrades and gRPC calls are streams "
        r"\(found 'p.py:Whole'\); use response_chunk, or write ext_proc: off for this route"
    )
    with pytest.raises(InvalidGateway, match=message) as error:
        compile_(tmp_path, "{python: p.py:Whole}", route)
    assert all(problem.place is not None for problem in error.value.problems)
    compile_(tmp_path, "{python: p.py:Headers}", route)
    compile_(tmp_path, "{python: p.py:Pieces}", route)


def test_a_policy_of_all_routes_is_told_at_its_own_place(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(SOURCE)
    text = """
listeners: {http: {port: 8080}}
upstreams: {calls: {endpoints: [127.0.0.1:1], protocol: grpc}}
policies: {ext_proc: {python: p.py:Whole}}
routes: {a: {path: /a, upstream: calls}}
"""
    with pytest.raises(InvalidGateway, match=r"policies.ext_proc.python: 'response_body' needs whole bodies"):
        compiled(write(tmp_path, gateway=text))


def test_answers_of_the_gateway_itself_are_not_processed(tmp_path: Path) -> None:
    with pytest.raises(InvalidGateway, match="'ext_proc' has no effect if the gateway itself responds"):
        compile_(tmp_path, "{python: p.py:Headers}", "respond: {body: x}")


def _overrides(result: Compiled) -> ext_proc_pb2.ExtProcOverrides:
    (resource,) = result.snapshot.resources[ROUTE].values()
    config = route_pb2.RouteConfiguration.FromString(resource.body)
    found = ext_proc_pb2.ExtProcPerRoute()
    routes = [route for host in config.virtual_hosts for route in host.routes if route.name == "a"]
    assert routes[0].typed_per_filter_config[FILTER].Unpack(found)
    return found.overrides


def test_the_mode_follows_from_the_methods(tmp_path: Path) -> None:
    pieces = _overrides(compile_(tmp_path, "{python: p.py:Pieces}")).processing_mode
    assert pieces.response_body_mode == ProcessingMode.STREAMED
    assert pieces.response_trailer_mode == ProcessingMode.SEND
    headers = _overrides(compile_(tmp_path, "{python: p.py:Headers}")).processing_mode
    assert headers.response_header_mode == ProcessingMode.SKIP
    whole = _overrides(compile_(tmp_path, "{python: p.py:Whole}")).processing_mode
    assert whole.response_header_mode == ProcessingMode.SEND
    assert whole.response_body_mode == ProcessingMode.NONE, "until its headers were processed"


def test_the_chain_is_metadata_of_the_stream(tmp_path: Path) -> None:
    settings = "{python: p.py:Whole, timeout: 50ms, on_error: allow, max_body: 2KB}"
    overrides = _overrides(compile_(tmp_path, settings))
    (metadata,) = overrides.grpc_initial_metadata
    assert metadata.key == CHAIN
    assert "%" not in metadata.value
    assert json.loads(metadata.value) == {
        "chain": [["python_processor", "p.py:Whole", ["request_headers", "response_body"], 0.05, 2000, True]],
        "path": "/a/(?P<id>[^/]+)/50%25",
        "route": "a",
    }
    assert overrides.failure_mode_allow.value


def test_a_change_of_a_class_is_a_change_of_its_rule_alone(tmp_path: Path) -> None:
    compiler = Compiler({})
    (tmp_path / "common.py").write_text("X = 1\n")
    source = f"import common\n{SOURCE}"
    (tmp_path / "p.py").write_text(source)
    write(tmp_path, gateway=gateway("{python: p.py:Whole, timeout: 1s}"))
    before = compiler.compile(read_folder(tmp_path)).snapshot
    (tmp_path / "common.py").write_text("X = 2\n")
    after = compiler.compile(read_folder(tmp_path)).snapshot
    rule = rules_pb2.PythonProcessor.FromString(after.resources[PROCESSOR]["p.py:Whole"].body)
    assert (rule.class_name, rule.source, [one.source for one in rule.modules]) == (
        "Whole",
        source.encode(),
        [b"X = 2\n"],
    )
    for kind in (LISTENER, ROUTE, EXTENSION_CONFIG):
        assert {name: one.version for name, one in before.resources[kind].items()} == {
            name: one.version for name, one in after.resources[kind].items()
        }
