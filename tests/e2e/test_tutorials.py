"""The tutorials: a reader who copies their files and commands gets the results that they show."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.ports import free_port
from tests.support.wait import wait_for

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"
PORTS = ("8080", "9001", "9901", "9902", "18000", "18001", "19000", "19001")
"""The ports in the pages. Each reader has free ports in their place."""
DEFAULTS = {
    "xds run gateway": "--xds 127.0.0.1:18000 --admin 127.0.0.1:19000 --envoy-workers 1 --drain 1",
    "xds status": "--admin 127.0.0.1:19000",
    "xds limits": "--admin 127.0.0.1:19000",
}
"""The options that commands have by default, with their ports."""

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the tutorial calls openssl")


@dataclass(frozen=True)
class Program:
    """A program that a reader started."""

    process: subprocess.Popen[bytes]
    log: Path

    def logs(self, text: str) -> None:
        """Wait until the log contains a text."""
        wait_for(lambda: text in self.log.read_text(), f"the log to contain {text!r}")

    def stop(self) -> None:
        """End it. A shell that started the tests in the background may have its processes ignore SIGINT."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()


class Reader:
    """Follows a page in a folder. The programs that it starts end with `stack`."""

    def __init__(self, page: str, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._ports = {port: str(free_port()) for port in PORTS}
        self._blocks = _blocks(page)
        self._stack = stack
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        (folder / "gateway").mkdir()
        service = next(text for language, text in _blocks("first-gateway.md") if language == "python")
        (folder / "service.py").write_text(service)

    def block(self, language: str, containing: str) -> str:
        """The first block of this language that contains a text."""
        return next(text for name, text in self._blocks if name == language and containing in text)

    def gateway(self, text: str) -> None:
        """Save gateway.yaml."""
        (self.folder / "gateway" / "gateway.yaml").write_text(self._own(text))

    def run(self, command: str, status: int = 0) -> str:
        """The output of a command, which must end with `status`."""
        done = subprocess.run(
            ["bash", "-c", self._own(command)],
            check=False,
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def start(self, command: str) -> Program:
        """Start a command that goes on."""
        log = self.folder / f"{len(list(self.folder.glob('*.log')))}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self._own(command)}"],
                cwd=self.folder,
                env=self._environment,
                stdout=out,
                stderr=out,
            )
        program = Program(process, log)
        self._stack.callback(program.stop)
        return program

    def envoy(self, command: str) -> Program:
        """Start an Envoy, with a base id that no other Envoy of this machine has."""
        return self.start(f"{command.strip().replace('--base-id 2', '')} --use-dynamic-base-id")

    def get(self, path: str, **headers: str) -> httpx.Response:
        """The response of the gateway. Underscores in names of headers stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.get(f"http://localhost:{self._ports['8080']}{path}", headers=named)

    def until(self, path: str, text: str, **headers: str) -> None:
        """Wait until the gateway answers with this text."""
        wait_for(lambda: self.get(path, **headers).text == text, f"{path} to answer {text!r}")

    def rejected(self, path: str, **headers: str) -> httpx.Response:
        """The first response that says that there were too many requests."""

        def rejection() -> httpx.Response | None:
            response = self.get(path, **headers)
            return response if response.status_code == 429 else None

        return wait_for(rejection, f"{path} to be limited")  # type: ignore[return-value] # it waits for a true value

    def _own(self, text: str) -> str:
        """A text with this reader's ports."""
        for command, options in DEFAULTS.items():
            text = text.replace(command, f"{command} {options}")
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: self._ports[found[1]], text)


