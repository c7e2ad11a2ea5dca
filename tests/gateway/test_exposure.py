"""Warnings of gRPC methods that two routes expose with different policies."""

from __future__ import annotations

import pytest

from tests.gateway.test_protos import annotated
from tests.support.reading import warnings
from xds_server.gateway.reader import Reader
from xds_server.sources.protoc import ProtoCompiler

PROTO = annotated('get: "/v1/{name}"')
YAML = """
listeners: {http: {port: 8080}}
identity: {corp: {issuer: corp, jwks: {url: "https://idp.example/jwks"}}}
upstreams:
  a: {endpoints: ["127.0.0.1:1"], protocol: grpc}
  b: {endpoints: ["127.0.0.1:2"], protocol: grpc}
routes:
  rest: {path: /v1/*, upstream: a, policies: {jwt: corp, rate_limit: 5/minute, grpc_transcoding: {protos: [x.proto]}}}
"""
WARNING = (
    "routes.{}: the method p.v1.S/M can also be called by the route 'rest', which has other policies: {}"
)


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ("grpc: {path: /p.v1.S/*, upstream: a, policies: {jwt: corp, rate_limit: 5/minute}}", []),
        ("grpc: {path: /p.v1.S/*, upstream: a}", [("grpc", "jwt, rate_limit")]),
        ("grpc: {path: /p.v1.S/*, upstream: a, policies: {jwt: corp, rate_limit: 6/minute}}", [("grpc", "rate_limit")]),
        ("grpc: {path: /p.v1.S/*, upstream: a, policies: {jwt: corp, rate_limit: 5/minute, ip_access: {deny: [10.0.0.1]}}}", [("grpc", "ip_access")]),
        ("grpc: {path: /p.v1.S/*, upstream: b}", []),
        ("grpc: {path: /p.v1.S/*, upstream: a, methods: [GET]}", []),
        ("grpc: {path: /p.v1.S/Other, upstream: a}", []),
        ("all: {path: /*, upstream: a, policies: {jwt: corp}}", [("all", "rate_limit")]),
        ("all: {path: /*, upstream: a}\n  grpc: {path: /p.v1.S/*, upstream: a, policies: {jwt: corp, rate_limit: 5/minute}}", []),
        ("all: {path: /*, upstream: a}\n  grpc: {path: /p.v1.S/*, hosts: [b.test], upstream: a, policies: {jwt: corp, rate_limit: 5/minute}}", [("all", "jwt, rate_limit")]),
        ("cors: {path: /p.v1.S/*, upstream: a, policies: {jwt: corp, rate_limit: 5/minute, cors: {allow_origins: ['*']}, compression: true}}", []),
        ("two: {path: /v2/*, upstream: a, policies: {grpc_transcoding: {protos: [x.proto], prefix: /v2}}}", [("two", "jwt, rate_limit")]),
    ],
)  # fmt: skip
def test_a_method_with_two_ways_in_has_the_same_policies_on_both(
    routes: str, expected: list[tuple[str, str]]
) -> None:
    files = {"g.yaml": f"{YAML}  {routes}\n".encode(), "x.proto": PROTO.encode()}

    def load(name: str) -> bytes:
        if name not in files:
            raise FileNotFoundError(2, "No such file or directory", name)
        return files[name]

    reading = Reader().read({"g.yaml": files["g.yaml"]}, load, {}, compile_protos=ProtoCompiler())
    found = [one for one in warnings(reading) if "by the route 'rest'" in one]
    assert found == [WARNING.format(*one) for one in expected]
