"""Files of tests: what they become, and every mistake with its place, value and remedy."""

from __future__ import annotations

import json
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.reading import read as read_gateway
from xds_server.testing.reader import Reading, read

GATEWAY = """
listeners:
  http: {port: 8080}
  inner: {port: 8083, bind: false}
  shop: {port: 8081, hosts: [shop.example.com]}
upstreams: {users: {endpoints: [127.0.0.1:9001]}}
identity: {corp: {jwks: {url: "https://idp.example.com/jwks"}}}
routes: {users: {path: /users/*, upstream: users, policies: {jwt: corp}}}
"""


def _read(text: str, **environment: str) -> Reading:
    gateway = read_gateway(GATEWAY).gateway
    assert gateway is not None
    return read({"tests/a.yaml": textwrap.dedent(text).encode()}, environment, gateway)


def test_a_test_has_its_request_and_its_place() -> None:
    reading = _read("""
        tests:
          a user is read:
            request: GET /users/1
            expect: {status: 200, route: users}
        """)
    assert reading.problems == ()
    (test,) = reading.tests
    (exchange,) = test.exchanges
    assert (exchange.step.request.method, exchange.url) == ("GET", "http://localhost:8080/users/1")
    assert exchange.explanation.route == "users"
    assert str(test.place(test.path)) == "tests/a.yaml:3:3"
    assert str(test.place((*exchange.path, "expect", "route"))) == "tests/a.yaml:5:34"


def test_a_path_goes_to_the_listener_that_the_test_names() -> None:
    (test,) = _read("{tests: {a: {request: {url: /, listener: shop}, expect: 404}}}").tests
    assert test.exchanges[0].url == "http://shop.example.com:8081/"


def test_answers_of_a_test_come_before_those_of_the_file() -> None:
    (test,) = _read("""
        upstreams: {users: 200}
        tests:
          a: {request: /users/1, expect: 503, upstreams: {users: [{path: /users/1, status: 503}]}}
        """).tests
    assert [one.answer.status for one in test.answers["users"]] == [503, 200]


