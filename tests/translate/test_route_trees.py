"""Trees of routes: what the lists hold, what stays the same after a change, and how large a tree may be."""

from __future__ import annotations

from pathlib import Path

from envoy.config.route.v3 import route_components_pb2, route_pb2
from hypothesis import given
from hypothesis import strategies as st
from xds.type.matcher.v3.matcher_pb2 import Matcher

from protos.wire_format import varint
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.discovery.snapshot import Resource
from xds_server.discovery.types import ROUTE
from xds_server.sources.folder import Folder
from xds_server.translate import host_routes, releases
from xds_server.translate.proving_copy import closed, only, replaced, route_name, routes_of
from xds_server.translate.route_trees import DEFAULT, Entry, RouteTree, Shape

LIST = Shape(fewest=1_000_000)


def _compiled(lines: list[str], shape: Shape = DEFAULT, compiler: Compiler | None = None) -> Compiled:
    text = "listeners: {http: {port: 8080}}\nroutes:\n" + "".join(f"  {line}\n" for line in lines)
    return (compiler or Compiler({}, shape=shape)).compile(Folder(Path(), {"gateway.yaml": text.encode()}))


def _table(compiled: Compiled) -> Resource:
    return compiled.snapshot[ROUTE]["0.0.0.0:8080"]


def _host(table: Resource) -> route_components_pb2.VirtualHost:
    return route_pb2.RouteConfiguration.FromString(table.body).virtual_hosts[0]


def _lists(table: Resource) -> list[list[str]]:
    lists = [action.value for action in host_routes.lists(_host(table).matcher)]
    return [[one.name for one in route_components_pb2.RouteList.FromString(body).routes] for body in lists]


def _names(table: Resource) -> set[str]:
    return {name for one in _lists(table) for name in one}


def _exact(number: int, more: str = "") -> str:
    return f"r{number}: {{path: /r{number}, respond: {{body: '{number}'}}{more}}}"


MANY = [_exact(number) for number in range(500)]


def test_few_routes_stay_a_list_and_many_become_a_tree() -> None:
    few, many = _host(_table(_compiled(MANY[:63]))), _host(_table(_compiled(MANY[:64])))
    assert (len(few.routes), few.HasField("matcher")) == (66, False)
    assert (len(many.routes), many.HasField("matcher")) == (0, True)


def test_a_tree_has_the_routes_of_the_list_and_short_lists() -> None:
    listed, tree = _table(_compiled(MANY, LIST)), _table(_compiled(MANY))
    assert routes_of(tree) == routes_of(listed)
    assert max(map(len, _lists(tree))) <= 20
    assert len(tree.body) <= 1.25 * len(listed.body) + 1024


def test_a_route_for_every_path_is_in_every_list_after_the_more_specific_ones() -> None:
    lists = _lists(_table(_compiled([*MANY, "all: {path: /*, respond: {body: x}}"])))
    below = [one for one in lists if not one[0].startswith("400/")]
    assert len(below) > 10
    assert all(one[-1] == "all" and "all" not in one[:-1] for one in below)


def test_the_tree_of_a_changed_route_differs_in_one_list() -> None:
    """The result is that of a new compiler."""
    compiler = Compiler({})
    before = _table(_compiled(MANY, compiler=compiler))
    changed = [*MANY[:77], _exact(77, ", policies: {request_id: true}"), *MANY[78:]]
    after = _table(_compiled(changed, compiler=compiler))
    assert after.body == _table(_compiled(changed)).body
    lists = [{one.value for one in host_routes.lists(_host(table).matcher)} for table in (before, after)]
    assert len(lists[0] - lists[1]) == len(lists[1] - lists[0]) == 1
    shorter = [*changed[:40], *changed[60:]]
    assert _table(_compiled(shorter, compiler=compiler)).body == _table(_compiled(shorter)).body


def test_very_many_routes_of_one_path_are_divided_by_a_header() -> None:
    routes = [
        f"r{number}: {{path: /one, headers: {{x-tenant: t{number}}}, respond: {{body: x}}}}"
        for number in range(500)
    ]
    tree = _table(_compiled([*routes, "all: {path: /*, respond: {body: x}}"]))
    assert _host(tree).HasField("matcher")
    assert max(map(len, _lists(tree))) <= 40


REGEXES = [f"x{number}: {{path: '~/x{number}$', respond: {{body: x}}}}" for number in range(700)]