def _blocks(page: str) -> list[tuple[str, str]]:
    """The code blocks of a page: language and text."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", (TUTORIALS / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_the_first_gateway(tmp_path: Path, stack: ExitStack) -> None:
    reader = Reader("first-gateway.md", tmp_path, stack)
    whole = reader.block("yaml", "listeners:")
    above = whole.partition("routes:")[0]
    reader.gateway(whole)
    assert reader.run("xds check gateway") in reader.block("console", "xds check gateway")
    reader.start("python service.py users 9001")
    gateway = reader.start("xds run gateway")
    reader.until("/api/users/1", "users: GET /api/users/1\n")
    assert reader.get("/nowhere").headers["x-gateway-reason"] == "not_found"
    assert "1 Envoy connected" in reader.run("xds status")

    rewritten = above + reader.block("yaml", "rewrite:")
    reader.gateway(rewritten)
    reader.until("/api/users/1", "users: GET /v1/1\n")
    command, _, output = reader.block("console", "xds explain").removeprefix("$ ").partition("\n")
    assert reader.run(command) == output

    error = reader.block("", "upstrem").strip()
    reader.gateway(rewritten.replace("upstream: users", "upstrem: users"))
    gateway.logs(error)
    assert reader.get("/api/users/1").text == "users: GET /v1/1\n"
    assert error in reader.run("xds check gateway", status=1)
    assert error in reader.run("xds status", status=1)

    reader.gateway(above + reader.block("yaml", "rate_limit:"))
    response = reader.rejected("/api/users/1")
    assert response.headers["x-served-by"] == "my-gateway"
    assert response.headers["x-ratelimit-limit"] == "3"


@needs_openssl
def test_login_and_limits(tmp_path: Path, stack: ExitStack) -> None:
    reader = Reader("login-and-limits.md", tmp_path, stack)
    service, _, keys = reader.block("sh", "openssl rand").partition("&\n")
    acme, globex = reader.run(f"{keys}{reader.block('sh', 'consumers.yaml')}echo $ACME $GLOBEX").split()
    whole = reader.block("yaml", "listeners:")
    reader.gateway(whole)
    reader.run("xds check gateway")
    reader.start(service)
    reader.start("xds run gateway")
    reader.until("/api/users/1", "users: GET /v1/1\n", x_api_key=globex)
    assert reader.get("/api/users/1").headers["x-gateway-reason"] == "api_key_missing"
    response = reader.rejected("/api/users/1", x_api_key=acme)
    assert response.json()["violated-policies"] == ["plan-requests-per-minute"]
    assert reader.get("/api/users/1", x_api_key=globex).status_code == 200

    above = whole.partition("    policies:")[0]
    reader.gateway(above + reader.block("yaml", "concurrency:") + reader.block("yaml", "usage: true"))
    reader.until("/api/reports", "users: GET /api/reports\n", x_api_key=globex)
    assert reader.get("/api/reports", x_api_key=acme).headers["x-gateway-reason"] == "not_authorized"
    assert reader.get("/api/usage", x_api_key=acme).json()["plan"] == "free"
    assert "plan/pro|requests|fixed_window|hour|consumer=globex" in reader.run("xds limits")
    assert "reset" in reader.run("xds limits 'plan/free|' --reset")


@needs_openssl
def test_a_fleet_with_mutual_tls(tmp_path: Path, stack: ExitStack) -> None:
    reader = Reader("fleet-with-mtls.md", tmp_path, stack)
    certificates = reader.block("sh", "openssl req")
    issue, _, policy_server = reader.block("sh", "xds policy-server").partition("\n")
    reader.run(f"{certificates}{issue}")
    whole = reader.block("yaml", "listeners:")
    reader.gateway(whole)
    service, _, control_plane = reader.block("sh", "--no-proxy").partition("&\n")
    more = reader.block("sh", "--policy-server").partition("…")[2]
    reader.start(service)
    reader.start(control_plane.strip() + more)
    reader.start(policy_server)
    wait_for(
        lambda: "policy-server@" in reader.run("xds status"), "the policy server", also=(AssertionError,)
    )

    bootstrap, envoy = reader.block("sh", "--node-id envoy-1").split("\nenvoy ")
    reader.run(bootstrap)
    reader.envoy(f"envoy {envoy}")
    reader.until("/api/users/1", "users: GET /api/users/1\n")

    bootstrap, envoy = reader.block("sh", "--node-id envoy-2").split("\nenvoy ")
    reader.run(bootstrap)
    rejected = reader.envoy(f"envoy {envoy}")
    rejected.logs(reader.block("", "belongs to no group").strip())
    rejected.stop()
    reader.run(bootstrap.replace("certs/envoy-1", "certs/envoy-2"))
    reader.envoy(f"envoy {envoy}")
    wait_for(lambda: "\nenvoy-2 " in reader.run("xds status"), "the second Envoy", also=(AssertionError,))

    limit = "policies: {rate_limit: {requests: 5, per: minute, by: ip}}"
    assert f"`{limit}`" in (TUTORIALS / "fleet-with-mtls.md").read_text()
    reader.gateway(whole.replace("upstream: users}", f"upstream: users, {limit}}}"))
    assert reader.rejected("/api/users/1").headers["x-gateway-reason"] == "rate_limited"
