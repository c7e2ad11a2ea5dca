"""A folder as a gateway: gateway files as they are, or Kubernetes manifests translated to such files."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from xds_server.sources.folder import read_folder
from xds_server.sources.source import Source, SourceState

if TYPE_CHECKING:
    from xds_server.gateway_api.objects import Key
    from xds_server.sources.manifest_folder import ManifestReader

_MANIFEST = re.compile(rb"""^\s*(?:\{\s*)?["']?apiVersion["']?\s*:""", re.MULTILINE)
"""A key that every object of Kubernetes has, and no file of a gateway."""


class FolderReader:
    """Reads successive states of a folder. `gateway` is the Gateway to serve, None if there is only one.

    With `every_class`, manifests of classes of other controllers are served too.
    """

    def __init__(self, gateway: Key | None = None, *, every_class: bool = False) -> None:
        self._gateway, self._every_class = gateway, every_class
        self._manifests: ManifestReader | None = None

    def state(self, folder: SourceState) -> SourceState:
        """Return the gateway of a folder."""
        if not any(_MANIFEST.search(content) for content in folder.files.values()):
            return folder
        if self._manifests is None:
            from xds_server.sources.manifest_folder import (
                ManifestReader,  # 5 MiB that gateway files do not need
            )

            self._manifests = ManifestReader(self._gateway, every_class=self._every_class)
        return self._manifests.state(folder)


def read_gateway(path: Path | str, gateway: Key | None = None) -> SourceState:
    """Return the gateway of a folder now."""
    return FolderReader(gateway).state(read_folder(path))


class GatewayFolder:
    """A watched folder, on disk or in commits of git, as the source of a gateway."""

    def __init__(self, directory: Source, reader: FolderReader) -> None:
        self._directory, self._reader = directory, reader

    @property
    def name(self) -> str:
        """The path or address of the folder."""
        return self._directory.name

    async def changes(self) -> AsyncGenerator[SourceState, None]:
        """Yield the gateway, and yield it again after every change, until the iteration is closed."""
        changes = self._directory.changes()
        try:
            async for folder in changes:
                yield self._reader.state(folder)
        finally:
            await changes.aclose()

    async def settled(self) -> SourceState:
        """Return the gateway when no change is in progress."""
        return self._reader.state(await self._directory.settled())

    def refer_to(self, paths: Iterable[Path]) -> None:
        """Yield a change also if one of these files changes. They replace those of the last call."""
        self._directory.refer_to(paths)
