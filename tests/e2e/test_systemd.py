"""examples/systemd: the units run, fit each other and their guide, and are hardened."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.ports import free_port
from tests.support.wait import wait_for
from xds_server.cli.main import main, parser

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "how-to" / "run-with-systemd.md").read_text()
UNITS = {path.stem: path for path in sorted((ROOT / "examples" / "systemd").glob("*.service"))}
ANALYZE = shutil.which("systemd-analyze")
analyzed = pytest.mark.skipif(ANALYZE is None, reason="there is no systemd-analyze")
OURS = [name for name in UNITS if name != "xds-envoy"]
PROGRAMS = "/opt/xds/bin/"
MOST_EXPOSURE = 20
"""In tenths, of systemd-analyze security: 100 is a service without any protection."""


def _settings(text: str) -> Iterator[tuple[str, str]]:
    for line in text.replace("\\\n", " ").splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            yield key, value


def _setting(name: str, key: str) -> list[str]:
    return [value for found, value in _settings(UNITS[name].read_text()) if found == key]


def _words(name: str) -> list[str]:
    (command,) = _setting(name, "ExecStart")
    return shlex.split(command)


def _arguments(name: str) -> argparse.Namespace:
    program, *words = _words(name)
    assert program == f"{PROGRAMS}xds"
    return parser(words[0]).parse_args(words)


def test_the_guide_names_every_unit_and_every_file() -> None:
    for name, path in UNITS.items():
        assert name in GUIDE
        for file in re.findall(r"/etc/xds(?:/[\w.-]+)*", path.read_text()):
            assert file in GUIDE, f"{path}: {file}"
        for group in _setting(name, "SupplementaryGroups"):
            assert f"groupadd --system {group}" in GUIDE
    for name in re.findall(r"\bxds-[a-z-]+\.service", GUIDE):
        assert name.removesuffix(".service") in UNITS, name


def test_the_processes_find_each_other() -> None:
    run, policies, usage, composer = (
        _arguments(f"xds-{name}") for name in ("control-plane", "policy-server", "usage-server", "composer")
    )
    assert run.no_proxy
    assert (run.policy_server, run.usage_server) == (policies.listen, usage.listen)
    assert (run.composer, run.composer_calls) == (composer.listen, composer.calls)
    assert policies.xds == composer.xds == run.xds
    for key in ("User", "RuntimeDirectory", "RuntimeDirectoryMode", "RuntimeDirectoryPreserve"):
        assert _setting("xds-envoy", key) == _setting("xds-composer", key), key
    command = re.search(r"xds bootstrap (.*?) >", GUIDE)
    assert command is not None
    envoy = parser("bootstrap").parse_args(["bootstrap", *shlex.split(command[1])])
    assert envoy.xds == run.xds
    (drain, _) = _setting("xds-envoy", "ExecStop")
    assert f":{envoy.admin_port}/" in drain
    addresses = [run.xds, run.admin, run.console, policies.listen, policies.admin, usage.listen, usage.admin]
    addresses += [composer.listen, composer.calls, composer.admin]
    assert len(set(map(str, addresses))) == len(addresses)


@pytest.mark.parametrize("name", OURS)
def test_what_a_process_writes_is_in_its_state_directory(name: str) -> None:
    (directory,) = _setting(name, "StateDirectory")
    written = re.findall(r"/var/lib/[\w-]+", UNITS[name].read_text())
    assert set(written) == {f"/var/lib/{directory}"}
    assert directory == name


@pytest.mark.parametrize("name", UNITS)
def test_envoy_and_systemd_wait_for_requests_in_progress(name: str) -> None:
    (limit,) = _setting(name, "TimeoutStopSec")
    if name == "xds-envoy":
        words = _words(name)
        (_, wait) = _setting(name, "ExecStop")
        assert float(words[words.index("--drain-time-s") + 1]) < float(wait.split()[-1])
    drain = (
        max(float(one.split()[-1]) for one in _setting(name, "ExecStop")[1:])
        if name == "xds-envoy"
        else float(_arguments(name).drain)
    )
    assert drain < float(limit.removesuffix("s"))


@analyzed
@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_a_unit_and_finds_it_hardened(name: str, tmp_path: Path) -> None:
    assert ANALYZE is not None
    programs = f"{Path(sys.executable).parent}/"
    file = tmp_path / UNITS[name].name
    file.write_text(
        UNITS[name].read_text().replace(PROGRAMS, programs).replace("xds-control-plane.service", "")
    )
    for command in (["verify"], ["security", "--offline=true", f"--threshold={MOST_EXPOSURE}"]):
        done = subprocess.run([ANALYZE, *command, str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr, done.stderr


GATEWAY = """
listeners:
  http: {{port: {port}, address: 127.0.0.1}}
