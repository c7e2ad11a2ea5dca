"""`xds ci` through the real Envoy, and the ready-made steps for pipelines."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from tests.support.git import WorkingTree
from xds_server.cli.main import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "ci"
GATEWAY = """
listeners: {{http: {{port: 8080}}}}
upstreams: {{users: {{endpoints: [192.0.2.1:80]}}}}
routes: {{users: {{path: /users/*, upstream: users, timeout: {timeout}}}}}
"""
TESTS = """
upstreams: {users: {status: 200, body: ada}}
tests:
  a user is read: {request: /users/1, expect: {status: 200, body: NAME}}
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkingTree:
    tree = WorkingTree(tmp_path / "tree")
    tree.write("gateway/tests/users.yaml", TESTS.replace("NAME", "ada"))
    tree.commit("Old", **{"gateway/gateway": GATEWAY.format(timeout="5s")})
    tree.git("update-ref", "refs/remotes/origin/main", "HEAD")
    tree.commit("New", **{"gateway/gateway": GATEWAY.format(timeout="1m")})
    monkeypatch.chdir(tree.path)
    return tree


CI = ["ci", "gateway", "--against", "origin/main"]


def test_one_run_makes_one_report_in_every_form(
    tree: WorkingTree, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [word for name in ("r.json", "r.xml", "r.md") for word in ("--write", name)]
    assert main([*CI, *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-5:] == [
        "check: 0 errors, 0 warnings",
        "envoy: accepted",
        "tests: 1 passed, 0 failed",
        "diff: 1 change against origin/main",
        "gateway: passed",
    ]
    assert "      timeout: 5s → 1m" in lines
    data = json.loads((tree.path / "r.json").read_text())
    assert data["passed"] is True
    assert data["tests"]["passed"] == 1
    assert data["diff"]["gateway"][0]["keys"] == ["timeout"]
    root = ElementTree.fromstring((tree.path / "r.xml").read_text())
    assert [one.get("name") for one in root] == ["check", "envoy", "tests/users.yaml"]
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "0", "0")
    page = (tree.path / "r.md").read_text()
    assert "### Gateway gateway: passed" in page
    assert "<code>timeout</code>: <code>5s</code> → <code>1m</code>" in page


def test_a_failed_test_is_told_in_every_form(tree: WorkingTree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.write("gateway/tests/users.yaml", TESTS.replace("NAME", "eve"))
    for form, text in (
        ("text", "tests: FAILED: 0 passed, 1 failed"),
        ("json", '"failed": 1'),
        ("junit", "<failure message="),
        ("markdown", "| tests | **failed**: 0 passed, 1 failed |"),
    ):
        assert main([*CI, "--output", form]) == 1
        assert text in capsys.readouterr().out


def test_errors_of_the_gateway_leave_the_other_steps_out(
    tree: WorkingTree, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.write("gateway/gateway.yaml", "routes: {a: {path: /a, upstrem: b}}\n")
    for form, text in (
        ("text", "gateway.yaml:1:24: error"),
        ("json", "did you mean 'upstream'?"),
        ("junit", "<error message="),
        ("markdown", "### Gateway gateway: failed"),
    ):
        assert main([*CI, "--output", form]) == 1
        assert text in capsys.readouterr().out


def test_what_envoy_rejects_is_told(tree: WorkingTree, capsys: pytest.CaptureFixture[str]) -> None:
    odd = "upstreams: {odd: {endpoints: [], envoy: {connect_timeout: -1s}}}\n"
    tree.write("gateway/odd.yaml", odd + "routes: {odd: {path: /odd, upstream: odd}}\n")
    assert main(CI) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("odd.yaml:1:13: error: upstreams.odd") for line in lines), lines
    assert "envoy: FAILED: 1 object rejected" in lines
    assert "tests: left out: Envoy rejects the gateway" in lines


def test_what_is_wrong_with_the_command_or_the_machine(
    tree: WorkingTree, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ci", "gateway", "--against", "origin/mian"]) == 2
    assert "did you mean 'origin/main'?" in capsys.readouterr().err
    assert main(["ci", "gateway", "--write", "report.pdf"]) == 2
    assert main(["ci", "gateway", "--write", "nowhere/report.md"]) == 3


def test_another_gateway_with_errors_is_no_failure(
    tree: WorkingTree, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.commit("Bad", **{"gateway/gateway": "rutes: {}\n"})
    tree.git("tag", "bad")
    tree.commit("Good", **{"gateway/gateway": GATEWAY.format(timeout="1m")})
    assert main(["ci", "gateway", "--against", "bad"]) == 0
    assert "diff: left out: the gateway of bad has errors itself" in capsys.readouterr().out
    tree.git("checkout", "--quiet", "--orphan", "empty")
    tree.git("rm", "--quiet", "-r", "--cached", ".")
    tree.git("commit", "--quiet", "--allow-empty", "--message", "Empty")
    assert main(["ci", "gateway", "--against", "empty"]) == 0
    assert "has no folder gateway" in capsys.readouterr().out


def _commands(name: str) -> list[str]:
    """Return the commands of an example that are those of xds."""
    text = (EXAMPLES / name).read_text()
    content = yaml.safe_load(text)
    match name:
        case "github.yaml":
            found = [step.get("run", "") for step in content["jobs"]["check"]["steps"]]
        case "gitlab.yaml":
            found = content["gateway"]["script"]
        case _:
            found = [hook["entry"] for repo in content["repos"] for hook in repo["hooks"]]
    return [one for one in found if one.startswith("xds ")]


@pytest.mark.parametrize("name", ["github.yaml", "gitlab.yaml", "pre-commit.yaml"])
def test_the_commands_of_the_steps_run(name: str, tree: WorkingTree) -> None:
    (command,) = _commands(name)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GITHUB_BASE_REF": "main",
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
    }
    done = subprocess.run(
        ["bash", "-ec", command], cwd=tree.path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, (shlex.join(["bash", "-ec", command]), done.stdout, done.stderr)
