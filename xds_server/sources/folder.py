"""A gateway folder as bytes: its YAML files, and the other files that were read."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from filters.language import Problem
from xds_server.sources.source import Version

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Folder:
    """The content of a folder at one moment. `files` are its YAML files by relative name.

    `problems` are errors of reading; a folder with problems is never served. `reads` collects the paths that `read`
    was called with, and ``FOLDER/*`` for `names`, so that they can be watched too. `ignored` are files whose names look like those of the gateway's
    files. A folder has no `findings` and no `version`, and its files read the environment of this process.
    """

    root: Path
    files: Mapping[str, bytes]
    problems: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    findings: tuple[Problem, ...] = ()
    environment: Mapping[str, str] | None = None
    version: Version | None = None
    reads: set[Path] = field(default_factory=set, compare=False)

    def read(self, path: str) -> bytes:
        """Return the content of a file that the gateway refers to, relative to the folder. Raises OSError."""
        file = self.root / path
        self.reads.add(file)
        return file.read_bytes()

    def names(self, folder: str) -> Collection[str]:
        """Return the names of the files in a folder, relative to this one. Raises OSError."""
        self.reads.add(self.root / folder / "*")
        return names_in(self.root / folder)


def names_in(folder: Path) -> Collection[str]:
    """Return the names of the files in a folder of this machine. Raises OSError."""
    return [one.name for one in folder.iterdir() if one.is_file()]


def read_folder(path: Path | str) -> Folder:
    """Read every ``*.yaml`` and ``*.yml``, without `tests/` and names that begin with a dot or underscore."""
    root = Path(path)
    files: dict[str, bytes] = {}
    problems: list[str] = []
    ignored: list[str] = []
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        return Folder(root, MappingProxyType({}), (f"{root} {what}",))

    def failed(error: OSError) -> None:
        problems.append(f"{error.filename}: {error.strerror}")

    for folder, folders, names in os.walk(root, onerror=failed, followlinks=False):
        folders[:] = sorted(one for one in folders if one != "tests" and one[0] not in "._")
        for name in sorted(names):
            file = Path(folder) / name
            if name[0] in "._":
                continue
            if not name.endswith(SUFFIXES):
                if name.lower().endswith(SUFFIXES):
                    ignored.append(file.relative_to(root).as_posix())
            else:
                try:
                    if not stat.S_ISREG(file.stat().st_mode):
                        problems.append(f"{file} is not a file; remove it, or give it another name")
                        continue
                    files[file.relative_to(root).as_posix()] = file.read_bytes()
                except OSError as error:
                    remedy = "remove the link" if file.is_symlink() else "make it readable"
                    problems.append(f"{file}: {error.strerror}; {remedy}")
    return Folder(root, MappingProxyType(files), tuple(problems), tuple(ignored))
