"""A gateway folder as it is in one commit of git: its files, and what of them cannot be read."""

from __future__ import annotations

import posixpath
import stat
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from dulwich.errors import ApplyDeltaError, ChecksumMismatch, FileFormatException
from dulwich.objects import ObjectID, parse_tree

from filters.language import Problem
from filters.language.problems import printable
from xds_server.sources.folder import SUFFIXES, names_in
from xds_server.sources.source import Version

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore
    from dulwich.objects import Commit

LARGEST = 16 << 20
"""Bytes of a file. No gateway has such files, and reading one would stop everything for seconds."""
MOST, LARGEST_FOLDER = 50_000, 256 << 20
"""Files of a folder, and bytes of its YAML files. A tree can name another one many times, so a small one can have any size."""
_LFS = b"version https://git-lfs.github.com/spec/"
_DEEPEST_LINKS = 8


_DAMAGED = (
    KeyError,
    ValueError,
    AssertionError,
    ApplyDeltaError,
    ChecksumMismatch,
    FileFormatException,
    zlib.error,
)
"""What dulwich raises if an object is missing or damaged."""


class _TooLarge(Exception):  # noqa: N818 - a state of a commit
    """A folder is larger than that of any gateway. The message says by what."""


@dataclass(frozen=True, slots=True)
class CommitFolder:
    """The gateway of a commit. `read` returns files of the commit by their relative path, and others by their absolute path.

    Private keys do not belong into git, so a gateway may refer to files of this machine.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    findings: tuple[Problem, ...] = ()
    environment: Mapping[str, str] | None = None
    version: Version | None = None
    tree: CommitTree | None = field(default=None, compare=False, repr=False)
    reads: set[Path] = field(default_factory=set, compare=False)

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises OSError."""
        if path.startswith("/"):
            self.reads.add(Path(path))
            return Path(path).read_bytes()
        if self.tree is None:
            raise FileNotFoundError(2, "no commit was read", path)
        return self.tree.read(path)

    def names(self, folder: str) -> Collection[str]:
        """Return the names of the files in a folder. Raises OSError."""
        if folder.startswith("/"):
            self.reads.add(Path(folder))
            return names_in(Path(folder))
        if self.tree is None:
            raise FileNotFoundError(2, "no commit was read", folder)
        return self.tree.names(folder)


