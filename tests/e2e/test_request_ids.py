"""Request ids in the real Envoy: made by the gateway or taken from trusted callers, and the same everywhere."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest

from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.wait import wait_for

YAML = """
listeners:
  http: {port: $port, address: 127.0.0.1, request_id_format: $format, trust_request_id: $trust}
upstreams:
  echo: {endpoints: ["$echo"]}
telemetry: {access_logs: {lines: {}}}
consumers: {acme: {api_keys: [{sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b}]}}
policies: {request_id: true}
routes:
  echo: {path: /*, upstream: echo}
  closed: {path: /closed, upstream: echo, policies: {api_key: {header: x-key}}}
"""
MINE = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"


def _id(gateway: Gateway, path: str, **headers: str) -> str:
    """The id of a request, which is the same in response, upstream or problem, and log."""
    response = gateway.get(path, headers=headers)
    found = response.headers["x-request-id"]
    body = response.json()
    assert found == (body["request_id"] if "request_id" in body else body["headers"]["x-request-id"])
    wait_for(lambda: found in [one["request_id"] for one in gateway.envoy.access_log()], "the line")
    return found


@pytest.mark.parametrize("path", ["/x", "/closed"])
@pytest.mark.parametrize(("form", "version"), [("uuid4", 4), ("uuid7", 7)])
def test_a_strangers_id_is_replaced(
    tmp_path: Path, backend: Backend, form: str, version: int, path: str
) -> None:
    with Gateways(tmp_path) as gateways:
        gateway = gateways.start(YAML, echo=backend.address, format=form, trust="false")
        before = time.time()
        backend.seen.clear()
        for headers in ({}, {"x-request-id": MINE}, {"x-gateway-request-id": MINE}):
            found = _id(gateway, path, **headers)
            assert found != MINE
            assert (uuid.UUID(found).version, uuid.UUID(found).variant) == (version, uuid.RFC_4122)
            if version == 7:
                assert not any("x-gateway-request-id" in seen["headers"] for seen in backend.seen)
                assert before - 1 <= (uuid.UUID(found).int >> 80) / 1000 <= time.time() + 1


@pytest.mark.parametrize("form", ["uuid4", "uuid7"])
def test_a_trusted_callers_id_is_kept(tmp_path: Path, backend: Backend, form: str) -> None:
    with Gateways(tmp_path) as gateways:
        gateway = gateways.start(YAML, echo=backend.address, format=form, trust="true")
        assert _id(gateway, "/x", **{"x-request-id": MINE}) == MINE
        assert uuid.UUID(_id(gateway, "/x")).version == int(form[-1])
