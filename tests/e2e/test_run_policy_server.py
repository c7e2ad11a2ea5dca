"""`xds run` with a policy in Python: the policy server is there when it is needed, and goes with the control plane."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.folder import write
from tests.support.running import Served
from tests.support.wait import wait_for
from xds_server.cli.main import main

POLICY = "from filters.ext_authz import deny\ndef check(request):\n    return deny(409, body='VERSION')\n"


YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
routes: {a: {path: /a, respond: {body: $version}, policies: $policies}}
"""
DECIDED = '{ext_authz: {python: "p.py:check", timeout: 20s}}'


class Decided(Served):
    """`xds run` on a gateway whose only route may have a policy in Python."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, YAML, policies="{}")
        self.policy("one")

    def policy(self, version: str) -> None:
        write(self.folder, {"p.py": POLICY.replace("VERSION", version)})

    def answer(self) -> tuple[int, str]:
        answer = self.get("/a")
        return answer.status_code, answer.text

    def until_answer(self, status: int, text: str) -> None:
        wait_for(lambda: self.answer() == (status, text), lambda: f"{text}; the log:\n{self.log[-3000:]}")

    def policy_servers(self) -> list[int]:
        assert self.process is not None
        found = subprocess.run(
            ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        rows = [line.split(None, 2) for line in found[1:]]
        return [
            int(pid)
            for pid, parent, command in rows
            if int(parent) == self.process.pid and "policy-server" in command
        ]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Decided]:
    served = Decided(tmp_path)
    served.write("plain")
    with served:
        served.until_answer(200, "plain")
        yield served


def test_it_runs_from_the_first_policy_on(
    served: Decided,
) -> None:
    """It follows the file of the policy, and comes back when it is killed."""
    assert served.policy_servers() == []
    served.write("plain", policies=DECIDED)
    served.until_answer(409, "one")
    served.policy("two")
    served.until_answer(409, "two")
    (served.folder / "p.py").write_text("def check(:")
    served.says("p.py:1: ")
    assert served.answer() == (409, "two")
    (pid,) = served.policy_servers()
    os.kill(pid, signal.SIGKILL)
    served.says("the policy server ended; it is started again")
    served.until_answer(409, "two")
    (again,) = served.policy_servers()
    assert served.stop() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(again, 0)


def test_the_policy_server_decides_as_soon_as_the_gateway_is_ready(tmp_path: Path) -> None:
    served = Decided(tmp_path)
    served.write("plain", policies=DECIDED)
    with served:
        served.says("ready http://")
        assert served.answer() == (409, "one")


def test_what_is_no_address_of_a_policy_server_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(tmp_path), "--policy-server", "nowhere"]) == 2
    assert "--policy-server" in capsys.readouterr().err


def test_a_rule_that_policy_servers_reject_is_reported_until_it_is_mended(served: Decided) -> None:
    served.write("plain", policies=DECIDED)
    served.until_answer(409, "one")
    (served.folder / "p.py").write_text(f"import no_such_module\n{POLICY}")
    served.says("no_such_module")
    wait_for(lambda: _rejected(served) == [False], "the rejection")
    assert [one["type"] for one in served.status()["held"]] == ["PythonPolicy"]
    assert served.answer() == (409, "one")
    served.policy("two")
    served.until_answer(409, "two")
    wait_for(lambda: _rejected(served) == [True], "the mended rule")
    assert served.status()["held"] == []


def _rejected(served: Decided) -> list[bool]:
    """For each client with a rejection, if it is mended."""
    return [one["rejection"]["mended"] for one in served.status()["envoys"] if one["rejection"]]
