"""`xds test` with HTTP/2 and gRPC, through the real Envoy."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.certificates import authority
from xds_server.cli.main import main

GATEWAY = """
listeners:
  http: {port: 80, limits: {max_requests_per_connection: 1}}
  secure: {port: 8443, tls: {certificates: [shop]}, hosts: [shop.example.com]}
secrets: {shop: {certificate: {file: shop.crt}, private_key: {file: shop.key}}}
identity: {corp: {issuer: "https://idp.example.com", jwks: {url: "https://idp.example.com/jwks"}}}
upstreams:
  orders: {endpoints: ["orders.invalid:443"], protocol: grpc, tls: {}, health_check: {type: grpc}}
  any: {endpoints: ["any.invalid:443"], protocol: auto, tls: {}}
  web: {endpoints: ["192.0.2.1:80"], protocol: same}
  old: {endpoints: ["192.0.2.2:80"]}
  checks: {endpoints: ["192.0.2.3:80"], protocol: grpc}
routes:
  orders:
    path: /shop.v1.Orders/*
    upstream: orders
    request_headers: {set: {x-team: shop}}
    response_headers: {set: {x-gateway: seen}}
    policies: {grpc_web: true}
  private: {path: /shop.v1.Private/*, upstream: any, policies: {jwt: corp}}
  rest:
    path: /v1/*
    upstream: orders
    policies:
      grpc_transcoding:
        protos: [protos/orders.proto]
        methods: {shop.v1.Orders/Get: {get: "/v1/orders/{id}"}}
  bridged: {path: /bridge/shop.v1.Orders/*, upstream: orders, rewrite: {path: /shop.v1.Orders/*}, policies: {grpc_bridge: {protobuf: true}}}
  reverse: {path: /shop.v1.Old/*, upstream: old, policies: {grpc_reverse_bridge: true}}
  web: {path: /web, upstream: web}
  checked: {path: /checked, upstream: web, policies: {ext_authz: {grpc: checks}}}
"""
PROTO = """
syntax = "proto3";
package shop.v1;
message Order { int64 id = 1; string text = 2; repeated string tags = 3; }
message Chosen { int64 id = 1; }
service Orders {
  rpc Get(Chosen) returns (Order);
  rpc List(Chosen) returns (stream Order);
  rpc Put(stream Order) returns (Order);
  rpc Talk(stream Order) returns (stream Order);
}
service Old { rpc Get(Chosen) returns (Order); }
"""
PRIVATE = """
syntax = "proto3";
package shop.v1;
message Nothing {}
service Private { rpc Do(Nothing) returns (Nothing); }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gateway.yaml").write_text(GATEWAY)
    certificate, key = authority().issue("shop.example.com")
    (tmp_path / "shop.crt").write_bytes(certificate)
    (tmp_path / "shop.key").write_bytes(key)
    for name in ("protos", "tests"):
        (tmp_path / name).mkdir()
    (tmp_path / "protos" / "orders.proto").write_text(PROTO)
    (tmp_path / "protos" / "private.proto").write_text(PRIVATE)
    return tmp_path


def _write(folder: Path, text: str) -> None:
    (folder / "tests" / "a.yaml").write_text(textwrap.dedent(text))


def test_calls_of_every_kind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 200_000  # more than a window of HTTP/2 has at its start
    _write(
        folder,
        f"""
        upstreams:
          orders:
            - {{grpc: {{method: shop.v1.Orders/Get, status: UNAVAILABLE}}, times: 1}}
            - grpc: {{method: shop.v1.Orders/Get, message: {{id: 7, tags: [a]}}, trailers: {{x-cost: "3"}}}}
              headers: {{x-from: stub}}
            - grpc: {{method: shop.v1.Orders/List, message: [{{id: 1}}, {{id: 2}}]}}
            - grpc: {{method: shop.v1.Orders/Put, message: {{text: {long}}}}}
          web: {{status: 201, json: {{id: 1}}}}
          old: {{grpc: {{method: shop.v1.Old/Get, message: {{id: 9}}}}}}
        tests:
          statuses and messages with metadata:
            steps:
              - request: {{grpc: {{method: shop.v1.Orders/Get, message: {{id: 7}}}}}}
                expect: {{grpc: UNAVAILABLE, headers: {{x-gateway: seen}}, route: orders}}
              - request: {{grpc: {{method: shop.v1.Orders/Get, message: {{id: 7}}}}, headers: {{x-canary: "yes"}}}}
                expect:
                  status: 200
                  headers: {{x-from: stub, content-type: application/grpc, x-cost: {{present: false}}}}
                  grpc: {{status: OK, message: {{id: 7, tags: [a]}}, trailers: {{x-cost: "3"}}}}
                  reason: off
                  upstream:
                    name: orders
                    times: 1
                    path: /shop.v1.Orders/Get
                    headers: {{x-team: shop, x-canary: "yes", x-xds-test: {{present: false}}}}
                    grpc: {{method: shop.v1.Orders/Get, message: {{id: "7"}}}}
          streams of a server:
            request: {{grpc: shop.v1.Orders/List}}
            expect: {{grpc: {{status: OK, message: [{{id: 1}}, {{id: 2}}]}}}}
          streams of a client, and long messages:
            request: {{grpc: {{method: shop.v1.Orders/Put, message: [{{id: 1}}, {{text: {long}}}]}}}}
            expect:
              grpc: {{status: OK, message: {{text: {long}}}}}
              upstream: {{grpc: {{method: shop.v1.Orders/Put, message: [{{id: 1}}, {{text: {long}}}]}}}}
          a method without an answer:
            request: {{grpc: shop.v1.Orders/Talk}}
            expect: {{grpc: {{status: UNIMPLEMENTED, status_message: {{contains: no answer}}}}}}
          by TLS:
            request: {{url: "https://shop.example.com:8443", grpc: shop.v1.Orders/List}}
            expect: {{grpc: OK, upstream: {{headers: {{host: "shop.example.com:8443"}}}}}}
          a REST client of a method:
            steps:
              - {{request: GET /v1/orders/7, expect: {{status: 503, reason: grpc_unavailable}}}}
              - request: GET /v1/orders/7
                expect: {{status: 200, json: {{id: "7"}}, upstream: {{grpc: {{method: shop.v1.Orders/Get, message: {{id: 7}}}}}}}}
          a bridge from HTTP/1.1:
            upstreams: {{orders: {{grpc: {{method: shop.v1.Orders/Get, message: {{text: bridged}}}}}}}}
            request: {{method: POST, url: /bridge/shop.v1.Orders/Get, headers: {{content-type: application/x-protobuf}}, body: "\\b\\a"}}
            expect: {{status: 200, body: {{contains: bridged}}, headers: {{grpc-status: "0"}}, upstream: {{grpc: {{method: shop.v1.Orders/Get, message: {{id: 7}}}}}}}}
          a bridge to HTTP/1.1:
            request: {{grpc: {{method: shop.v1.Old/Get, message: {{id: 7}}}}}}
            expect: {{grpc: {{status: OK, message: {{id: 9}}}}, upstream: {{name: old, headers: {{content-type: application/x-protobuf}}, grpc: {{method: shop.v1.Old/Get, message: {{id: 7}}}}}}}}
          a browser:
            steps:
              - request: {{grpc: {{method: shop.v1.Orders/Get, message: {{id: 7}}, web: true}}}}
                expect: {{grpc: UNAVAILABLE}}
              - request: {{grpc: {{method: shop.v1.Orders/Get, message: {{id: 7}}, web: true}}}}
                expect:
                  headers: {{content-type: application/grpc-web+proto}}
                  grpc: {{status: OK, message: {{id: 7}}, trailers: {{x-cost: "3"}}}}
                  upstream: {{headers: {{content-type: application/grpc}}, grpc: {{method: shop.v1.Orders/Get, message: {{id: 7}}}}}}
          plain requests over HTTP/2:
            request: {{method: POST, url: "/web?a=%2F", http2: true, json: {{a: 1}}}}
            expect: {{status: 201, json: {{id: 1}}, upstream: {{name: web, path: "/web?a=%2F", method: POST, json: {{a: 1}}, headers: {{content-length: "8"}}}}}}
          plain requests over HTTP/2 and TLS:
            request: {{url: "https://shop.example.com:8443/nothing", http2: true}}
            expect: {{status: 404, reason: not_found}}
          the same upstream over HTTP/1.1:
            request: /web
            expect: {{status: 201, upstream: {{name: web}}}}
        """,
    )
    assert main(["test", str(folder)]) == 0, capsys.readouterr()
    assert capsys.readouterr().out.startswith("12 passed, 0 failed in ")


def test_a_file_of_tests_brings_types_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stub without answers returns an empty message. The gateway's own answers are statuses of gRPC."""
    _write(
        folder,
        """
        protos: [protos/private.proto]
        tests:
          without a token: {request: {grpc: shop.v1.Private/Do}, expect: {grpc: UNAUTHENTICATED, upstream: off}}
          a browser without a token: {request: {grpc: {method: shop.v1.Private/Do, web: true}}, expect: {grpc: UNAUTHENTICATED, upstream: off}}
          with a token: {request: {grpc: shop.v1.Private/Do, token: corp}, expect: {grpc: {status: OK, message: {}}, upstream: any}}
        """,
    )
    assert main(["test", str(folder)]) == 0, capsys.readouterr()


def test_a_service_for_authorization_is_a_stub(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its calls belong to the test whose request they are about."""
    _write(
        folder,
        """
        x-check: &check envoy.service.auth.v3.Authorization/Check
        tests:
          allowed:
            request: {url: /checked, headers: {x-team: shop}}
            expect:
              status: 200
              upstream: {name: checks, grpc: {method: *check, message: {attributes: {request: {http: {path: /checked}}}}}}
          denied:
            request: /checked
            upstreams:
              checks: {grpc: {method: *check, message: {status: {code: 7}, denied_response: {status: {code: PaymentRequired}, body: pay}}}}
            expect: {status: 402, body: pay, upstream: {name: web, times: 0}}
          not to be reached:
            request: /checked
            upstreams: {checks: {grpc: UNAVAILABLE}}
            expect: {status: 503, upstream: {name: web, times: 0}}
        """,
    )
    assert main(["test", str(folder)]) == 0, capsys.readouterr()


WRONG = """
upstreams: {orders: {grpc: {method: shop.v1.Orders/Get, message: {id: 8, text: eight}}}}
tests:
  another order:
    request: {grpc: {method: shop.v1.Orders/Get, message: {id: 7}}}
    expect:
      grpc:
        status: OK
        message: {id: 7}
        trailers: {x-cost: "3"}
      upstream: {grpc: {method: shop.v1.Orders/Get, message: {id: 9}}}
  another status:
    upstreams: {orders: {grpc: {status: NOT_FOUND, status_message: "no ördér"}}}
    request: {grpc: shop.v1.Orders/Get}
    expect: {grpc: {status: OK, status_message: fine, message: {id: 7}}}
"""


def test_reports_show_statuses_and_messages(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(folder, WRONG)
    assert main(["test", str(folder)]) == 1
    shown = capsys.readouterr().out
    assert "request: gRPC POST http://localhost/shop.v1.Orders/Get\n" in shown
    assert 'tests/a.yaml:9:23: grpc.message.id\n    - "7"\n    + "8"\n' in shown
    assert "tests/a.yaml:10:28: grpc.trailers.x-cost\n    - 3\n    + nothing\n" in shown
    assert 'upstream.grpc.message.id\n    - "9"\n    + "7"\n' in shown
    assert '    {"id": "8", "text": "eight", "tags": []}\n' in shown
    assert "    trailer grpc-status: 0\n" in shown
    assert "  gRPC status: OK\n" in shown
    assert "  upstream orders got: POST /shop.v1.Orders/Get\n" in shown
    assert '    {"id": "7"}\n' in shown
    assert "grpc.status\n    - OK\n    + NOT_FOUND: no ördér\n" in shown
    assert "grpc.status_message\n    - fine\n    + no ördér\n" in shown
    assert 'grpc.message\n    - {"id": "7"}\n    + nothing\n' in shown

    assert main(["test", str(folder), "--output", "json"]) == 1
    first, second = (one["failure"] for one in json.loads(capsys.readouterr().out)["tests"])
    assert first["request"]["grpc"] == "shop.v1.Orders/Get"
    assert json.loads(first["response"]["body"]) == {"id": "8", "text": "eight", "tags": []}
    assert first["upstream_requests"][0]["body"] == '{"id": "7"}'
    assert (second["response"]["grpc_status"], second["response"]["grpc_message"]) == (
        "NOT_FOUND",
        "no ördér",
    )

    assert main(["test", str(folder), "--output", "junit"]) == 1
    messages = [one.get("message") for one in ElementTree.fromstring(capsys.readouterr().out).iter("failure")]
    assert messages == [
        "grpc.trailers.x-cost: expected 3, found nothing",
        "grpc.status: expected OK, found NOT_FOUND: no ördér",
    ]

    assert main(["ci", str(folder), "--output", "markdown"]) == 1
    assert "grpc.status\n    - OK\n    + NOT_FOUND: no ördér\n" in capsys.readouterr().out


def test_files_of_types_that_are_wrong_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "protos" / "private.proto").write_text("message {")
    _write(
        folder,
        """
        protos: [protos/private.proto, protos/none.proto]
        tests: {a: {request: {grpc: shop.v1.Orders/Gte}, expect: {grpc: OK}}}
        """,
    )
    assert main(["test", str(folder)]) == 1
    told = capsys.readouterr().err
    assert "protos/private.proto:1:" in told
    assert "the file cannot be read: No such file or directory" in told
    assert "did you mean 'shop.v1.Orders/Get'?" in told