upstreams:
  echo: {{endpoints: ["{echo}"]}}
telemetry: {{usage: true}}
routes:
  limited: {{path: /limited, upstream: echo, policies: {{rate_limit: 2/hour}}}}
  composed: {{path: /composed, aggregate: {{calls: {{a: {{upstream: echo, path: /a}}}}, response: {{called: true}}}}}}
"""


def test_the_units_run_a_gateway(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ports = {
        str(port): str(free_port()) for port in (18000, 18001, 18002, 19000, 19001, 19002, 19003, 19080, 9901)
    }
    places = {PROGRAMS: f"{Path(sys.executable).parent}/", "/etc/xds": f"{tmp_path}/etc"}
    (tmp_path / "run").mkdir()
    places |= {"/run/xds-envoy": f"{tmp_path}/run"}
    places |= {"/var/lib": f"{tmp_path}/state", "%H": "edge"} | {
        f":{old}": f":{new}" for old, new in ports.items()
    }

    def moved(text: str) -> str:
        for old, new in places.items():
            text = text.replace(old, new)
        return text

    port = free_port()
    with Backend() as backend, ExitStack() as running:
        folder = tmp_path / "etc" / "gateway"
        folder.mkdir(parents=True)
        (folder / "gateway.yaml").write_text(GATEWAY.format(port=port, echo=backend.address))
        (control, admin) = (ports[name] for name in ("18000", "9901"))
        assert main(["bootstrap", "--xds", f"127.0.0.1:{control}", "--admin-port", admin]) == 0
        (tmp_path / "etc" / "envoy.yaml").write_text(capfd.readouterr().out)
        for name in UNITS:
            state = tmp_path / "state" / name
            state.mkdir(parents=True)
            log = running.enter_context((tmp_path / f"{name}.log").open("wb"))
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(
                [moved(word) for word in _words(name)], cwd=state, env=environment, stdout=log, stderr=log
            )
            running.callback(process.wait)
            running.callback(process.terminate)

        def status() -> int:
            return httpx.get(f"http://127.0.0.1:{port}/limited", timeout=30).status_code

        def logs() -> str:
            return "".join(file.read_text()[-1500:] for file in tmp_path.glob("*.log"))

        wait_for(lambda: status() == 429, lambda: f"the limit:\n{logs()}")
        composed = f"http://127.0.0.1:{port}/composed"
        wait_for(
            lambda: httpx.get(composed, timeout=30).text == '{"called":true}', lambda: f"calls:\n{logs()}"
        )
        for number in ("19000", "19001", "19002", "19003"):
            wait_for(
                lambda url=f"http://127.0.0.1:{ports[number]}/ready": httpx.get(url).status_code == 200,
                number,
            )
        metrics = f"http://127.0.0.1:{ports['19002']}/metrics"
        counted = 'xds_usage_counted_total{outcome="counted"} '
        wait_for(lambda: re.search(rf"{re.escape(counted)}[1-9]", httpx.get(metrics).text), "counted entries")
        assert (tmp_path / "state" / "xds-control-plane" / "gateway.state").exists()
        drain = shlex.split(_setting("xds-envoy", "ExecStop")[0])
        assert drain[-3:-1] == ["--request", "POST"]
        assert httpx.post(moved(drain[-1])).status_code == 200
