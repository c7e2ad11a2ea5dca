"""Statuses of commits, sent to a server that stands for a forge."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.wait import eventually
from xds_server.errors import WrongUsage
from xds_server.sources.commit_status import CommitStatus, CommitStatuses, Forge
from xds_server.sources.source import Version

COMMIT = "a" * 40
VERSION = Version(id=COMMIT, author="Ada", subject="One", time=1.0)


class Server:
    """Notes requests, and answers with the next status of `answers`, or with 201."""

    def __init__(self) -> None:
        server = self
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.answers: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(server.answers.pop(0) if server.answers else 201)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.http.serve_forever, daemon=True).start()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("secret-token\n")
    return file


async def told(forge: Forge, *statuses: CommitStatus, server: Server, requests: int) -> None:
    """Send statuses, and wait for so many requests."""
    sender = CommitStatuses(forge, pauses=(0.0, 0.0))
    running = asyncio.create_task(sender.run())
    for status in statuses:
        sender.tell(status)
    await eventually(lambda: len(server.seen) >= requests, "the requests")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_github_and_gitea_get_a_commit_status(server: Server, token: Path) -> None:
    for kind, scheme in (("github", "Bearer"), ("gitea", "token")):
        forge = Forge.parse(f"{kind}:{server.url}/repos/shop/gateway/", "xds/eu", token)
        server.seen.clear()
        await told(forge, CommitStatus.of(VERSION, ()), server=server, requests=1)
        path, headers, body = server.seen[0]
        assert path == f"/repos/shop/gateway/statuses/{COMMIT}"
        assert headers["authorization"] == f"{scheme} secret-token"
        assert body == {"state": "success", "context": "xds/eu", "description": "served"}


async def test_gitlab_gets_a_commit_status(server: Server, token: Path) -> None:
    forge = Forge.parse(f"gitlab:{server.url}/api/v4/projects/7", "xds", token)
    problems = ("a.yaml:3:5: upstrem is unknown; did you mean 'upstream'?", "another")
    await told(forge, CommitStatus.of(VERSION, problems), server=server, requests=1)
    path, headers, body = server.seen[0]
    assert path == f"/api/v4/projects/7/statuses/{COMMIT}"
    assert headers["private-token"] == "secret-token"
    assert body == {"state": "failed", "name": "xds", "description": f"{problems[0]} (and 1 more)"}


async def test_a_long_reason_is_cut(server: Server, token: Path) -> None:
    forge = Forge.parse(f"github:{server.url}/r", "xds", token)
    await told(forge, CommitStatus(COMMIT, False, "x\n" * 200), server=server, requests=1)
    description = server.seen[0][2]["description"]
    assert len(description) == 140
    assert description.endswith("…")
    assert "\n" not in description


async def test_a_server_that_fails_is_asked_again(server: Server, token: Path) -> None:
    server.answers = [503, 429, 201]
    forge = Forge.parse(f"github:{server.url}/r", "xds", token)
    await told(forge, CommitStatus(COMMIT, True, "served"), server=server, requests=3)
    assert len(server.seen) == 3


async def test_a_status_that_is_rejected_is_logged_without_the_token(
    server: Server, token: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [401]
    forge = Forge.parse(f"github:{server.url}/r", "xds", token)
    sender = CommitStatuses(forge, pauses=(0.0,))
    running = asyncio.create_task(sender.run())
    sender.tell(CommitStatus(COMMIT, True, "served"))
    await eventually(lambda: "HTTP 401" in caplog.text, "the log")
    sender.tell(CommitStatus("b" * 40, True, "served"))
    await eventually(lambda: len(server.seen) == 2, "the next one")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert "secret-token" not in caplog.text


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("github:shop/gateway", "https://api.github.com/repos/shop/gateway"),
        ("gitlab:shop/team/gateway", "https://gitlab.com/api/v4/projects/shop%2Fteam%2Fgateway"),
        ("gitea:https://git.example.com/api/v1/repos/a/b", "https://git.example.com/api/v1/repos/a/b"),
    ],
)
def test_forges_are_named(text: str, url: str, token: Path) -> None:
    assert Forge.parse(text, "xds", token).url == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "github:",
        "github:shop",
        "gitea:a/b",
        "bitbucket:a/b",
        "github:ftp://a/b",
        "github:https://u:p@h/r",
    ],
)
def test_other_words_name_none(text: str, token: Path) -> None:
    with pytest.raises(WrongUsage, match="--commit-status") as caught:
        Forge.parse(text, "xds", token)
    assert "u:p" not in str(caught.value)
