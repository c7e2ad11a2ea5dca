"""docker-compose.yml, the Dockerfile and all that they mount agree with each other and with the command."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from xds_server.cli.main import main, parser
from xds_server.control_plane.compiler import Compiler
from xds_server.sources.folder import read_folder

ROOT = Path(__file__).resolve().parents[1]
FULL = "./examples/observability/gateway"
QUICKSTART = "./examples/quickstart/gateway"
TEXT = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def _compose(**environment: str) -> dict[str, Any]:
    """The file with `${NAME:-default}` filled as Docker Compose fills it."""
    filled = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: environment.get(found[1], found[2]), TEXT)
    result: dict[str, Any] = yaml.safe_load(filled)
    return result


COMPOSE = _compose(GATEWAY=FULL)
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = [name for name, one in SERVICES.items() if "build" in one and "entrypoint" not in one]
IMAGES = [name for name, one in SERVICES.items() if "image" in one]


def _mounts(name: str) -> dict[str, str]:
    """The files and folders of the repository that a service sees, by their paths in the container."""
    volumes = [one.split(":") for one in SERVICES[name].get("volumes", [])]
    return {parts[1]: parts[0] for parts in volumes if parts[0].startswith(".")}


def _arguments(name: str) -> argparse.Namespace:
    words = SERVICES[name]["command"]
    return parser(words[0]).parse_args(words)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _gateway(folder: str) -> Any:
    environment = SERVICES["control-plane"]["environment"]
    return Compiler(environment).compile(read_folder(ROOT / folder)).gateway.sections


def _listens(name: str) -> set[int]:
    """The ports at which a service listens."""
    service = SERVICES[name]
    words = [str(word) for word in service.get("command", [])]
    if name in OURS:
        arguments = _arguments(name)
        flags = {"run": ("xds", "admin", "console")}.get(words[0], ("listen", "admin"))
        addresses = [getattr(arguments, flag) for flag in flags]
        return {_port(one) for one in addresses if not one.startswith("unix:")}
    if name == "envoy":
        sections = [_gateway(folder) for folder in (QUICKSTART, FULL)]
        return {listener.port for one in sections for listener in one.listeners.values()}
    if name == "collector":
        (file,) = _mounts(name).values()
        protocols = yaml.safe_load((ROOT / file).read_text())["receivers"]["otlp"]["protocols"]
        return {_port(one["endpoint"]) for one in protocols.values()}
    if name == "postgres":
        return {5432}  # of the image
    if name == "grafana":
        return {int(service["environment"]["GF_SERVER_HTTP_PORT"])}
    if name == "prometheus":
        (address,) = (word for word in words if word.startswith("--web.listen-address="))
        return {_port(address)}
    if name == "counters":
        return {int(words[words.index("--port") + 1])}
    assert service["entrypoint"] == ["python", "/services.py"]
    return {int(words[1])}


def _names() -> dict[str, list[str]]:
    """The services behind each name in the network."""
    names = {name: [name] for name in SERVICES}
    for name, service in SERVICES.items():
        for alias in service.get("networks", {}).get("default", {}).get("aliases", []):
            names.setdefault(alias, []).append(name)
    return names


def _texts(name: str) -> list[str]:
    """Everything in which a service may name another one."""
    service = SERVICES[name]
    texts = [str(word) for word in service.get("command", [])]
    texts += [str(value) for value in service.get("environment", {}).values()]
    for mount in _mounts(name).values():
        path = ROOT / mount
        files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
        texts += [one.read_text() for one in files if one.suffix in {".yaml", ".json"}]
    return texts


@pytest.mark.parametrize("name", SERVICES)
def test_every_file_that_is_mounted_exists(name: str) -> None:
    for inside, mount in _mounts(name).items():
        assert (ROOT / mount).exists(), mount
        assert inside.startswith("/")
    named = {one.split(":")[0] for one in SERVICES[name].get("volumes", [])} - set(_mounts(name).values())
    assert named <= COMPOSE["volumes"].keys()


def test_every_volume_is_used() -> None:
    used = {volume.split(":")[0] for one in SERVICES.values() for volume in one.get("volumes", [])}
    assert COMPOSE["volumes"].keys() <= used


def test_every_file_that_the_image_copies_exists() -> None:
    for line in DOCKERFILE.splitlines():
        if line.startswith("COPY ") and "--from=" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source


def test_images_are_pinned() -> None:
    (base, *stages) = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert set(stages) <= set(re.findall(r" AS (\S+)$", DOCKERFILE, re.MULTILINE))
    for image in (base, *(SERVICES[name]["image"] for name in IMAGES)):
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", image), image


@pytest.mark.parametrize("name", OURS)
def test_a_command_is_one_that_there_is(name: str) -> None:
    arguments = _arguments(name)
    for value in vars(arguments).values():
        if isinstance(value, str) and value.startswith("/"):
            inside = [one.split(":")[1] for one in SERVICES[name]["volumes"]]
            assert any(value == one or value.startswith(f"{one}/") for one in inside), value


@pytest.mark.parametrize("name", SERVICES)
def test_a_port_that_a_service_names_is_one_at_which_the_other_listens(name: str) -> None:
    names = _names()
    pattern = re.compile(rf"(?<![\w.-])({'|'.join(names)}):(\d+)(?!\d)")
    for text in _texts(name):
        for host, port in pattern.findall(text):
            for service in names[host]:
                assert int(port) in _listens(service), f"{name} calls {service}:{port}"


@pytest.mark.parametrize("name", SERVICES)
def test_a_published_port_is_one_at_which_the_service_listens(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert _port(port) in _listens(name)
        assert port.startswith("127.0.0.1:") or name == "envoy", (
            "only clients of the gateway come from outside"
        )


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_another_one_needs_starts_with_it(name: str) -> None:
    service = SERVICES[name]
    needed = service.get("depends_on", {})
    for other in needed:
        assert set(SERVICES[other].get("profiles", [])) <= set(service.get("profiles", [])), other
        if isinstance(needed, dict) and needed[other]["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]


def test_the_quickstart_is_four_services_and_mounts_its_gateway() -> None:
    default = {name for name, one in SERVICES.items() if "profiles" not in one}
    assert default == {"control-plane", "envoy", "users", "orders"}
    mounted = _compose()["services"]["control-plane"]["volumes"]
    assert mounted == [f"{QUICKSTART}:/gateway:ro"]
    assert {tuple(one["profiles"]) for one in SERVICES.values() if "profiles" in one} == {("full",)}


def test_the_control_plane_sends_envoy_to_the_servers_of_the_file() -> None:
    arguments = _arguments("control-plane")
    assert arguments.no_proxy
    for flag, command in (("policy_server", "policy-server"), ("usage_server", "usage-server")):
        host, _, port = getattr(arguments, flag).rpartition(":")
        behind = _names()[host]
        assert {name for name in OURS if SERVICES[name]["command"][0] == command} == set(behind)
        assert {_port(_arguments(name).listen) for name in behind} == {int(port)}


def test_the_composer_and_envoy_share_the_sockets_that_the_control_plane_names() -> None:
    control, composer = _arguments("control-plane"), _arguments("composer")
    assert (control.composer, control.composer_calls) == (composer.listen, composer.calls)
    (volume,) = SERVICES["composer"]["volumes"]
    name, _, folder = volume.partition(":")
    assert {str(Path(one.removeprefix("unix:")).parent) for one in (composer.listen, composer.calls)} == {
        folder
    }
    assert volume in SERVICES["envoy"]["volumes"]
    assert name in COMPOSE["volumes"]


def test_policy_servers_share_their_counters() -> None:
    stores = {_arguments(name).counters for name in OURS if name.startswith("policy-server")}
    assert stores == {"redis://counters:6379"}


def test_the_usage_server_opens_the_database_of_the_file() -> None:
    found = re.fullmatch(r"postgresql://(\w+)@postgres:\d+/(\w+)", _arguments("usage-server").store)
    assert found is not None
    theirs = SERVICES["postgres"]["environment"]
    assert found.groups() == (theirs["POSTGRES_USER"], theirs["POSTGRES_DB"])
    assert SERVICES["usage-server"]["environment"]["PGPASSWORD"] == theirs["POSTGRES_PASSWORD"]
    assert "'.[postgresql,waf]'" in DOCKERFILE


@pytest.mark.parametrize("name", ["usage-server", "composer"])
def test_a_volume_is_at_a_folder_that_the_user_of_the_image_owns(name: str) -> None:
    (volume,) = SERVICES[name]["volumes"]
    owned = re.search(r"--owner xds --mode 0700 (.+)\n", DOCKERFILE)
    assert owned is not None
    assert volume.split(":")[1] in owned[1].split()


def test_the_image_runs_the_command_by_default() -> None:
    assert 'ENTRYPOINT ["xds"]' in DOCKERFILE
    assert parser("run").parse_args(["run", "/gateway"]).folder == "/gateway"


def test_envoy_reads_the_bootstrap_that_is_mounted() -> None:
    command = SERVICES["envoy"]["command"]
    ((inside, mounted),) = _mounts("envoy").items()
    assert command[command.index("-c") + 1] == inside
    bootstrap = yaml.safe_load((ROOT / mounted).read_text())
    (cluster,) = bootstrap["static_resources"]["clusters"]
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    address = endpoint["address"]["socket_address"]
    assert address["address"] == "control-plane"
    assert address["port_value"] == _port(_arguments("control-plane").xds)
    admin = bootstrap["admin"]["address"]["socket_address"]
    (scraped,) = _gateway(FULL).upstreams["envoy-admin"].endpoints
    assert (scraped.parsed.host, scraped.parsed.port) == (admin["address"], admin["port_value"])


@pytest.mark.parametrize("folder", [QUICKSTART, FULL])
def test_the_gateway_forwards_to_the_services_of_the_file(folder: str) -> None:
    for name, upstream in _gateway(folder).upstreams.items():
        if name != "envoy-admin":
            (endpoint,) = upstream.endpoints
            assert endpoint.parsed.host == name
            assert endpoint.parsed.port in _listens(name)


def test_prometheus_scrapes_every_process_and_reads_the_files_that_are_mounted() -> None:
    mounts = _mounts("prometheus")
    (flag,) = (one for one in SERVICES["prometheus"]["command"] if one.startswith("--config.file="))
    file = flag.partition("=")[2]
    config = yaml.safe_load((ROOT / mounts[file]).read_text())
    assert all(f"{Path(file).parent}/{rules}" in mounts for rules in config["rule_files"])
    targets = {
        target
        for job in config["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    admin = {f"{name}:{_port(_arguments(name).admin)}" for name in OURS}
    assert targets == admin | {f"envoy:{_gateway(FULL).listeners['metrics'].port}"}


def test_grafana_finds_its_data_source_and_its_dashboard() -> None:
    mounts = _mounts("grafana")
    provisioning = "/etc/grafana/provisioning"
    (source,) = yaml.safe_load(
        (ROOT / mounts[f"{provisioning}/datasources"] / "prometheus.yaml").read_text()
    )["datasources"]
    assert source["url"] == "${PROMETHEUS_URL}"
    assert "PROMETHEUS_URL" in SERVICES["grafana"]["environment"]
    (provider,) = yaml.safe_load((ROOT / mounts[f"{provisioning}/dashboards"] / "gateway.yaml").read_text())[
        "providers"
    ]
    assert any(inside.startswith(f"{provider['options']['path']}/") for inside in mounts)


def test_the_collector_uses_what_it_defines() -> None:
    ((inside, mounted),) = _mounts("collector").items()
    assert SERVICES["collector"]["command"] == ["--config", inside]
    config = yaml.safe_load((ROOT / mounted).read_text())
    for pipeline in config["service"]["pipelines"].values():
        for kind, names in pipeline.items():
            assert set(names) <= config[kind].keys()


@pytest.mark.parametrize("folder", [QUICKSTART, FULL])
def test_the_gateway_of_the_file_is_without_errors(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(ROOT / folder)]) == 0, capsys.readouterr().out
