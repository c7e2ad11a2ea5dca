"""Commits over ssh, from a real server: whose key counts, which host is believed, and that no secret is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.git import GitSshServer, WorkingTree, collected
from xds_server.cli.main import main
from xds_server.sources.git_address import parse
from xds_server.sources.git_repository import Fetched, GitCredentials, GitFailed, repository

# dulwich leaves it open after a rejection; the process behind it is ended by us
pytestmark = pytest.mark.filterwarnings("ignore:unclosed Protocol:ResourceWarning")


class Served:
    """A repository, its server, and what a client needs to reach it."""

    def __init__(self, root: Path, server: GitSshServer) -> None:
        self.server = server
        self.tree = WorkingTree(root / "tree", root / "served" / "shop.git")
        self.address = f"git+{server.url}/shop.git//gateway?ref=main"

    def push(self, subject: str) -> str:
        id_ = self.tree.commit(subject, **{"gateway/gateway": f"routes: {{}} # {subject}\n"})
        self.tree.push()
        return id_

    def fetch(self, **credentials: Path) -> Fetched:
        given = {"ssh_key": self.server.key, "known_hosts": self.server.known_hosts, **credentials}
        found = repository(parse(self.address), GitCredentials(**given))
        try:
            return found.fetch()
        finally:
            found.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "served").mkdir()
    with collected(), GitSshServer(tmp_path / "served", tmp_path / "keys") as server:
        yield Served(tmp_path, server)


def test_commits_are_fetched_one_after_the_other(served: Served) -> None:
    first = served.push("First")
    found = repository(
        parse(served.address),
        GitCredentials(ssh_key=served.server.key, known_hosts=served.server.known_hosts),
    )
    try:
        assert found.fetch().version.id == first
        before = found.fetch()
        second = served.push("Second")
        now = found.fetch()
        assert (now.version.id, now is before) == (second, False)
        folder = now.tree.folder(now.version, allow_empty=False)
        assert folder.files == {"gateway.yaml": b"routes: {} # Second\n"}
    finally:
        found.close()
    assert all(command.startswith("git-upload-pack ") for command in served.server.commands)


@pytest.mark.parametrize("fault", ["unknown host", "changed host key", "wrong key"])
def test_who_is_not_believed_is_rejected_and_no_secret_is_told(
    fault: str,
    served: Served,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    served.push("First")
    credentials: dict[str, Path] = {}
    if fault == "unknown host":
        credentials["known_hosts"] = tmp_path / "nobody"
        credentials["known_hosts"].write_text("")
    elif fault == "changed host key":
        served.server.renew()
    else:
        credentials["ssh_key"] = tmp_path / "other"
        served.server.write_key(credentials["ssh_key"])
    with caplog.at_level(logging.DEBUG), pytest.raises(GitFailed) as failed:
        served.fetch(**credentials)
    message = str(failed.value)
    assert message.startswith(f"{served.server.url}/shop.git: ")
    said, flag = (
        ("Host key verification failed", "--git-known-hosts")
        if "host" in fault
        else ("Permission denied", "--git-ssh-key")
    )
    assert said in message
    assert flag in message
    assert served.server.commands == []
    key = credentials.get("ssh_key", served.server.key)
    secrets = [line for line in key.read_text().splitlines() if not line.startswith("-")]
    told = message + caplog.text + "".join(capfd.readouterr())
    assert not [line for line in secrets if line in told]


def test_commands_take_the_key_from_the_environment(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served.push("First")
    monkeypatch.setenv("XDS_GIT_SSH_KEY", str(served.server.key))
    monkeypatch.setenv("XDS_GIT_KNOWN_HOSTS", str(served.server.known_hosts))
    assert main(["check", "--no-envoy", served.address]) == 0
    missing = served.address.replace("shop.git", "nowhere.git")
    assert main(["check", "--no-envoy", missing]) == 1
    assert "nowhere.git' does not appear to be a git repository" in capsys.readouterr().err
