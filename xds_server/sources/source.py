"""A source of a gateway: what the control loop needs of a folder, a git repository or a Kubernetes cluster."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from pathlib import Path
from typing import Protocol


class SourceState(Protocol):
    """What a source held at one moment."""

    @property
    def files(self) -> Mapping[str, bytes]:
        """The YAML files by relative name."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the state cannot be read. A state with problems is never served."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """Files whose names look as if they belonged to the gateway, and do not."""

    @property
    def reads(self) -> Collection[Path]:
        """The files that `read` was called for."""

    def read(self, path: str) -> bytes:
        """The content of a file that the gateway refers to, by its name in the source. Raises OSError."""


class Source(Protocol):
    """Where a gateway comes from. `changes()` is iterated from one task only."""

    @property
    def name(self) -> str:
        """The name of the source for operators, such as the path of a folder."""

    def changes(self) -> AsyncGenerator[SourceState, None]:
        """Yield the state, then again after every change, until the iteration is closed."""

    async def settled(self) -> SourceState:
        """The state once no change is under way. The caller has a state that looks half-written."""

    def refer_to(self, paths: Iterable[Path]) -> None:
        """Yield a change if one of these files changes too. They replace those of the last call."""
