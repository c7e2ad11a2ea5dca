"""`xds run` on a branch of a repository that is served over HTTP: a push reaches traffic, a bad commit never does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.git import GitServer, WorkingTree, collected
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for
from xds_server.cli.main import main

QUICK = ("--git-interval", "0.2")


class Shop:
    """A repository with a gateway in a folder, and its server."""

    def __init__(self, root: Path, server: GitServer) -> None:
        self.server, self.port = server, free_port()
        self.tree = WorkingTree(root / "tree", root / "served" / "shop.git")
        self.address = f"git+{server.url}/shop.git//gateway?ref=main"

    def push(self, subject: str, version: str) -> str:
        text = f"listeners: {{http: {{port: {self.port}, address: 127.0.0.1}}}}\n"
        text += f"routes:\n  version: {{path: /version, respond: {{body: '{version}'}}}}\n"
        id_ = self.tree.commit(subject, **{"gateway/gateway": text})
        self.tree.push()
        return id_

    def answers(self, version: str) -> None:
        def same() -> bool:
            return httpx.get(f"http://127.0.0.1:{self.port}/version").text == version

        wait_for(same, f"version {version}")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "served").mkdir()
    with collected(), GitServer(tmp_path / "served") as server:
        yield Shop(tmp_path, server)


def test_a_push_reaches_traffic_and_a_bad_commit_does_not(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.push("First", "1")
    with Running(shop.address, tmp_path, *QUICK) as running:
        shop.answers("1")
        good = shop.push("Second: more", "2")
        shop.answers("2")
        running.says(f"serving commit={good} author=Ada <ada@example.com> subject=Second: more")
        bad = shop.tree.commit("Third", **{"gateway/more": "routes:\n  broken: {path: /x, upstrem: echo}\n"})
        shop.tree.push()
        running.says("more.yaml:2:")
        running.says("the last good gateway stays in service")
        shop.answers("2")
        assert main(["status", "--admin", running.admin]) == 1
        told = capsys.readouterr().out
        assert f"commit {good[:12]} of Ada <ada@example.com>" in told
        assert "did you mean 'upstream'?" in told
        assert bad[:12] not in told
        metrics = httpx.get(f"http://{running.admin}/metrics").text
        time = float(shop.tree.git("log", "-1", "--format=%ct", good))
        line = next(
            one for one in metrics.splitlines() if one.startswith("xds_source_commit_timestamp_seconds ")
        )
        assert float(line.split()[1]) == time
        shop.tree.git("reset", "--quiet", "--hard", good)
        shop.tree.push("--force", "origin", "HEAD:main")
        running.says("the gateway has no errors any more")
        assert main(["status", "--admin", running.admin]) == 0


def test_what_is_served_outlives_the_repository(shop: Shop, tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state"))
    shop.push("First", "1")
    with Running(shop.address, tmp_path, *QUICK, *state) as running:
        shop.answers("1")
        shop.server.down = True
        running.says("503")
        shop.answers("1")
        assert running.log.count("503") == 1  # told once, however often it fails
        running.stop()
        running.start()
        shop.answers("1")
        shop.server.down = False
        shop.push("Second", "2")
        shop.answers("2")


def test_a_working_tree_is_served_as_it_was_committed(shop: Shop, tmp_path: Path) -> None:
    shop.push("First", "1")
    folder = shop.tree.path / "gateway"
    with Running(folder, tmp_path, "--ref", "main"):
        shop.answers("1")
        (folder / "gateway.yaml").write_text("nonsense: 1")
        shop.push("Second", "2")
        shop.answers("2")


def test_commands_look_at_a_commit(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.push("First", "1")
    assert main(["check", "--no-envoy", shop.address]) == 0
    assert main(["explain", shop.address, "GET", f"http://127.0.0.1:{shop.port}/version"]) == 0
    assert "> version" in capsys.readouterr().out
    assert main(["check", "--no-envoy", shop.address.replace("main", "mein")]) != 0
    assert "did you mean 'main'" in "".join(capsys.readouterr())