class CommitTree:
    """The files of a folder of a commit. `root` is the id of the tree of the whole repository."""

    def __init__(self, store: BaseObjectStore, root: ObjectID, folder: str) -> None:
        self._store, self._root, self._folder = store, root, folder

    def read(self, path: str) -> bytes:
        """Return the content of a file, by its path in the folder. Raises OSError, also for a path that leaves the repository."""
        mode, found = self._find(posixpath.join(self._folder, path))
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(21, "it is a folder in git", path)
        return self._content(found, path)

    def names(self, path: str) -> Collection[str]:
        """Return the names of the files and links in a folder, by its path in this one. Raises OSError as `read` does."""
        mode, found = self._find(posixpath.join(self._folder, path))
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(20, "it is a file in git", path)
        entries = parse_tree(self._object(found), _ID_BYTES)
        return [
            name.decode("utf-8", "replace")
            for name, kind, _ in entries
            if stat.S_ISREG(kind) or stat.S_ISLNK(kind)
        ]

    def folder(self, version: Version, *, allow_empty: bool) -> CommitFolder:
        """Read the YAML files, by the rules of a folder on disk: without `tests/` and names that begin with . or _."""
        files: dict[str, bytes] = {}
        problems: list[str] = []
        ignored: list[str] = []
        links: list[str] = []
        try:
            mode, top = self._find(self._folder)
        except OSError:
            return self._failed(
                version, f"the commit has no folder {self._folder}; correct the folder of the address"
            )
        if not stat.S_ISDIR(mode):
            return self._failed(version, f"{self._folder} is a file in this commit; name a folder")
        try:
            self._collect(top, files, problems, ignored, links)
        except _TooLarge as error:
            return self._failed(version, f"the folder of the gateway has {error}; name a smaller one")
        except (OSError, *_DAMAGED) as error:
            reason = getattr(error, "strerror", None) or error
            return self._failed(version, f"the folder of the gateway cannot be read: {reason}")
        if not problems and not allow_empty and _empty(files):
            where = f"the folder {self._folder}" if self._folder else "the repository"
            what = "nothing in its YAML files" if files else "no YAML file"
            problems.append(f"{where} has {what} in this commit; --allow-empty serves an empty gateway")
        return CommitFolder(
            files=dict(sorted(files.items())),
            problems=tuple(f"commit {version.id[:12]}: {one}" for one in problems),
            ignored=tuple(ignored),
            findings=(*_collisions(files), *map(_not_followed, links)),
            version=version,
            tree=self,
        )

    def _collect(
        self,
        top: ObjectID,
        files: dict[str, bytes],
        problems: list[str],
        ignored: list[str],
        links: list[str],
    ) -> None:
        """Read all files of a folder. Raises _TooLarge."""
        size = 0
        for name, mode, found in self._walk(top, problems):
            if stat.S_IFMT(mode) == _SUBMODULE:
                problems.append(
                    f"{name} is a submodule, which is not fetched; move its files into this repository"
                )
            elif not name.endswith(SUFFIXES):
                if name.lower().endswith(SUFFIXES):
                    ignored.append(name)
                if stat.S_ISLNK(mode) and self._is_folder(name, found):
                    links.append(name)
            else:
                try:
                    files[name] = self._yaml(name, mode, found)
                except OSError as error:
                    problems.append(f"{name}: {error.strerror}")
                    continue
                size += len(files[name])
                if size > LARGEST_FOLDER:
                    raise _TooLarge(f"more than {LARGEST_FOLDER} bytes of YAML")

    def _failed(self, version: Version, problem: str) -> CommitFolder:
        return CommitFolder(problems=(f"commit {version.id[:12]}: {problem}",), version=version, tree=self)

    def _walk(self, top: ObjectID, problems: list[str]) -> Iterator[tuple[str, int, ObjectID]]:
        """Yield the entries that are no folders. Raises _TooLarge."""
        folders, entries = [(top, "")], 0
        while folders:
            tree, within = folders.pop()
            seen: set[str] = set()
            for path, mode, sha in parse_tree(self._object(tree), _ID_BYTES):
                entries += 1
                if entries > MOST:
                    raise _TooLarge(f"more than {MOST} files and folders")
                name = path.decode("utf-8", "replace")
                if (
                    name in seen or "/" in name or name.lower() in _NO_NAMES
                ):  # dulwich's Tree keeps one of them
                    told = f"{within}{printable(name)}"
                    reason = "is a name that git does not make, or is there twice; make the commit anew"
                    problems.append(f"{told} {reason}")
                seen.add(name)
                if not name or name[0] in "._":
                    continue
                if not stat.S_ISDIR(mode):
                    yield f"{within}{name}", mode, ObjectID(sha)
                elif name != "tests":
                    folders.append((ObjectID(sha), f"{within}{name}/"))

    def _is_folder(self, name: str, link: ObjectID) -> bool:
        try:
            mode, _ = self._find(posixpath.join(self._folder, posixpath.dirname(name), self._text(link)))
        except OSError:
            return False
        return stat.S_ISDIR(mode)

    def _yaml(self, name: str, mode: int, found: ObjectID) -> bytes:
        if stat.S_ISLNK(mode):
            target = posixpath.join(self._folder, posixpath.dirname(name), self._text(found))
            mode, found = self._find(target)
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(
                    21, "it is a link to a folder, which is not followed; remove the link", name
                )
        return self._content(found, name)

    def _content(self, found: ObjectID, name: str) -> bytes:
        content = self._object(found)
        if len(content) > LARGEST:
            raise OSError(27, f"it has {len(content)} bytes, and {LARGEST} is the most; split it", name)
        if content.startswith(_LFS):
            raise OSError(5, "it is a pointer of Git LFS, which is not fetched; commit the file itself", name)
        return content

    def _entry(self, tree: ObjectID, name: bytes) -> tuple[int, ObjectID]:
        """Return mode and id of an entry of a tree. Raises KeyError if there is none, and OSError."""
        for path, mode, sha in parse_tree(self._object(tree), _ID_BYTES):
            if path == name:
                return mode, ObjectID(sha)
        raise KeyError(name)

    def _object(self, found: ObjectID) -> bytes:
        """Return the content of an object. Raises OSError."""
        try:
            return self._store[found].as_raw_string()
        except _DAMAGED:
            name = found.decode("ascii", "replace")[:12]
            raise OSError(5, f"object {name} of the repository is missing or damaged", name) from None

    def _text(self, found: ObjectID) -> str:
        return self._object(found).decode("utf-8", "replace")

    def _find(self, path: str, links: int = 0) -> tuple[int, ObjectID]:
        """Return mode and id of what is at a path of the repository, and follow links inside of it. Raises OSError."""
        path = posixpath.normpath(path) if path else "."
        if path.startswith(("..", "/")):
            raise FileNotFoundError(2, "it leads out of the repository; commit the file itself", path)
        mode, found = stat.S_IFDIR, self._root
        names = [] if path == "." else path.split("/")
        for number, name in enumerate(names):
            if not stat.S_ISDIR(mode):
                raise NotADirectoryError(20, "there is no such file in this commit", path)
            try:
                mode, found = self._entry(found, name.encode())
            except KeyError:
                raise FileNotFoundError(2, "there is no such file in this commit", path) from None
            if stat.S_ISLNK(mode):
                if links == _DEEPEST_LINKS:
                    raise OSError(40, "it leads through too many links", path)
                target = posixpath.join(*names[:number], self._text(found), *names[number + 1 :])
                return self._find(target, links + 1)
        return mode, found


