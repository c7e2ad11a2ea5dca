"""The control loop follows any source: one that is no folder, with files of its own that it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filters.language import Problem
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.control_plane.control_loop import ControlLoop
from xds_server.discovery.types import EXTENSION_CONFIG, ROUTE
from xds_server.sources.source import Version

GATEWAY = """
listeners: {http: {port: 8080}}
routes:
  hello: {path: /, respond: {body: hello}, policies: {basic_auth: {htpasswd: {file: users.htpasswd}}}}
"""
USERS = b"ann:{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=\n"
INLINE = "listeners: {http: {port: 8080}}\nroutes: {hello: {path: /, respond: {body: inline}}}\n"


@dataclass
class Commit:
    """A state in memory, as a git commit would be."""

    files: Mapping[str, bytes]
    others: Mapping[str, bytes] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    findings: tuple[Problem, ...] = ()
    environment: Mapping[str, str] | None = None
    version: Version | None = None
    reads: set[Path] = field(default_factory=set)

    def read(self, path: str) -> bytes:
        self.reads.add(Path(path))
        try:
            return self.others[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory", path) from None

    def names(self, folder: str) -> tuple[str, ...]:
        raise FileNotFoundError(2, "No such file or directory", folder)


class History:
    """Commits, one after the other. A state that looks half-written is settled: a commit is always whole."""

    name = "https://git.example/gateway@main"

    def __init__(self, *commits: Commit) -> None:
        self.commits = commits
        self.current = commits[0]
        self.referred: list[frozenset[Path]] = []

    async def changes(self) -> AsyncGenerator[Commit, None]:
        for commit in self.commits:
            self.current = commit
            yield commit

    async def settled(self) -> Commit:
        return self.current

    def refer_to(self, paths: Iterable[Path]) -> None:
        self.referred.append(frozenset(paths))


async def test_a_source_that_is_no_folder_is_followed() -> None:
    published: asyncio.Queue[Compiled] = asyncio.Queue()
    history = History(
        Commit({"gateway.yaml": GATEWAY.encode()}, {"users.htpasswd": USERS}),
        Commit({"gateway.yaml": GATEWAY.encode()}),
        Commit({"gateway.yaml": INLINE.encode()}),
        Commit({}, problems=("the branch 'main' does not exist",)),
    )
    control = ControlLoop(history, Compiler({}), published.put)
    async with asyncio.timeout(30):
        await control.run()
    first, second = published.get_nowait().snapshot, published.get_nowait().snapshot
    assert b"ann" in first[EXTENSION_CONFIG]["xds.identity"].body
    assert b"inline" in second[ROUTE]["0.0.0.0:8080"].body
    assert published.empty()
    assert control.serving.folder == history.name
    assert control.serving.unreadable == "the branch 'main' does not exist"
    assert control.serving.something
    assert history.referred[:2] == [frozenset({Path("users.htpasswd")})] * 2
