"""`xds test`: the tests of a gateway, through the real Envoy and policy server."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.certificates import authority
from xds_server.cli.main import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TESTED = sorted(path.parent for path in EXAMPLES.glob("*/gateway/tests"))
GATEWAY = """
listeners:
  http: {port: 80}
  inner: {port: 8001, bind: false}
  quic: {port: 8443, http3: true, tls: {certificates: [shop]}}
  web: {port: 8000, redirect_to_https: 8443}
secrets: {shop: {certificate: {file: shop.crt}, private_key: {file: shop.key}}}
upstreams:
  users: {endpoints: ["users.invalid:443"], tls: {}, health_check: /healthz}
  orders: {endpoints: [192.0.2.1:80], protocol: http2}
  checks: {endpoints: [192.0.2.2:80]}
routes:
  users:
    path: /users/*
    upstream: users
    timeout: 300ms
    retry: {attempts: 2, on: [5xx]}
    rewrite: {path: /v1/*}
    request_headers: {set: {x-team: shop}}
  orders: {path: /orders, methods: [POST], upstream: orders, policies: {compression: true}}
  checked: {path: /checked, upstream: orders, policies: {ext_authz: {http: checks}}}
  mirrored: {path: /mirrored, upstream: orders, mirror: {upstream: checks}}
  python: {path: /python, upstream: orders, policies: {ext_authz: {python: "policy.py:check"}}}
"""
POLICY = """
from filters.ext_authz import Decision, Request, allow, deny

def check(request: Request) -> Decision:
    if request.query_string == "fail":
        raise ValueError("a fault of the policy")
    return allow(headers={"x-policy": "seen"}) if request.method == "GET" else deny(403, body="read only")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gateway.yaml").write_text(GATEWAY)
    (tmp_path / "policy.py").write_text(POLICY)
    certificate, key = authority().issue("shop.example.com")
    (tmp_path / "shop.crt").write_bytes(certificate)
    (tmp_path / "shop.key").write_bytes(key)
    (tmp_path / "tests").mkdir()
    return tmp_path


def _write(folder: Path, text: str) -> None:
    (folder / "tests" / "a.yaml").write_text(textwrap.dedent(text))


@pytest.mark.parametrize("gateway", TESTED, ids=lambda gateway: gateway.parent.name)
def test_the_tests_of_an_example_pass(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(gateway)]) == 0, capsys.readouterr()
    assert ", 0 failed in " in capsys.readouterr().out


def test_what_upstreams_answer_and_what_they_get(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also if the real upstreams have TLS, HTTP/2, names that do not exist and addresses that nobody has."""
    _write(
        folder,
        """
        upstreams:
          users:
            - {method: DELETE, status: 204}
            - {path: /v1/2, status: 503, times: 1}
            - {path: /v1/3, status: 503}
            - {path: /v1/4, delay: 5s}
            - {path: /v1/*, json: {name: Ann}, headers: {x-from: stub}}
          orders: {status: 201, body: "created\\n"}
        tests:
          a request and a response:
            request: GET /users/1?x=%2F1
            expect:
              status: 200
              json: {name: Ann}
              headers: {x-from: stub, content-type: application/json, x-other: {present: false}}
              route: users
              reason: off
              upstream: {name: users, times: 1, method: GET, path: /v1/1?x=%2F1, headers: {x-team: shop, x-xds-test: {present: false}}}
          the first answer whose conditions hold is used:
            request: DELETE /users/1
            expect: 204
          a failed request is tried again:
            request: GET /users/2
            expect: {status: 200, upstream: {times: 2}}
          an upstream that fails each time:
            request: GET /users/3
            expect: {status: 503, upstream: {times: 3}}
          an upstream that is slow:
            request: GET /users/4
            expect: {status: 504, reason: upstream_timeout}
          a path that no answer is for:
            request: GET /usersx
            expect: {status: 404, route: off, upstream: off}
          a test has answers of its own:
            request: GET /users/1
            upstreams: {users: {body: mine}}
            expect: {status: 200, body: mine}
          a body:
            request: {method: POST, url: /orders, json: {id: 1}, headers: {accept-encoding: gzip}}
            expect: {status: 201, body: created, upstream: {name: orders, json: {id: 1}, headers: {content-type: application/json}}}
          a copy of a request, which no response waits for:
            request: GET /mirrored
            expect: {status: 201, upstream: {name: checks, path: /mirrored}}
          a request that Envoy cannot parse:
            request: {url: /users/1, headers: {a b: c}}
            expect: {status: 400, reason: bad_request, route: off, upstream: off}
          a redirect keeps the port of the gateway:
            request: GET http://shop.example.com:8000/users/1
            expect: {status: 308, headers: {location: "https://shop.example.com:8443/users/1"}, upstream: off}
        """,
    )
    assert main(["test", str(folder)]) == 0, capsys.readouterr()
    assert capsys.readouterr().out.startswith("11 passed, 0 failed in ")


def test_policies_decide_as_in_production(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A policy in Python runs in a real policy server, and a service for authorization is a stub too."""
    _write(
        folder,
        """
        upstreams: {checks: 403}
        tests:
          allowed by Python:
            request: GET /python
            expect: {status: 200, upstream: {name: orders, headers: {x-policy: seen}}}
          denied by Python:
            request: POST /python
            expect: {status: 403, body: read only, upstream: off}
          denied by a service:
            request: GET /checked
            expect: {status: 403, upstream: {name: orders, times: 0}}
        """,
    )
    assert main(["test", str(folder)]) == 0, capsys.readouterr()


def test_certificates_of_listeners_need_no_trust(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(
        folder,
        "tests: {a: {request: GET https://shop.example.com:8443/users/1, expect: {status: 200, upstream: {headers: {x-forwarded-proto: https}}}}}",
    )
    assert main(["test", str(folder)]) == 0, capsys.readouterr()


def test_a_failure_is_told_in_each_form(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(
        folder,
        """
        tests:
          good: {request: GET /users/1, expect: 200}
          bad:
            request: GET /python?fail
            times: 2
            expect: {status: 200, upstream: users}
        """,
    )
    assert main(["test", str(folder)]) == 1
    text = capsys.readouterr().out
    assert (
        "tests/a.yaml:4:3: FAILED: bad\n  request: GET http://localhost/python?fail (number 1 of 2)\n" in text
    )
    assert "  tests/a.yaml:7:22: status\n    - 200\n    + 503\n" in text
    assert "    > python  /python  matches\n" in text
    assert "a fault of the policy" in text
    assert "1 passed, 1 failed in " in text
    assert main(["test", str(folder), "--output", "json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert [one["passed"] for one in data["tests"]] == [True, False]
    assert data["tests"][1]["failure"]["response"]["status"] == 503
    assert main(["test", str(folder), "--output", "junit"]) == 1
    (suite,) = ElementTree.fromstring(capsys.readouterr().out)
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert main(["test", str(folder), "--only", "good"]) == 0
    assert "1 passed, 0 failed" in capsys.readouterr().out


def test_no_report_has_the_value_of_a_variable_of_the_gateway(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if the gateway sends it to the upstream and the client. A slow upstream is not waited for at the end."""
    monkeypatch.setenv("SHOP_TOKEN", "of-the-shop")
    (folder / "more.yaml").write_text(
        textwrap.dedent(
            """
            routes:
              token: {path: /token, upstream: orders, timeout: 300ms, request_headers: {set: {x-token: "t ${SHOP_TOKEN}"}}}
              page: {path: /page, respond: {body: "page ${SHOP_TOKEN}", headers: {x-a: "${NONE:-a default}"}}}
            """
        )
    )
    _write(
        folder,
        """
        upstreams: {orders: {delay: 1h}}
        tests:
          sent: {request: GET /token, expect: 200}
          answered: {request: GET /page, expect: {status: 200, body: other}}
        """,
    )
    for form in ("text", "json", "junit"):
        assert main(["test", str(folder), "--output", form]) == 1
        told = capsys.readouterr().out
        assert "of-the-shop" not in told
        assert "t ${SHOP_TOKEN}" in told
        assert "page ${SHOP_TOKEN}" in told
        assert "a default" in told


def test_a_gateway_that_envoy_rejects_is_not_tested(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "raw.yaml").write_text(
        "routes: {odd: {path: /odd, upstream: users, envoy: {route: {timeout: -1s}}}}"
    )
    _write(folder, "tests: {a: {request: GET /users/1, expect: 200}}")
    assert main(["test", str(folder)]) == 3
    assert "Envoy rejects a part of the gateway: " in capsys.readouterr().err


def test_what_cannot_be_run_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(folder)]) == 1
    assert "has no test" in capsys.readouterr().err
    _write(folder, "tests: {a: {request: GET /users/1, expect: {route: user}}}")
    assert main(["test", str(folder)]) == 1
    assert "tests/a.yaml:1:52: error: " in capsys.readouterr().err
    assert main(["test", str(folder), "--output", "junit"]) == 1
    (suite,) = ElementTree.fromstring(capsys.readouterr().out)
    assert suite.get("errors") == "1"
    (folder / "tests" / "a.yaml").unlink()
    (folder / "tests").rmdir()
    assert main(["test", str(folder)]) == 1
    assert "does not exist; write tests into " in capsys.readouterr().err
