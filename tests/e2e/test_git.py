"""`xds run` on a branch of a repository that is served over HTTP: a push reaches traffic, a bad commit never does."""

from __future__ import annotations

import hmac
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.forge import Forge
from tests.support.git import DrippingServer, GitServer, WorkingTree, collected
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

    def problem_of(self, commit: str) -> dict[str, Any]:
        """Wait until problems name this commit, and return one."""

        def named() -> dict[str, Any] | None:
            problem: dict[str, Any] = httpx.get(f"http://127.0.0.1:{self.port}/none").json()
            return problem if problem["commit"] == commit else None

        found = wait_for(named, f"a problem with commit {commit}")
        assert found is not None
        return found


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
        running.says(
            f"errors in commit {bad[:12]} of Ada <ada@example.com>; the last good gateway stays in service"
        )
        shop.answers("2")
        assert main(["status", "--admin", running.admin]) == 1
        told = capsys.readouterr().out
        assert f"commit {good[:12]} of Ada <ada@example.com>" in told
        assert "did you mean 'upstream'?" in told
        assert f"NOT SERVED: commit {bad[:12]} of Ada <ada@example.com>" in told
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
        running.says("HTTP 503")
        shop.answers("1")
        assert running.log.count("HTTP 503") == 1  # told once, however often it fails
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


SLOW = ("--git-interval", "3600")
SECRET = "a secret of webhooks"


