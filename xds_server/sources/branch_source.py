"""A branch as the source of a preview: its files may read only what the gateway of the main branch allows."""

from __future__ import annotations

import os
import posixpath
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from filters.language import Problem
from xds_server.sources.source import Source, SourceState, Version

_PYTHON = ".py"
"""The end of the names of all files with code: the language accepts no other file as a policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The environment variables that a branch may read, and the files outside of the repository.

    `files` are absolute paths in which ``*`` stands for any characters. `python` allows policies in Python, which run in
    the policy server.
    """

    environment: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    python: bool = False

    def permits(self, path: str) -> bool:
        """True if the file at a normal absolute path may be read."""
        return any(fnmatchcase(path, pattern) for pattern in self.files)


@dataclass(frozen=True, slots=True)
class BranchState:
    """The state of a branch, which reads less."""

    state: SourceState
    allowed: Allowed
    environment: Mapping[str, str] | None = field(repr=False)

    @property
    def files(self) -> Mapping[str, bytes]:
        """The YAML files by relative name."""
        return self.state.files

    @property
    def problems(self) -> tuple[str, ...]:
        """The reasons why the state cannot be read."""
        return self.state.problems

    @property
    def findings(self) -> tuple[Problem, ...]:
        """Problems that were found while the files were made."""
        return self.state.findings

    @property
    def version(self) -> Version | None:
        """The commit."""
        return self.state.version

    @property
    def ignored(self) -> tuple[str, ...]:
        """Files whose names look like those of the gateway's files, and that are not read."""
        return self.state.ignored

    @property
    def reads(self) -> Collection[Path]:
        """The files of this machine that were read."""
        return self.state.reads

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises OSError, also if the branch may not read it."""
        if path.endswith(_PYTHON) and not self.allowed.python:
            raise _forbidden(path, "write python: true in groups.NAME")
        if not path.startswith("/"):
            return self.state.read(path)
        same = posixpath.normpath(path)  # a link before a .. would lead elsewhere
        if not self.allowed.permits(same):
            raise _forbidden(path, "allow it in groups.NAME.files")
        return self.state.read(same)

    def names(self, folder: str) -> Collection[str]:
        """Return the names of the files in a folder, of those outside of the repository only what the branch may read.

        Raises OSError.
        """
        if not folder.startswith("/"):
            return self.state.names(folder)
        same = posixpath.normpath(folder)
        if not any(posixpath.dirname(pattern) == same for pattern in self.allowed.files):
            raise _forbidden(folder, "allow its files in groups.NAME.files")
        return [name for name in self.state.names(same) if self.allowed.permits(f"{same}/{name}")]


def _forbidden(path: str, remedy: str) -> PermissionError:
    return PermissionError(1, f"a preview may not read it; {remedy} of the main branch", path)


class BranchSource:
    """A source with fewer rights."""

    def __init__(self, source: Source, allowed: Allowed) -> None:
        self._source, self._allowed = source, allowed

    @property
    def name(self) -> str:
        """The address."""
        return self._source.name

    async def changes(self) -> AsyncGenerator[SourceState, None]:
        """Yield the gateway, and yield it again after every change, until the iteration is closed."""
        changes = self._source.changes()
        try:
            async for state in changes:
                yield self._limited(state)
        finally:
            await changes.aclose()

    async def settled(self) -> SourceState:
        """Return the newest state."""
        return self._limited(await self._source.settled())

    def refer_to(self, paths: Iterable[Path]) -> None:
        """Yield a change also if one of these files changes. They replace those of the last call."""
        self._source.refer_to(paths)

    def _limited(self, state: SourceState) -> BranchState:
        variables = {name: os.environ[name] for name in self._allowed.environment if name in os.environ}
        return BranchState(
            state, self._allowed, variables if state.environment is None else state.environment
        )
