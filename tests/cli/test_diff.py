"""`xds diff`: folders, revisions of git and what is served, in words, as data and as Markdown."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.support.git import WorkingTree
from tests.support.ports import free_port
from tests.support.running import Running
from xds_server.cli.main import main

GATEWAY = """
listeners: {{http: {{port: 8080}}}}
upstreams:
  orders: {{endpoints: [127.0.0.1:9001]}}
  next: {{endpoints: [127.0.0.1:9002]}}
policies: {{request_id: true}}
routes:
  orders: {{path: /orders/*, methods: [GET], upstream: {upstream}, timeout: {timeout}}}
"""
OLD = GATEWAY.format(upstream="orders", timeout="5s")
NEW = GATEWAY.format(upstream="next", timeout="1m")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkingTree:
    tree = WorkingTree(tmp_path / "tree")
    tree.commit("Old", **{"gateway/gateway": OLD})
    tree.commit("New", **{"gateway/gateway": NEW})
    monkeypatch.chdir(tree.path / "gateway")
    return tree


def test_a_failure_is_not_taken_for_a_change(tree: WorkingTree, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "nope", "main", "--exit-code"]) == 2
    assert main(["diff", "nope", "main"]) == 1
    tree.commit("Broken", **{"gateway/gateway": "routes: {a: {pth: /}}"})
    assert main(["diff", "main~1", "main", "--exit-code"]) == 2
    assert "did you mean 'path'?" in "".join(capsys.readouterr())


def test_two_revisions_are_compared_in_words(tree: WorkingTree, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "main~1", "main", "--exit-code"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "gateway: 1 change",
        "  ~ routes orders  (timeout, upstream)",
        "      GET /orders/*: to the upstream next",
        "      timeout: 5s → 1m",
        "      upstream: orders → next",
        "Envoy: 1 change; --resources names them",
    ]
    assert main(["diff", "main", "main", "--exit-code"]) == 0


@pytest.mark.parametrize(
    "revision",
    [
        "main^",
        "HEAD~",
        "HEAD^1",
        "main~1^0",
        "first",
        "refs/tags/first",
        "annotated",
        "origin/topic",
        "SHORT",
        "WHOLE",
    ],
)
def test_names_of_commits(revision: str, tree: WorkingTree, capsys: pytest.CaptureFixture[str]) -> None:
    old = tree.git("rev-parse", "HEAD~1")
    tree.git("tag", "first", old)
    tree.git("tag", "--annotate", "--message", "x", "annotated", old)
    tree.git("update-ref", "refs/remotes/origin/topic", old)
    revision = {"SHORT": old[:7], "WHOLE": old}.get(revision, revision)
    assert main(["diff", revision, ".", "--output", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gateway"][0]["differences"] == [
        {"key": "timeout", "before": "5s", "after": "1m"},
        {"key": "upstream", "before": "orders", "after": "next"},
    ]


@pytest.mark.parametrize(
    ("revision", "reason"),
    [
        ("mian", "no branch, tag or commit 'mian'; did you mean 'main'?"),
        ("main~2", "has no parent"),
        ("main^2", "has 1 parents"),
        ("main@{1}", "not a revision that is understood"),
        (":/New", "not a revision that is understood"),
        ("main..HEAD", "no branch, tag or commit 'main..HEAD'"),
        ("main:nowhere", "no folder nowhere"),
        ("--upload-pack=x", ""),
    ],
)
def test_what_is_no_revision(
    revision: str, reason: str, tree: WorkingTree, capsys: pytest.CaptureFixture[str]
) -> None:
    if revision.startswith("-"):
        with pytest.raises(SystemExit) as ended:
            main(["diff", revision, "."])
        assert ended.value.code == 2
        return
    assert main(["diff", revision, "."]) == 1
    assert reason in capsys.readouterr().err


def test_a_folder_of_a_revision_counts_from_the_top_or_from_here(
    tree: WorkingTree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for side in ("main:gateway", "main:./", "main:", "main:gateway/"):
        assert main(["diff", side, "main", "--exit-code"]) == 0
    monkeypatch.chdir(tree.path)
    assert main(["diff", "main~1:gateway", "main:./gateway", "--exit-code"]) == 1
    assert main(["diff", "main~1", "main", "--folder", "gateway", "--exit-code"]) == 1
    monkeypatch.chdir("/")
    capsys.readouterr()
    assert main(["diff", "main", str(tree.path)]) == 1
    assert "not in a working tree of git" in capsys.readouterr().err


def test_a_shallow_clone_says_what_it_has_not(
    tree: WorkingTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.git("clone", "--quiet", "--depth", "1", f"file://{tree.path}", str(tmp_path / "shallow"))
    monkeypatch.chdir(tmp_path / "shallow" / "gateway")
    assert main(["diff", "main~1", "main"]) == 1
    assert "git fetch --unshallow" in capsys.readouterr().err


def test_markdown_is_stable_and_takes_no_value_for_markup(
    tree: WorkingTree, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = NEW + '  evil: {path: "/x", respond: {body: "|<b>*a*</b>`@all`\\n# x"}}\n'
    tree.commit("Evil", **{"gateway/gateway": evil})
    tree.commit("More", **{"gateway/gateway": evil.replace("# x", "# y")})
    pages = []
    for _ in range(2):
        assert main(["diff", "main~2", "main", "--output", "markdown", "--resources"]) == 0
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1]
    lines = pages[0].splitlines()
    assert lines[0] == "**Gateway: 1 change**"
    row = next(line for line in lines if line.startswith("| added | routes"))
    assert row.count("|") == 4
    assert "<b>" not in row
    assert "@all" not in row
    assert "`" not in row
    assert main(["diff", "main~1", "main", "--output", "markdown"]) == 0
    assert "<code>respond.body</code>: <code>" in capsys.readouterr().out


def test_secrets_and_values_of_variables_are_not_shown(
    tree: WorkingTree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2hunter2")
    first, second = "a1" * 32, "b2" * 32
    text = NEW.replace("1m}", "1m, request_headers: {set: {authorization: 'Bearer ${TOKEN}'}}}")
    text += f"consumers: {{shop: {{api_keys: [{{sha256: {first}}}]}}}}\n"
    tree.commit("Secrets", **{"gateway/gateway": text})
    tree.commit("Rotated", **{"gateway/gateway": text.replace(first, second)})
    for form in ("text", "json", "yaml", "markdown"):
        assert main(["diff", "main~1", "main", "--output", form]) == 0
        out = capsys.readouterr().out
        assert "shop" in out
        assert "redacted" in out
        assert main(["diff", "main~2", "main", "--output", form]) == 0
        out += capsys.readouterr().out
        assert "{TOKEN}" in out
        for secret in ("hunter2", first, second):
            assert secret not in out


def test_what_is_served_is_compared(
    tree: WorkingTree, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "here")
    port = free_port()
    texts = [one.replace("port: 8080", f"port: {port}, address: 127.0.0.1") for one in (OLD, NEW)]
    texts = [
        one.replace("methods: [GET],", "request_headers: {set: {x-token: '${TOKEN}'}},") for one in texts
    ]
    tree.commit("Old, served", **{"gateway/gateway": texts[0]})
    with Running(tree.path / "gateway", tmp_path, "--ref", "main", TOKEN="hunter2hunter2") as running:
        running.says("gateway published")
        server = ("--server", f"http://{running.admin}")
        assert main(["diff", "main", *server]) == 0
        assert "gateway: 0 changes" in capsys.readouterr().out  # the value of the variable is not compared
        tree.write("gateway/gateway.yaml", texts[1])
        assert main(["diff", ".", *server]) == 0
        assert "upstream: orders → next" in capsys.readouterr().out
        page = httpx.get(f"http://{running.admin}/gateway").text
        assert "hunter2" not in page
        assert "${TOKEN}" in page
    assert main(["diff", "main", *server]) == 3
    assert main(["diff", "main", ".", *server]) == 2
    assert main(["diff", "main"]) == 2