def test_a_webhook_has_a_push_fetched_at_once(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    shop.push("First", "1")
    with Running(shop.address, tmp_path, *SLOW, "--git-webhook-secret", str(file)) as running:
        shop.answers("1")
        url = f"http://{running.admin}/git/webhook"
        body = b'{"ref": "refs/heads/other", "repository": {"clone_url": "http://127.0.0.1:1/evil.git"}}'
        signature = hmac.new(SECRET.encode(), body, "sha256").hexdigest()
        shop.push("Second", "2")
        fetched = shop.server.requests
        for headers in (
            {},
            {"x-gitlab-token": "wrong"},
            {"x-hub-signature-256": f"sha256={signature[::-1]}"},
        ):
            rejected = httpx.post(url, content=body, headers=headers)
            assert rejected.status_code == 401
            assert "X-Hub-Signature-256" in rejected.json()["error"]
        assert shop.server.requests == fetched
        signed = {"x-hub-signature-256": f"sha256={signature}"}
        assert httpx.post(url, content=body, headers=signed).status_code == 202
        shop.answers("2")
        large = b"x" * 1_000_000  # GitHub sends more than other actions accept
        signed = {"x-hub-signature-256": "sha256=" + hmac.new(SECRET.encode(), large, "sha256").hexdigest()}
        assert httpx.post(url, content=large, headers=signed).status_code == 202
        file.write_text("another secret, of now")
        assert httpx.post(url, content=body, headers=signed).status_code == 401
        assert SECRET not in running.log


def test_a_flood_of_webhooks_costs_few_fetches(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    shop.push("First", "1")
    with Running(shop.address, tmp_path, *SLOW, "--git-webhook-secret", str(file)) as running:
        shop.answers("1")
        before = shop.server.requests
        with httpx.Client(headers={"x-gitlab-token": SECRET}) as client:
            for _ in range(500):
                assert client.post(f"http://{running.admin}/git/webhook").status_code == 202
        shop.push("Last", "2")
        assert httpx.post(
            f"http://{running.admin}/git/webhook", headers={"x-gitlab-token": SECRET}
        ).is_success
        shop.answers("2")
        assert shop.server.requests - before < 50


def test_without_a_secret_there_are_no_webhooks(shop: Shop, tmp_path: Path) -> None:
    shop.push("First", "1")
    with Running(shop.address, tmp_path, *SLOW) as running:
        assert (
            httpx.post(f"http://{running.admin}/git/webhook", headers={"x-gitlab-token": ""}).status_code
            == 404
        )


def test_a_rollback_stays_until_told_otherwise(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = shop.push("First", "1")
    with Running(shop.address, tmp_path, *QUICK, "--state", str(tmp_path / "state")) as running:
        admin = ("--admin", running.admin)
        shop.answers("1")
        assert main(["rollback", *admin]) == 2
        assert "no earlier commit is known" in capsys.readouterr().err
        second = shop.push("Second", "2")
        shop.answers("2")
        assert main(["rollback", *admin]) == 0
        shop.answers("1")
        assert f"serving commit {first[:12]} of Ada <ada@example.com>: First" in capsys.readouterr().out
        shop.push("Third", "3")
        assert main(["status", *admin]) == 0
        assert f"PINNED to {first[:12]}" in capsys.readouterr().out
        running.stop(signal.SIGKILL)
        running.start()
        shop.answers("1")
        wait_for(lambda: running.status()["gateway"]["commit"], "the commit")
        assert running.status()["gateway"]["commit"]["id"] == first
        assert main(["pin", second[:7], *admin]) == 0
        shop.answers("2")
        assert main(["pin", "--off", *admin]) == 0
        shop.answers("3")
        capsys.readouterr()
        assert main(["pin", "f" * 40, *admin]) == 2
        assert main(["pin", "mein", *admin]) == 2
        assert "did you mean 'main'" in capsys.readouterr().err
        shop.answers("3")


def test_a_rollback_needs_no_server_of_git(shop: Shop, tmp_path: Path) -> None:
    shop.push("First", "1")
    with Running(shop.address, tmp_path, *QUICK) as running:
        shop.answers("1")
        shop.push("Second", "2")
        shop.answers("2")
        shop.server.down = True
        running.says("HTTP 503")
        assert main(["rollback", "--admin", running.admin]) == 0
        shop.answers("1")


def test_a_pinned_commit_with_errors_is_told_and_what_is_served_stays(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.push("First", "1")
    bad = shop.tree.commit("Bad", **{"gateway/more": "routes:\n  broken: {path: /x, upstrem: echo}\n"})
    shop.tree.push()
    shop.tree.git("rm", "--quiet", "gateway/more.yaml")
    shop.push("Second", "2")
    with Running(shop.address, tmp_path, *QUICK) as running:
        shop.answers("2")
        assert main(["pin", bad, "--admin", running.admin]) == 1
        told = capsys.readouterr().err
        assert "more.yaml:2:" in told
        assert "did you mean 'upstream'?" in told
        shop.answers("2")
        assert main(["pin", "--off", "--admin", running.admin]) == 0
        wait_for(lambda: running.status()["gateway"]["healthy"], "the newest commit")


def test_a_folder_on_disk_has_nothing_to_pin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "gateway"
    folder.mkdir()
    with Running(folder, tmp_path, "--no-proxy", "--no-prove") as running:
        assert main(["rollback", "--admin", running.admin]) == 3
    assert "does not serve a gateway in git" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")
def test_a_commit_that_nobody_who_is_trusted_has_signed_is_not_served(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, allowed = tmp_path / "key", tmp_path / "allowed"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=60)
    allowed.write_text(f"ada@example.com {key.with_suffix('.pub').read_text()}")
    for name, value in (("gpg.format", "ssh"), ("user.signingkey", str(key)), ("commit.gpgsign", "true")):
        shop.tree.git("config", name, value)
    shop.push("First", "1")
    with Running(shop.address, tmp_path, *QUICK, "--require-signature", f"ssh:{allowed}") as running:
        shop.answers("1")
        shop.tree.git("config", "commit.gpgsign", "false")
        unsigned = shop.push("Second", "2")
        running.says(
            f"commit {unsigned[:12]} of Ada <ada@example.com> is not served, because it is not signed"
        )
        shop.answers("1")
        assert main(["pin", unsigned, "--admin", running.admin]) == 2
        assert "it is not signed" in capsys.readouterr().err
        shop.tree.git("config", "commit.gpgsign", "true")
        shop.push("Third", "3")
        shop.answers("3")


def test_a_forge_is_told_of_each_commit(shop: Shop, tmp_path: Path) -> None:
    good = shop.push("First", "1")
    with Forge(tmp_path) as forge, Running(shop.address, tmp_path, *QUICK, *forge.flags):
        shop.answers("1")
        wait_for(lambda: len(forge.told) == 1, "the status of the good commit")
        bad = shop.tree.commit("Bad", **{"gateway/more": "routes:\n  broken: {path: /x, upstrem: echo}\n"})
        shop.tree.push()
        wait_for(lambda: len(forge.told) == 2, "the status of the bad one")
    assert forge.told[0] == (
        f"/repos/shop/gateway/statuses/{good}",
        {"state": "success", "context": "xds", "description": "served"},
    )
    path, body = forge.told[1]
    assert path == f"/repos/shop/gateway/statuses/{bad}"
    assert body["state"] == "failure"
    assert "more.yaml:2:" in body["description"]
    assert "did you mean 'upstream'?" in body["description"]


def test_flags_of_git_need_git(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "secret"
    file.write_text("short")
    for words, text in (
        ((str(tmp_path), "--git-webhook-secret", str(file)), "--git-webhook-secret needs a gateway in git"),
        (("git+file:///srv/a.git", "--git-webhook-secret", str(file)), "at least 16 characters"),
        (("git+file:///srv/a.git", "--require-signature", "x"), "is not ssh:FILE"),
        (("git+file:///srv/a.git", "--commit-status", "github:a/b"), "need each other"),
    ):
        assert main(["run", *words]) == 2
        assert text in capsys.readouterr().err


def test_problems_and_the_access_log_name_the_commit(shop: Shop, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    telemetry = (
        "telemetry:\n  problem_version: true\n  access_logs:\n"
        f"    main: {{to: {{file: '{log}'}}, fields: [path, status, version, commit]}}\n"
    )
    failing = "upstreams: {nobody: {endpoints: ['127.0.0.1:1']}}\nroutes:\n"
    failing += "  home: {path: /home, aggregate: {calls: {user: {upstream: nobody, path: /user}}}}\n"
    shop.tree.commit("Telemetry", **{"gateway/telemetry": telemetry, "gateway/home": failing})
    with Running(shop.address, tmp_path, *QUICK) as running:
        for number in ("1", "2"):
            commit = shop.push(f"Version {number}", number)
            shop.answers(number)
            problem = shop.problem_of(commit)
            assert problem["version"] == running.status()["gateway"]["version"]
            mine = {"x-gateway-version": '{"version": "mine"}'}
            composed = httpx.get(f"http://127.0.0.1:{shop.port}/home", headers=mine, timeout=30).json()
            assert composed["reason"] == "call_failed", running.log[-3000:]
            assert (composed["version"], composed["commit"]) == (problem["version"], commit)
            shop.answers(number)

            def logged(commit: str = commit) -> bool:
                lines = [json.loads(line) for line in log.read_text().splitlines()]
                return any(one["commit"] == commit and one["status"] == 200 for one in lines)

            wait_for(logged, "the commit in the log")
        # a commit that changes nothing of the gateway is a version too
        commit = shop.tree.commit("Words", README="Hello")
        shop.tree.push()
        shop.problem_of(commit)


def test_it_ends_while_a_server_sends_without_end(tmp_path: Path) -> None:
    with DrippingServer() as server:
        running = Running(f"git+{server.url}/shop.git", tmp_path, "--no-proxy", "--no-prove")
        with running:
            assert server.connected.wait(60)
            assert running.stop() == 0
