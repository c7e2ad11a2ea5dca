"""A source of a gateway: the interface of a folder, a git repository or a Kubernetes cluster to the control loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filters.language import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of a gateway: a commit of git. `time` is when it was committed, in Unix time. `signer` is who signed it,
    empty if that was not verified: anybody may write any author.
    """

    id: str
    author: str
    subject: str
    time: float
    signer: str = ""


class SourceState(Protocol):
    """The content of a source at one moment."""

    @property
    def files(self) -> Mapping[str, bytes]:
        """The YAML files by relative name."""

    @property
    def problems(self) -> tuple[str, ...]:
        """The reasons why the state cannot be read. A state with problems is never served."""

    @property
    def findings(self) -> tuple[Problem, ...]:
        """Problems that were found while the files were made, such as those of Kubernetes objects."""

    @property
    def version(self) -> Version | None:
        """The version, None if the source has none."""

    @property
    def environment(self) -> Mapping[str, str] | None:
        """The variables that the files may read; None for those of this process."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """Files whose names look like those of the gateway's files, and that are not read."""

    @property
    def reads(self) -> Collection[Path]:
        """The files that `read` was called for, and what changes with a folder that `names` was called for."""

    def read(self, path: str) -> bytes:
        """Return the content of a file that the gateway refers to, by its name in the source. Raises OSError."""

    def names(self, folder: str) -> Collection[str]:
        """Return the names of the files in a folder that the gateway refers to, by its name in the source. Raises OSError."""


class Source(Protocol):
    """The origin of a gateway. `changes()` is iterated from one task only."""

    @property
    def name(self) -> str:
        """The name of the source for operators, such as the path of a folder."""

    def changes(self) -> AsyncGenerator[SourceState, None]:
        """Yield the state, and yield it again after every change, until the iteration is closed."""

    async def settled(self) -> SourceState:
        """Return the state when no change is in progress. It is called if a state looks half-written."""

    def refer_to(self, paths: Iterable[Path]) -> None:
        """Yield a change also if one of these files changes. They replace those of the last call."""
