"""`xds run` with a policy in Python: the policy server is there when it is needed, and goes with the control plane."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.folder import filled, write
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for
from xds_server.cli.main import main

POLICY = "from filters.ext_authz import deny\ndef check(request):\n    return deny(409, body='VERSION')\n"


def gateway(port: int, policies: str) -> str:
    return filled(
        """
    listeners: {http: {port: $port, address: 127.0.0.1}}
    routes: {a: {path: /a, respond: {body: plain}, policies: $policies}}
    """,
        port=port,
        policies=policies,
    )


class Served:
    def __init__(self, folder: Path, port: int, running: Running) -> None:
        self.folder, self.port, self.running = folder, port, running

    def get(self) -> tuple[int, str]:
        answer = httpx.get(f"http://127.0.0.1:{self.port}/a", timeout=10)
        return answer.status_code, answer.text

    def until(self, status: int, text: str) -> None:
        wait_for(
            lambda: self.get() == (status, text), lambda: f"{text}; the log:\n{self.running.log[-3000:]}"
        )

    def policy_servers(self) -> list[int]:
        assert self.running.process is not None
        found = subprocess.run(
            ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        rows = [line.split(None, 2) for line in found[1:]]
        return [
            int(pid)
            for pid, parent, command in rows
            if int(parent) == self.running.process.pid and "policy-server" in command
        ]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    folder, port = tmp_path / "gateway", free_port()
    write(folder, gateway=gateway(port, "{}"))
    (folder / "p.py").write_text(POLICY.replace("VERSION", "one"))
    with Running(folder, tmp_path) as running:
        served = Served(folder, port, running)
        served.until(200, "plain")
        yield served


def test_it_runs_from_the_first_policy_on(
    served: Served,
) -> None:
    """It follows the file of the policy, and comes back when it is killed."""
    assert served.policy_servers() == []
    write(served.folder, gateway=gateway(served.port, '{ext_authz: {python: "p.py:check"}}'))
    served.until(409, "one")
    (served.folder / "p.py").write_text(POLICY.replace("VERSION", "two"))
    served.until(409, "two")
    (served.folder / "p.py").write_text("def check(:")
    served.running.says("p.py:1: ")
    assert served.get() == (409, "two")
    (pid,) = served.policy_servers()
    os.kill(pid, signal.SIGKILL)
    served.running.says("the policy server ended; it is started again")
    served.until(409, "two")
    (again,) = served.policy_servers()
    assert served.running.stop() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(again, 0)


def test_the_policy_server_decides_as_soon_as_the_gateway_is_ready(tmp_path: Path) -> None:
    folder, port = tmp_path / "gateway", free_port()
    write(folder, gateway=gateway(port, '{ext_authz: {python: "p.py:check"}}'))
    (folder / "p.py").write_text(POLICY.replace("VERSION", "one"))
    with Running(folder, tmp_path) as running:
        running.says("ready http://")
        assert Served(folder, port, running).get() == (409, "one")


def test_what_is_no_address_of_a_policy_server_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(tmp_path), "--policy-server", "nowhere"]) == 2
    assert "--policy-server" in capsys.readouterr().err
