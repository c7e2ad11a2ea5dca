"""xds descriptors: the descriptor set of a server with reflection, which grpc_transcoding takes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tests.support.folder import compiled, write
from tests.support.ports import free_port
from xds_server.cli.main import main

YAML = """
listeners: {http: {port: 8080}}
upstreams: {a: {endpoints: ["127.0.0.1:1"], protocol: grpc}}
routes:
  health:
    path: /health/*
    upstream: a
    policies: {grpc_transcoding: {descriptors: health.pb, methods: {grpc.health.v1.Health/Check: {get: "/health/{service}"}}}}
"""


@contextmanager
def serving(*, reflect: bool) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    if reflect:
        reflection.enable_server_reflection(("grpc.health.v1.Health", reflection.SERVICE_NAME), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_a_gateway_takes_the_descriptors_of_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, gateway=YAML)
    with serving(reflect=True) as address:
        assert main(["descriptors", address, "--file", str(folder / "health.pb")]) == 0
    assert "1 service: grpc.health.v1.Health" in capsys.readouterr().out
    assert sorted(file.name for file in folder.iterdir()) == ["gateway.yaml", "health.pb"]
    assert compiled(folder).snapshot


def test_a_server_without_reflection_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(reflect=False) as address:
        assert main(["descriptors", address, "--file", str(tmp_path / "x.pb")]) == 3
    assert "has no descriptors: Method not found!" in capsys.readouterr().err
    assert main(["descriptors", f"127.0.0.1:{free_port()}"]) == 3
    assert "has no descriptors" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