def test_each_step_has_its_path() -> None:
    (test,) = _read("""
        tests:
          a:
            steps:
              - {request: /users/1, expect: 200}
              - {request: /users/2, times: 3, expect: 200}
        """).tests
    assert [one.path for one in test.exchanges] == [("tests", "a", "steps", 0), ("tests", "a", "steps", 1)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "tests/a.yaml:1:1: error: 'tests' is missing; add 'tests'"),
        (
            "- a",
            "tests/a.yaml:1:1: error: a file of tests is a mapping of sections; begin with a section such as tests:",
        ),
        (
            "tests:\n  a: {request: /, expect: 200}\n  a: {request: /, expect: 200}",
            (
                "tests/a.yaml:3:3: error: tests.a: 'a' is given twice, the first time at tests/a.yaml:2:3; "
                "remove or rename one of them"
            ),
        ),
        (
            "tests: {a: {request: /, expct: 200}}",
            "tests/a.yaml:1:25: error: tests.a.expct: unknown key 'expct'; did you mean 'expect'?",
        ),
        (
            "tests: {a: {request: /}}",
            "tests/a.yaml:1:12: error: tests.a: nothing is expected; write a status, such as expect: 200",
        ),
        (
            "tests: {a: {request: get users, expect: 200}}",
            (
                "tests/a.yaml:1:22: error: tests.a.request: expected a method and a URL (found 'get users'); "
                "write GET /path or GET http://host/path"
            ),
        ),
        (
            "tests: {a: {request: /, expect: {status: 2000}}}",
            (
                "tests/a.yaml:1:42: error: tests.a.expect.status: expected a value from 200 to 599 (found 2000); "
                "write one from 200 to 599"
            ),
        ),
        (
            "tests: {a: {request: /, expect: {route: user}}}",
            (
                "tests/a.yaml:1:41: error: tests.a.expect.route: the gateway has no 'user' in routes (found 'user'); "
                "did you mean 'users'?"
            ),
        ),
        (
            "{upstreams: {orders: 200}, tests: {a: {request: /, expect: 200}}}",
            (
                "tests/a.yaml:1:14: error: upstreams.orders: the gateway has no 'orders' in upstreams (found 'orders'); "
                "known: users"
            ),
        ),
        (
            "tests: {a: {request: {url: /, token: corpo}, expect: 200}}",
            (
                "tests/a.yaml:1:38: error: tests.a.request.token: the gateway has no 'corpo' in identity (found 'corpo'); "
                "did you mean 'corp'?"
            ),
        ),
        (
            "tests: {a: {request: 'GET http://example.com:9/', expect: 200}}",
            (
                "tests/a.yaml:1:22: error: tests.a.request: no listener for http at port 9; there are: http at 8080, "
                "inner at 8083, shop at 8081 (found 'http://example.com:9/'); write a URL of a listener, or 'listener'"
            ),
        ),
        (
            "tests: {a: {request: 'GET http://ann:secret@example.com/', expect: 200}}",
            (
                "tests/a.yaml:1:22: error: tests.a.request: expected a method and a URL "
                "(found 'GET http://ann:secret@example.com/'); write GET /path or GET http://host/path"
            ),
        ),
        (
            "tests: {a: {request: {url: /, listener: inner}, expect: 200}}",
            (
                "tests/a.yaml:1:22: error: tests.a.request: the listener 'inner' opens no TCP port, so no request can "
                "be sent to it; write a URL of another listener"
            ),
        ),
        (
            "{upstreams: {users: {headers: {content-length: 5}}}, tests: {a: {request: /, expect: 200}}}",
            "upstreams.users.headers.content-length: 'content-length' frames the message",
        ),
        (
            "tests: {a: {request: {url: /, headers: {Host: a}}, expect: 200}}",
            (
                "tests/a.yaml:1:47: error: tests.a.request.headers.Host: the host is part of the URL; "
                "write http://HOST/path"
            ),
        ),
        (
            "tests: {a: {request: {url: /, headers: {Content-Length: 5}}, expect: 200}}",
            "tests/a.yaml:1:57: error: tests.a.request.headers.Content-Length: 'Content-Length' frames the message or belongs to the connection, and xds test sets it; remove it",
        ),
        (
            "tests: {a: {steps: [{request: /, after: -1s, expect: 200}]}}",
            "tests/a.yaml:1:41: error: tests.a.steps[0].after: write a duration such as 250ms, 5s, 2m or 1h (found '-1s')",
        ),
        (
            "tests: {a: {request: /, steps: [{request: /, expect: 200}]}}",
            (
                "tests/a.yaml:1:32: error: tests.a.steps: a test has one request, or steps; "
                "move the request into the steps"
            ),
        ),
        (
            "tests: {a: {request: {url: /, body: a, json: {}}, expect: 200}}",
            "tests/a.yaml:1:46: error: tests.a.request.json: 'body' and 'json' are two bodies; remove one",
        ),
        (
            "tests: {a: {request: /, expect: {body: {regex: '('}}}}",
            "tests/a.yaml:1:48: error: tests.a.expect.body.regex: RE2 rejects this: missing ): ( (found '('); rewrite the expression",
        ),
    ],
)
def test_a_mistake_is_told_with_place_path_value_and_remedy(text: str, problem: str) -> None:
    reading = _read(text)
    assert problem in "\n".join(map(str, reading.problems))


def test_values_of_variables_are_known_as_such() -> None:
    (test,) = _read(
        "{tests: {a: {request: {url: /, headers: {x-api-key: '${KEY}'}}, expect: 200}}}", KEY="secret-key"
    ).tests
    assert test.exchanges[0].step.request.headers == {"x-api-key": "secret-key"}
    assert test.variables == (("secret-key", "${KEY}"),)


KEYS = st.sampled_from(
    [
        "tests",
        "upstreams",
        "request",
        "expect",
        "steps",
        "times",
        "status",
        "headers",
        "body",
        "json",
        "url",
        "method",
        "token",
        "claims",
        "after",
        "path",
        "delay",
        "route",
        "reason",
        "upstream",
        "name",
        "users",
        "x-a",
        "<<",
    ]
)
TEXTS = st.sampled_from(
    ["GET /users/1", "users", "off", "http://[::1", "http://a:99999/", "/ü", "${A}", "//", "5s", ""]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-10, 700)
    | st.floats(allow_nan=False)
    | TEXTS
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4) | VALUES)
@settings(max_examples=300, deadline=None)
def test_whatever_is_written_there_are_tests_or_problems_with_places(content: object) -> None:
    gateway = read_gateway(GATEWAY).gateway
    assert gateway is not None
    reading = read({"tests/a.yaml": json.dumps(content).encode()}, {}, gateway)
    assert reading.tests or any(one.severity == "error" for one in reading.problems)
    assert all(one.place is not None and one.place.line >= 1 for one in reading.problems)
