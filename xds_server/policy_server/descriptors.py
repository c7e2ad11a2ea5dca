"""Descriptor files of a policy server: read at the start, read again when they change; the last good ones stay."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from filters.rate_limit.descriptor_files.reader import Domain, read_all
from xds_server.errors import InvalidGateway, UnreadableFolder, XdsError
from xds_server.sources.folder import read_folder

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between two looks at the files."""


def read(path: Path) -> Mapping[str, Domain]:
    """The domains of a file or a folder. Raises InvalidGateway with every mistake, UnreadableFolder."""
    return _domains(_files(path))


def _domains(files: Mapping[str, bytes]) -> Mapping[str, Domain]:
    domains, problems = read_all(files)
    if problems:
        raise InvalidGateway(problems)
    return domains


def _files(path: Path) -> Mapping[str, bytes]:
    if path.is_dir():
        folder = read_folder(path)
        if folder.problems:
            raise UnreadableFolder("\n".join(folder.problems))
        files = {str(path / name): content for name, content in folder.files.items()}
    else:
        try:
            files = {str(path): path.read_bytes()}
        except OSError as error:
            raise UnreadableFolder(f"{path}: {error.strerror}") from None
    if not files:
        raise UnreadableFolder(f"{path}: no .yaml file is there")
    return files


class Following:
    """Gives the domains of `path` to `use`, at once and whenever they change, until `end`. Raises what `read` does."""

    def __init__(self, path: Path, use: Callable[[Mapping[str, Domain]], None]) -> None:
        self._path = path
        self._use = use
        self._seen: Mapping[str, bytes] | str = _files(path)
        use(_domains(self._seen))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="descriptors", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(LOOK):
            try:
                self._look()
            except XdsError as error:
                log.error("%s\nthe last good descriptors stay", error)

    def _look(self) -> None:
        """Raises what is wrong, once for each state of the files."""
        try:
            found: Mapping[str, bytes] | str = _files(self._path)
        except UnreadableFolder as error:
            found = str(error)
        if found == self._seen:
            return
        self._seen = found
        if isinstance(found, str):
            raise UnreadableFolder(found)
        domains = _domains(found)
        self._use(domains)
        log.info("took descriptors of %d domains", len(domains))
