"""A tree of routes means what the plain list means: a real Envoy answers every request alike in both forms."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.envoy import Envoy, for_this_envoy
from tests.support.folder import write
from tests.support.ports import free_port
from tests.support.running import Served
from tests.support.trees import LIST, tree
from tests.support.wait import wait_for
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import InvalidGateway
from xds_server.sources.folder import Folder
from xds_server.translate.readable import plain
from xds_server.translate.route_trees import Shape
from xds_server.translate.static import bootstrap

Response = tuple[int, dict[str, str], bytes]


def _of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


def _some(**options: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=options)


segments = _of("a", "a", "b", "ab")
plains = st.lists(segments, min_size=1, max_size=3).map(lambda some: "/" + "/".join(some))
BROAD = (
    "/*",
    "/",
    "~b",
    "~.*",
    "~(?i)^/AB",
    "~^/a|^/b",
    "~^(/a)?/b",
    "~^/(a|ab)/",
    "~^/ab?/",
    "~^/a(?:b|)c*",
)
ODD = (
    *("/a-b", "/a@b/*", "/A", "/1/{id}", "~^/a/[^/]+/?$", r"~^/\Qa.b\E", r"~^/a\b", r"~^/[ab]/.{1,2}$"),
    *("~^(?s)/a.", "~^/a@b", "~^/a[@]b"),
)
paths = st.one_of(
    plains,
    plains,
    plains.map("{}/*".format),
    plains.map("{}/*".format),
    plains.map("{}/{{id}}".format),
    st.builds("/{}/{{id}}/{}".format, segments, segments),
    plains.map(lambda path: f"~^{path}[0-9]+$"),
    plains.map(lambda path: f"~^{path}"),
    plains.map(lambda path: f"~{path}$"),
    _of(*BROAD, *ODD),
)
tenants = _of("t", "t1", "t12", "u")
values = st.one_of(
    tenants,
    st.fixed_dictionaries({"prefix": tenants}),
    st.fixed_dictionaries({"suffix": tenants}),
    st.fixed_dictionaries({"regex": _of("t.*", ".*")}),
    st.fixed_dictionaries({"present": st.booleans()}),
    st.fixed_dictionaries({"exact": tenants, "not": st.just(True)}),
)
conditions = (
    st.just({})
    | st.just({})
    | _some(
        hosts=st.lists(_of("a.test", "*.a.test", "b.a.test"), min_size=1, max_size=2, unique=True),
        methods=st.lists(_of("GET", "POST", "OPTIONS"), min_size=1, max_size=2, unique=True),
        headers=st.dictionaries(_of("x-tenant", "x-b"), values, min_size=1),
        query=st.dictionaries(_of("q"), st.one_of(tenants, st.just({"exact": "t", "not": True}))),
    )
)
actions = st.one_of(
    st.just({}),
    st.just({}),
    st.just({"redirect": {"scheme": "https"}}),
    st.just({"upstream": "away", "websocket": True}),
)
more = _some(
    policies=st.fixed_dictionaries({"cors": st.just({"allow_origins": ["https://page.test"]})}),
    envoy=_of(
        {"match": {"case_sensitive": False}},
        {"match": {"runtime_fraction": {"default_value": {}}}},
        {"match": {"headers": [{"name": "x-b", "string_match": {"exact": "T", "ignore_case": True}}]}},
    ),
)


def _route(path: str, *others: dict[str, Any]) -> dict[str, Any]:
    return {"path": path, **{key: value for other in others for key, value in other.items()}}


spread = st.dictionaries(
    st.integers(0, 999).map("r{}".format),
    st.builds(_route, paths, conditions, actions, st.just({}) | st.just({}) | more),
    min_size=12,
    max_size=40,
)
"""Routes with various paths."""
alike = st.dictionaries(
    st.integers(0, 999).map("r{}".format),
    st.builds(
        _route,
        _of("/a", "/a", "/a/*", "~^/a"),
        conditions,
        st.fixed_dictionaries({"headers": st.fixed_dictionaries({"x-tenant": values})}),
        more,
    ),
    min_size=12,
    max_size=40,
)
"""Routes of few paths, which a header divides."""
routes = st.one_of(spread, spread, alike)


def _near(path: str) -> str:
    """A path that a route with this path may match."""
    text = re.sub(r"\{id\}|\[[^]]*\]\+?", "1", path).replace("/*", "").removeprefix("~")
    return "/" + re.sub(r"\\(?:b|[QE])?|[\^$()|?*+]|\(\?.\)|\{.*?\}", "", text).lstrip("/")


SUFFIXES = ("", "", "", "/", "/a", "1", "b", "/..;/", "//a")
QUERIES = ("", "", "", "?", "?q=t", "?q=u&q=t", "?/a/b", "?x=/..;")
TARGETS = ("/", "*", "/%61b", "/a%40b", "/a/%c3%a9", "/AB/1")
HEADERS = {
    "x-tenant": ("t", "t1", "t12", "u", "", "t1,t12", "T1"),
    "x-b": ("t", "t1", "u", "T"),
    "origin": ("https://page.test",),
    "access-control-request-method": ("GET", "POST"),
    "upgrade": ("websocket",),
    "connection": ("upgrade",),
}


def _requests(found: dict[str, Any], random: Random) -> Iterator[dict[str, Any]]:
    """Requests most of which come near to some of the routes.

    They are drawn here, because hypothesis would draw smaller tables in exchange for so many requests.
    """
    near = [_near(route["path"]) for route in found.values()]
    for _ in range(120):
        target = random.choice(near) + random.choice(SUFFIXES) + random.choice(QUERIES)
        yield {
            "method": random.choice(("GET", "GET", "POST", "OPTIONS", "HEAD")),
            "target": random.choice(TARGETS) if random.random() < 0.1 else target,
            "host": random.choice(("a.test", "a.test", "b.a.test", "other.test", "A.test:80", "u@a.test")),
            "headers": {name: random.choice(some) for name, some in HEADERS.items() if random.random() < 0.3},
        }


def _gateway(found: dict[str, Any], port: int, shared: dict[str, Any]) -> dict[str, Any]:
    """The gateway of routes that answer their own names; those of the smaller name win over their twins."""
    listener = {"port": port, "address": "127.0.0.1", "access_log": False}
    respond = {name: {"respond": {"body": name}} for name in found}
    answered = {
        name: route if route.keys() & {"redirect", "upstream"} else {**route, **respond[name]}
        for name, route in sorted(found.items())
    }
    upstreams = {"away": {"endpoints": []}}
    return {"listeners": {"http": listener}, "routes": answered, "policies": shared, "upstreams": upstreams}


def _compiled(gateway: dict[str, Any], shape: Shape) -> Any:
    """The bootstrap of a gateway. Routes with mistakes are removed: they are another test's matter."""
    while True:
        try:
            text = yaml.safe_dump(gateway).encode()
            snapshot = Compiler({}, shape=shape).compile(Folder(Path("/nowhere"), {"g.yaml": text})).snapshot
            return bootstrap(for_this_envoy(snapshot))
        except InvalidGateway as error:
            for problem in error.problems:
                if problem.severity == "error":
                    gateway["routes"].pop(problem.path[1], None)