def test_expressions_without_a_beginning_keep_the_list_and_cause_a_warning() -> None:
    compiled = _compiled([*MANY, *REGEXES])
    assert len(_host(_table(compiled)).routes) == 1203
    (warning,) = compiled.warnings
    assert warning.where == "routes.x100"
    assert str(warning.place) == "gateway.yaml:603:3"
    assert "for host * with very many routes" in warning.message
    assert warning.message.endswith(": x100, x101, x102, x103, x104 and 695 more")
    assert not _compiled([*MANY, *REGEXES[:20]]).warnings


def test_fewer_expressions_without_a_beginning_make_the_lists_longer() -> None:
    tree = _table(_compiled([*MANY, *REGEXES[:20]]))
    assert 20 < max(map(len, _lists(tree))) < 200


def test_paths_that_differ_only_behind_a_name_cause_a_warning() -> None:
    alike = [f"t{number}: {{path: '/t/{{id}}/x{number}', respond: {{body: x}}}}" for number in range(600)]
    compiled = _compiled([*MANY, *alike, "all: {path: /*, respond: {body: x}}"])
    assert _host(_table(compiled)).HasField("matcher")
    (warning,) = compiled.warnings
    assert warning.message.endswith(": t100, t101, t102, t103, t104 and 595 more")


def test_headers_divide_a_list_by_the_one_with_the_most_values() -> None:
    """The first of them is the same in all routes."""
    conditions = "methods: [GET], headers: {x-a: a, x-tenant: t%s}"
    routes = [f"r{n}: {{path: /one, {conditions % n}, respond: {{body: x}}}}" for n in range(600)]
    compiled = _compiled(routes)
    assert max(map(len, _lists(_table(compiled)))) <= 40
    assert not compiled.warnings


def test_matchers_are_nested_only_so_deep_that_protobuf_parses_them() -> None:
    """It parses at most 100 messages inside each other. Each of these headers separates one route from the others."""
    numbers = range(40)
    conditions = [{f"x-{one}": ("a" if one == at else "b", "") for one in numbers} for at in numbers]
    entries = [Entry(b"\x0a\x02\x0a\x00", {":path": ("/", None), **one}) for one in conditions]
    matcher = RouteTree((), Shape(length=1, routes=1e9, size=1e9)).matcher(entries)
    assert matcher is not None
    assert len(list(host_routes.lists(Matcher.FromString(matcher)))) == 5


literals = st.tuples(st.text("ab/", max_size=5), st.sampled_from([None, "", "?#"]))


@given(
    st.lists(st.fixed_dictionaries({":path": literals}, optional={"x-t": literals}), min_size=1, max_size=80),
    st.floats(1, 3),
    st.floats(1, 3),
    st.integers(20, 300),
)
def test_no_tree_is_larger_than_its_bound(
    conditions: list[dict[str, tuple[str, str | None]]], routes: float, size: float, length: int
) -> None:
    entries = [Entry(b"\x0a" + varint(length) + b"x" * length, one) for one in conditions]
    tree = RouteTree((), Shape(length=1, routes=routes, size=size, slow=1))
    matcher = tree.matcher(entries)
    if matcher is None:
        assert tree.obstacles
        return
    assert matcher.count(b"x" * length) <= routes * len(entries)
    around = 8  # bytes of the matcher that tries no guards
    assert len(matcher) <= size * sum(len(one.listed) for one in entries) + around


def test_routes_of_a_tree_are_replaced_in_every_list() -> None:
    table = _table(_compiled([*MANY, "all: {path: /*, respond: {body: x}}"]))
    body = next(body for _, body in routes_of(table) if route_name(body) == "all")
    assert replaced(table, {b"other": None}) is table
    instead = replaced(table, {body: closed(body)})
    assert [[name.removeprefix("503/") for name in one] for one in _lists(instead)] == _lists(table)
    assert "all" not in _names(instead)
    assert "all" not in _names(replaced(table, {body: None}))
    assert [one.name for one in _host(Resource.from_bytes("http", only(table, [("*", body)]))).routes] == [
        "all"
    ]


def test_older_envoys_get_the_tree_with_its_unsupported_routes_closed() -> None:
    odd = 'odd: {path: /odd, respond: {body: x}, response_headers: {set: {x-a: "%SPAN_ID%"}}}'
    snapshot, lacks = releases.adapted(_compiled([*MANY, odd]).snapshot, "envoy 1.36")
    assert [one.name for one in lacks] == ["odd"]
    names = _names(snapshot[ROUTE]["0.0.0.0:8080"])
    assert "503/odd" in names
    assert "odd" not in names
    assert "r1" in names
