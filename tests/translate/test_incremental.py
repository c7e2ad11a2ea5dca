"""A compiler that has compiled other gateways before gives what a new one gives."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from hypothesis import given, settings
from hypothesis import strategies as st

from filters.language import Problem
from xds_server.control_plane.compiler import Compiler
from xds_server.discovery.snapshot import EMPTY, Snapshot
from xds_server.discovery.types import ROUTE
from xds_server.errors import InvalidGateway
from xds_server.sources.folder import Folder
from xds_server.translate.proving_copy import proving_copy, routes_of
from xds_server.translate.route_trees import Shape

SHAPE = Shape(fewest=4, length=2, slow=3, routes=2, size=3)
"""Small hosts become trees, and few routes are reported as slow."""
FILES = ("a.yaml", "b.yaml", "c.yaml")
LISTENERS = (
    "  http: {port: 8080}",
    "  http: {port: 8080}\n  inner: {port: 8081}",
    "  http: {port: 8080, redirect_to_https: true}\n  inner: {port: 8081}",
    "  http: {port: 8080, envoy: {nothing: 1}}",
    "  http: {port: 8080, hosts: [a.example]}\n  inner: {port: 8080, hosts: ['*.example']}",
    "  http: {port: 8080, hosts: [b.a.example]}\n  inner: {port: 8080}",
    "  http: {port: 8080}\n  moved: {port: 8080, hosts: ['*.a.example'], redirect_to_https: true}",
)
UPSTREAMS = (
    "  users: {endpoints: ['127.0.0.1:1']}",
    "  users: {endpoints: ['127.0.0.1:2']}\n  more: {endpoints: ['127.0.0.1:3'], protocol: grpc}",
)
POLICIES = ("", "  request_id: true", "  response_headers: {set: {a: b}}", "  compression: true")
PORTAL = "portal: {url: 'https://portal.example', gateway: 'https://api.example'}\n"
CATALOGS = (
    "",
    "catalog: {one: {routes: [a0]}}\n" + PORTAL,
    "catalog: {one: {routes: [a0, b0], deprecated: 2026-01-01}}\n",
    "catalog: {one: {routes: [b0], deprecated: 2026-01-01}}\n" + PORTAL,
)
HOSTS = (
    "",
    "hosts: [a.example]",
    "hosts: [b.a.example, a.example]",
    "hosts: ['*.example']",
    "hosts: [c.test]",
)
PATHS = ("/x", "/x/*", "'/{id}'", "'~^/x/[0-9]+$'", "'~[0-9]$'", "'/y/{id}'", "/y/z", "'/:id'")
MORE = (
    "methods: [GET]",
    "methods: [PUT, POST]",
    "headers: {x-a: b}",
    "policies: {compression: true}",
    "response_headers: {remove: [server]}",
    "response_headers: {set: {a: b, c: d}}",
    "response_headers: {set: {c: d, a: b}}",
    "listeners: [http]",
    "timeout: 1s",
)
ACTIONS = ("respond: {body: x}", "respond: {body: y}", "upstream: users", "redirect: {path: /new}")


@st.composite
def _file(draw: st.DrawFn, prefix: str) -> bytes:
    """The routes of one file."""
    lines = ["routes:"]
    for number in range(draw(st.integers(0, 6))):
        keys = [draw(st.sampled_from(HOSTS)), f"path: {draw(st.sampled_from(PATHS))}"]
        keys += draw(st.lists(st.sampled_from(MORE), max_size=2, unique=True))
        keys = list({key.partition(":")[0]: key for key in keys if key}.values())
        lines.append(f"  {prefix}{number}: {{{', '.join([*keys, draw(st.sampled_from(ACTIONS))])}}}")
    return "\n".join([*lines, ""]).encode()


_SHARED = st.tuples(*map(st.sampled_from, (LISTENERS, UPSTREAMS, POLICIES, CATALOGS)))
_CHANGE = st.one_of(
    _SHARED.map(lambda parts: ("gateway.yaml", parts)),
    *(_file(name[0]).map(lambda content, name=name: (name, content)) for name in FILES),
    st.sampled_from(FILES).map(lambda name: (name, None)),
)


@given(st.lists(_CHANGE, min_size=3, max_size=12))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_each_change_gives_what_a_new_compiler_gives(changes: list[tuple[str, object]]) -> None:
    compiler = Compiler({}, shape=SHAPE)
    before = EMPTY
    files = {"gateway.yaml": _shared((LISTENERS[1], UPSTREAMS[0], "", ""))}
    for name, content in changes:
        if content is None:
            files.pop(name, None)
        else:
            files[name] = content if isinstance(content, bytes) else _shared(content)
        folder = Folder(Path(), MappingProxyType(dict(files)))
        again, once = (_compiled(one, folder) for one in (compiler, Compiler({}, shape=SHAPE)))
        assert again[1] == once[1]
        if again[0] is None or once[0] is None:
            assert again[0] is once[0]
            continue
        assert again[0].resources == once[0].resources
        assert again[0].versions == once[0].versions
        copy = proving_copy(again[0], EMPTY, before[ROUTE])
        for name, table in again[0][ROUTE].items():
            proved = routes_of(before[ROUTE][name]) if name in before[ROUTE] else frozenset()
            assert routes_of(copy[ROUTE][name]) == routes_of(table) - proved
        before = again[0]


def _shared(parts: object) -> bytes:
    assert isinstance(parts, tuple)
    sections = zip(("listeners", "upstreams", "policies"), parts[:3], strict=True)
    return ("".join(f"{section}:\n{text}\n" for section, text in sections) + parts[3]).encode()


def _compiled(compiler: Compiler, folder: Folder) -> tuple[Snapshot | None, tuple[Problem, ...]]:
    try:
        compiled = compiler.compile(folder)
    except InvalidGateway as error:
        return None, error.problems
    return compiled.snapshot, compiled.warnings
