"""The commands of the portal at a shell, on a store in SQLite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xds_server.cli.main import main
from xds_server.marketplace import people
from xds_server.marketplace.actor import COMMAND
from xds_server.marketplace.store import Marketplace


class Shell:
    """Runs commands of the portal."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url, self._capsys = url, capsys

    def __call__(self, *words: str, status: int = 0) -> Any:
        """Return what a command prints, as JSON if it succeeds, else its error."""
        assert main(["portal", *words, "--store", self.url, "--output", "json"]) == status
        shown = self._capsys.readouterr()
        return shown.err if status else json.loads(shown.out)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(f"sqlite:///{tmp_path}/market.db", capsys)


def test_a_list_has_all_pages(shell: Shell) -> None:
    shell("user", "add", "first@example.com")
    store = Marketplace(shell.url)
    with store.begin(COMMAND) as now:
        for number in range(250):
            people.add_user(now, f"user{number}@example.com", "User")
    store.close()
    listed = shell("user", "list")
    assert len({one["email"] for one in listed}) == 251


def test_only_who_adds_people_makes_a_store(shell: Shell, tmp_path: Path) -> None:
    for words in (("user", "list"), ("user", "role", "a@example.com", "--role", "admin"), ("product", "list"), ("billing", "list")):  # fmt: skip
        assert "there is no marketplace store" in shell(*words, status=3), words
    assert list(tmp_path.iterdir()) == []
    shell("user", "invite", "ada@example.com", "--role", "admin")
    (made,) = shell("invitation", "list")
    assert (made["email"], made["role"], made["invited_by"]) == ("ada@example.com", "admin", None)
    shell("invitation", "revoke", made["id"])
    assert shell("invitation", "list") == []
    assert "no such invitation" in shell("invitation", "revoke", made["id"], status=1)


def test_a_role_is_named(shell: Shell) -> None:
    shell("user", "add", "ada@example.com")
    assert "--role" in shell("user", "role", "ada@example.com", status=2)
    assert shell("user", "role", "ada@example.com", "--role", "publisher")["role"] == "publisher"
    refused = shell("user", "invite", "ada@example.com", "--role", "admin", status=1)
    assert "with the role publisher" in refused
    assert shell("user", "invite", "ada@example.com")["email"] == "ada@example.com"
