"""docker-compose.yml, the Dockerfile and the bootstrap agree with each other and with the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from xds_server.cli.main import main, parser
from xds_server.control_plane.compiler import Compiler
from xds_server.sources.folder import read_folder

ROOT = Path(__file__).resolve().parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_every_file_that_is_mounted_exists(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        assert (ROOT / volume.split(":")[0]).exists(), volume


def test_every_file_that_the_image_copies_exists() -> None:
    for line in DOCKERFILE.splitlines():
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source


def test_the_control_planes_command_is_one_that_there_is() -> None:
    words = SERVICES["control-plane"]["command"]
    arguments = parser(words[0]).parse_args(words)
    assert arguments.no_proxy
    mounted = [volume.split(":")[1] for volume in SERVICES["control-plane"]["volumes"]]
    assert arguments.folder in mounted
    published = {port.rpartition(":")[2] for port in SERVICES["control-plane"]["ports"]}
    assert published == {arguments.admin.rpartition(":")[2]}


def test_the_image_runs_the_command_by_default() -> None:
    assert 'ENTRYPOINT ["xds"]' in DOCKERFILE
    assert parser("run").parse_args(["run", "/gateway"]).folder == "/gateway"


def test_envoy_asks_the_control_plane_where_it_listens() -> None:
    (mounted,) = SERVICES["envoy"]["volumes"]
    bootstrap = yaml.safe_load((ROOT / mounted.split(":")[0]).read_text())
    (cluster,) = bootstrap["static_resources"]["clusters"]
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    address = endpoint["address"]["socket_address"]
    assert address["address"] == "control-plane"
    listens = parser("run").parse_args(SERVICES["control-plane"]["command"]).xds
    assert listens == f"0.0.0.0:{address['port_value']}"


def test_the_gateway_forwards_to_the_services_of_the_file() -> None:
    mounted = SERVICES["control-plane"]["volumes"][0].split(":")[0]
    environment = SERVICES["control-plane"]["environment"]
    sections = Compiler(environment).compile(read_folder(ROOT / mounted)).gateway.sections
    for name, upstream in sections.upstreams.items():
        (endpoint,) = upstream.endpoints
        assert endpoint.parsed.host == name
        assert name in SERVICES
        assert SERVICES[name]["command"] == [name, str(endpoint.parsed.port)]
    ports = {port.rpartition(":")[2] for port in SERVICES["envoy"]["ports"]}
    assert ports == {str(listener.port) for listener in sections.listeners.values()}


def test_the_gateway_of_the_file_is_without_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(ROOT / "examples" / "quickstart" / "gateway")]) == 0