def _answer(connection: http.client.HTTPConnection, request: dict[str, Any]) -> Response:
    connection.putrequest(request["method"], request["target"], skip_host=True, skip_accept_encoding=True)
    for name, value in {"host": request["host"], **request["headers"]}.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    headers = {name: value for name, value in response.getheaders() if name not in ("date", "x-request-id")}
    return response.status, headers, re.sub(rb'"request_id":"[^"]*"', b"", response.read())


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    routes,
    st.integers(0, 2**32),
    st.integers(1, 3),
    _of({}, {"cors": {"allow_origins": ["https://page.test"]}}),
)
def test_envoy_answers_alike_by_a_list_and_by_a_tree(
    tmp_path_factory: pytest.TempPathFactory,
    found: dict[str, Any],
    seed: int,
    length: int,
    shared: dict[str, Any],
) -> None:
    first, second = free_port(), free_port()
    by_list = _compiled(_gateway(found, first, shared), LIST)
    by_tree = _compiled(_gateway(found, second, shared), tree(length))
    by_tree.static_resources.listeners[0].name = "tree"
    by_list.static_resources.listeners.append(by_tree.static_resources.listeners[0])
    connections = (closing(http.client.HTTPConnection("127.0.0.1", port)) for port in (first, second))
    with (
        Envoy(plain(by_list), tmp_path_factory.mktemp("trees"), log_level="off") as envoy,
        next(connections) as one,
        next(connections) as other,
    ):
        envoy.ready()
        for request in _requests(found, Random(seed)):
            assert _answer(one, request) == _answer(other, request), (request, yaml.safe_dump(found))


MANY = """
listeners: {http: {port: $port, address: 127.0.0.1}}
routes:
  version: {path: /version, respond: {body: "$version"}}
"""
ODD = "routes: {odd: {path: /many/7/odd, upstream: none, envoy: {%s}}}\nupstreams: {none: {endpoints: []}}\n"
MENDED = "routes: {odd: {path: /many/7/odd, respond: {body: mended}}}\n"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`xds run` with a host that has a tree."""
    stack = Served(tmp_path_factory.mktemp("many"), MANY)
    numbers = range(200)
    lines = [
        f"  many-{number}: {{path: /many/{number}/*, respond: {{body: '{number}'}}}}\n" for number in numbers
    ]
    write(stack.folder, {"many.yaml": "routes:\n" + "".join(lines)})
    stack.write("1")
    with stack:
        stack.until("1")
        yield stack


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("route: {hash_policy: [{}]}", "route_rejected"),
        ("match: {headers: [{name: ''}]}", ""),  # the route below it takes the requests
    ],
)
def test_a_rejected_route_of_a_tree_is_named_and_the_others_are_served(
    many: Served, raw: str, reason: str
) -> None:
    write(many.folder, odd=ODD % raw)
    wait_for(lambda: [one["name"] for one in many.status()["held"]] == ["odd"], "the report")
    assert many.status()["held"][0]["place"].endswith("odd.yaml:1:10")
    answers = {number: many.get(f"/many/{number}/x").text for number in (0, 7, 77, 199)}
    assert answers == {number: str(number) for number in answers}
    assert many.get("/many/7/odd").headers.get("x-gateway-reason", "") == reason
    write(many.folder, odd=MENDED)
    wait_for(lambda: many.get("/many/7/odd").text == "mended", "the mended route")
    wait_for(lambda: not many.status()["held"], "an empty report")
