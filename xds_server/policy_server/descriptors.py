"""Descriptor files of a policy server: read at the start, and read again if they change.

If a new version has errors, the last good descriptors stay in use.
"""

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
"""Seconds between two checks of the files."""


def read(path: Path) -> Mapping[str, Domain]:
    """Return the domains of a file or a folder.

    Raises InvalidGateway with every error, or UnreadableFolder.
    """
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
        raise UnreadableFolder(f"{path}: the folder has no .yaml file")
    return files


class Following:
    """Calls `use` with the domains of `path`, at once and after each change, until `end`.

    Raises the errors of `read`.
    """

    def __init__(self, path: Path, use: Callable[[Mapping[str, Domain]], None]) -> None:
        self._path = path
        self._use = use
        self._seen: Mapping[str, bytes] | str = _files(path)
        use(_domains(self._seen))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="descriptors", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop to follow the files."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(LOOK):
            try:
                self._read_again()
            except XdsError as error:
                log.error("descriptors rejected; the last good descriptors stay in use\n%s", error)

    def _read_again(self) -> None:
        """Read the files. Raises their errors, once for each state of the files."""
        try:
            content: Mapping[str, bytes] | str = _files(self._path)
        except UnreadableFolder as error:
            content = str(error)
        if content == self._seen:
            return
        self._seen = content
        if isinstance(content, str):
            raise UnreadableFolder(content)
        domains = _domains(content)
        self._use(domains)
        log.info("descriptors loaded domains=%d", len(domains))
