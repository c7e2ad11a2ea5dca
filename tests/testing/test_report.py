"""What a report of results says: for people, for programs and for pipelines."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from tests.support.reading import read as read_gateway
from xds_server.testing import report
from xds_server.testing.comparison import Outcome, compare
from xds_server.testing.reader import read
from xds_server.testing.results import Failure, Result, Results

GATEWAY = """
listeners: {http: {port: 8080}}
upstreams: {users: {endpoints: [127.0.0.1:9001]}}
routes: {users: {path: /users/*, upstream: users}, other: {path: /other, upstream: users}}
"""
TESTS = b"""
tests:
  a user is read:
    request: {url: /users/1, times: 1, headers: {x-api-key: "${KEY}"}}
    expect: {status: 200, route: other}
  another passes:
    request: /users/2
    expect: 200
"""


@pytest.fixture
def results() -> Results:
    gateway = read_gateway(GATEWAY).gateway
    assert gateway is not None
    files = {"tests/a.yaml": TESTS.replace(b" times: 1,", b"")}
    first, second = read(files, {"KEY": "secret-key"}, gateway).tests
    outcome = Outcome(
        status=503,
        headers=(("x-seen", "secret-key"),),
        body=b"\x1b[31m\x00",
        route="users",
        details="no_healthy",
    )
    exchange = first.exchanges[0]
    differences = tuple(compare(exchange.step.expect, outcome))
    failure = Failure(exchange=exchange, repetition=0, outcome=outcome, differences=differences)
    failed, passed = (
        Result(test=first, seconds=0.5, failure=failure, variables=first.variables),
        Result(test=second, seconds=0.25),
    )
    return Results(tests=(failed, passed), seconds=1.0, warnings=("ERROR a policy failed",))


def test_people_see_the_differences_with_their_lines_and_the_explanation(results: Results) -> None:
    assert list(report.as_text(results)) == [
        "tests/a.yaml:3:3: FAILED: a user is read",
        "  request: GET http://localhost:8080/users/1",
        "  tests/a.yaml:5:22: status",
        "    - 200",
        "    + 503",
        "  tests/a.yaml:5:34: route",
        "    - other",
        "    + users",
        "  response: 503 (no_healthy)",
        "    x-seen: ${KEY}",
        "    \\x1b[31m\\x00",
        "  xds explain FOLDER GET http://localhost:8080/users/1 -H 'x-api-key: ${KEY}'",
        "    listener http, host *, path /users/1",
        "      - other  /other  the path differs",
        "      > users  /users/*  matches",
        "    forwarded to the upstream users",
        "",
        "the policy server says:",
        "  ERROR a policy failed",
        "",
        "1 passed, 1 failed in 1.0 s",
    ]


def test_programs_get_the_same_as_data(results: Results) -> None:
    data = report.as_json(results)
    assert (data["passed"], data["failed"]) == (1, 1)
    failed, passed = data["tests"]
    assert passed == {
        "name": "another passes",
        "place": {"file": "tests/a.yaml", "line": 6, "column": 3},
        "passed": True,
        "seconds": 0.25,
    }
    assert failed["failure"]["differences"][0] == {
        "place": {"file": "tests/a.yaml", "line": 5, "column": 22},
        "what": "status",
        "expected": "200",
        "found": "503",
    }
    assert "secret-key" not in json.dumps(data)


def test_pipelines_get_xml(results: Results) -> None:
    text = report.as_junit(results)
    (suite,) = ElementTree.fromstring(text)
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("tests/a.yaml", "2", "1")
    failed, passed = suite.findall("testcase")
    assert (failed.get("name"), failed.get("line"), passed.get("name")) == (
        "a user is read",
        "3",
        "another passes",
    )
    failure = failed.find("failure")
    assert failure is not None
    assert failure.get("message") == "status: expected 200, found 503"
    assert "tests/a.yaml:5:34: route" in (failure.text or "")
    assert passed.find("failure") is None
    assert "secret-key" not in text


def test_pipelines_get_an_error_for_each_problem_of_the_gateway() -> None:
    problems = read_gateway("rutes: {}").problems
    (suite,) = ElementTree.fromstring(report.problems_as_junit(problems))
    error = suite.find("testcase/error")
    assert error is not None
    assert "did you mean 'routes'?" in (error.get("message") or "")