_ID_BYTES = 20
"""Bytes of an id, for SHA-1."""
_SUBMODULE = 0o160000
_NO_NAMES = ("", ".", "..", ".git")
"""Names that no entry of a tree has, by git-fsck."""
_SMALL = 4096
"""Bytes of files that may say nothing. More are not parsed only to find that out."""


def version_of(commit: Commit) -> Version:
    """Return what is told of a commit. Whoever makes a commit must not control the terminal of who reads that."""
    subject, _, _ = commit.message.decode("utf-8", "replace").strip().partition("\n")
    subject, author = printable(subject), printable(commit.author.decode("utf-8", "replace"))
    return Version(id=commit.id.decode(), author=author, subject=subject, time=float(commit.commit_time))


def _collisions(files: Collection[str]) -> Iterator[Problem]:
    """Yield a warning for names that are one file where upper and lower case are the same."""
    first: dict[str, str] = {}
    for name in sorted(files):
        other = first.setdefault(name.casefold(), name)
        if other != name:
            yield Problem(
                path=(),
                message=f"{name} and {other} are one file on systems that do not tell upper from lower case",
                remedy="rename one of them",
                severity="warning",
            )


def _not_followed(link: str) -> Problem:
    return Problem(
        path=(),
        message=f"{link} is a link to a folder, in which no YAML file is read",
        remedy="move the folder here, or link single files",
        severity="warning",
    )


def _empty(files: Mapping[str, bytes]) -> bool:
    """True if files say nothing: a gateway without anything is more often a mistake than meant."""
    if sum(map(len, files.values())) > _SMALL:
        return False
    try:
        documents = [yaml.load(content, yaml.CSafeLoader) for content in files.values()]
    except (yaml.YAMLError, ValueError):
        return False
    return not any(map(_says_something, documents))


def _says_something(document: object) -> bool:
    if not isinstance(document, dict):
        return document is not None
    return any(value and not str(key).startswith("x-") for key, value in document.items())
