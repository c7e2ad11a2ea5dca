"""Repositories of git: one on this machine, which is read where it is, and one elsewhere, of which single commits are fetched.

Both block, and are called in one thread at a time.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import urlsplit

import urllib3
from dulwich import client as transports
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.objects import Commit, ObjectID, Tag
from dulwich.refs import Ref
from dulwich.repo import Repo

from filters.language.problems import did_you_mean
from xds_server.errors import WrongUsage, XdsError
from xds_server.sources.git_address import GitAddress
from xds_server.sources.git_commit import CommitTree, version_of
from xds_server.sources.git_connections import Connections
from xds_server.sources.git_failure_words import words
from xds_server.sources.git_signature import Signed
from xds_server.sources.source import Version

log = logging.getLogger(__name__)

logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # each failure is told once, by GitFailed
_TIMEOUT = 20.0
"""Seconds for which a server may be silent."""
_END = 5
"""Seconds in which ssh must end when its pipes are closed."""
_FETCHES = 100
"""Fetches into one folder. Each leaves a file behind, so a new folder begins after that."""
_ID_DIGITS = 40
_HEADS = (b"refs/heads/", b"refs/tags/", b"")
FAILURES = (
    OSError,
    KeyError,
    AssertionError,
    ValueError,
    EOFError,
    GitProtocolError,
    HangupException,
    NotGitRepository,
    transports.HTTPUnauthorized,
    transports.StrangeHostname,
    urllib3.exceptions.HTTPError,
)
"""What dulwich raises if a repository or what a server sends is not as it should be."""


class GitFailed(XdsError):  # noqa: N818 - a state, not an error in a program
    """A commit cannot be had now. The message says why, without credentials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitCredentials:
    """How this process proves who it is. The files are read again for each connection."""

    token_file: Path | None = None
    ssh_key: Path | None = None
    known_hosts: Path | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A commit that is here."""

    version: Version
    tree: CommitTree
    signed: Signed


class Repository(Protocol):
    """Where commits come from."""

    def fetch(self, instead: str = "") -> Fetched:
        """Return the commit of the ref now, or `instead` that of another ref, which may be the id of a commit.

        It is the same object as before if it can still be read. Raises GitFailed.
        """

    def begin(self) -> None:
        """Expect a fetch in another thread. An `end` after this ends it, also if that thread has not begun yet."""

    def end(self) -> None:
        """End a fetch that is expected or under way in another thread: it raises GitFailed soon."""

    def close(self) -> None:
        """Remove what was fetched."""


class LocalRepository:
    """A repository on this machine. Its objects are read where they are, because a fetch would walk its whole history.

    `path` is that of the repository or of its working tree.
    """

    def __init__(self, path: str, folder: str, ref: str) -> None:
        self._path, self._folder, self._ref = path, folder, ref
        self._open: Repo | None = None
        self._known: Fetched | None = None
        self._id = ObjectID(b"")
        """What the ref named: a tag has another id than its commit."""

    @classmethod
    def around(cls, folder: Path, ref: str) -> LocalRepository:
        """Return the repository of a folder in a working tree. Raises WrongUsage."""
        found = working_tree(folder)
        if found is None:
            raise WrongUsage(f"--ref: {folder} is not in a working tree of git")
        return cls(*found, ref)

    def fetch(self, instead: str = "") -> Fetched:
        """Return the commit of the ref now, or `instead` that of another. Raises GitFailed."""
        with _told(self._path):
            with Repo(self._path) as now:  # an open one does not see refs that were packed
                found = _id(cast("dict[bytes, ObjectID]", now.refs.as_dict()), instead or self._ref)
            if self._known is None or found != self._id:
                self.close()
                self._open = Repo(self._path)
                self._id, self._known = found, _commit(self._open, found, self._folder)
            return self._known

    def begin(self) -> None:
        """Do nothing, because nobody is waited for."""

    def end(self) -> None:
        """Do nothing, because nobody is waited for."""

    def close(self) -> None:
        """Close the repository, and leave it as it is."""
        if self._open is not None:
            self._open.close()
        self._open = self._known = None


def working_tree(folder: Path) -> tuple[str, str] | None:
    """Return the path of the working tree around a folder, and the path of the folder in it. None if there is none."""
    try:
        found = Repo.discover(str(folder.resolve()))
    except NotGitRepository:
        return None
    with found:
        within = folder.resolve().relative_to(Path(found.path).resolve()).as_posix()
    return found.path, "" if within == "." else within


class RemoteRepository:
    """A repository elsewhere: single commits are fetched into a temporary folder, without their history.

    After a failure or many fetches a new folder begins. The one before is kept, so that an earlier commit can be served
    also while the server is down.
    """

    def __init__(self, address: GitAddress, credentials: GitCredentials) -> None:
        self._address, self._credentials = address, credentials
        self._connections = Connections()
        self._open: Repo | None = None
        self._before: Repo | None = None
        """The last folder with a whole commit."""
        self._fetches, self._whole = 0, False
        self._known: Fetched | None = None
        self._id = ObjectID(b"")
        """What the ref named: a tag has another id than its commit."""

    def fetch(self, instead: str = "") -> Fetched:
        """Return the commit of the ref now, or `instead` that of another. Raises GitFailed."""
        with _told(self._address.url):
            return self._here(instead) or self._fetch(instead or self._address.ref)

    def _here(self, ref: str) -> Fetched | None:
        """Return a commit by its id if it was fetched before: the server is not asked."""
        if not _is_id(ref):
            return None
        wanted = ObjectID(ref.encode())
        if self._known is not None and wanted == self._id:
            return self._known
        for repository in (self._open, self._before):
            if repository is not None and wanted in repository.object_store:
                return self._knows(repository, wanted)
        return None

    def _knows(self, repository: Repo, id_: ObjectID) -> Fetched:
        if self._known is None or id_ != self._id:
            self._id, self._known = id_, _commit(repository, id_, self._address.folder)
        return self._known

    def _fetch(self, ref: str) -> Fetched:
        if self._open is None or self._fetches >= _FETCHES:
            self._begin_anew()
        assert self._open is not None
        self._fetches += 1
        wanted: list[ObjectID] = []
        here = self._open.object_store

        def wants(refs: Mapping[Ref, ObjectID | None], depth: int | None = None) -> list[ObjectID]:
            wanted.append(_id({name: one for name, one in refs.items() if one is not None}, ref))
            return [] if wanted[0] in here else wanted[:1]

        transport, path = self._transport()
        try:
            transport.fetch(path, self._open, determine_wants=wants, depth=1)
            found = self._knows(self._open, wanted[0])
        except FAILURES:
            self._fetches = _FETCHES  # the folder may be incomplete
            if self._connections.ended:
                raise GitFailed("the server did not send the commit in time") from None
            raise
        finally:
            if isinstance(vendor := getattr(transport, "ssh_vendor", None), _Ssh):
                vendor.close()
        self._whole = True
        return found

    def _begin_anew(self) -> None:
        if self._whole:
            _remove(self._before)
            self._before = self._open
        else:
            _remove(self._open)
        self._open, self._known = Repo.init_bare(tempfile.mkdtemp(prefix="xds-git-")), None
        self._fetches, self._whole = 0, False

    def begin(self) -> None:
        """Expect a fetch in another thread. An `end` after this ends it, also if that thread has not begun yet."""
        self._connections.begin()

    def end(self) -> None:
        """End a fetch that is expected or under way in another thread: it raises GitFailed soon."""
        self._connections.end()

    def close(self) -> None:
        """Remove what was fetched."""
        _remove(self._open)
        _remove(self._before)
        self._open = self._before = self._known = None
        self._fetches, self._whole = 0, False

    def _transport(self) -> tuple[transports.GitClient, str]:
        parts = urlsplit(self._address.url)
        if parts.scheme == "ssh":
            assert parts.hostname is not None
            vendor = _Ssh(self._credentials, self._connections)
            found = transports.SSHGitClient(parts.hostname, parts.port, parts.username, vendor=vendor)
            return found, parts.path
        token = self._credentials.token_file
        password = _token(token) if token is not None else None
        base = f"{parts.scheme}://{parts.netloc}"
        username = "x-access-token" if password else None
        pool = cast(
            "urllib3.PoolManager",
            transports.default_urllib3_manager(None, base_url=base, timeout=_TIMEOUT),
        )
        self._connections.note(pool)
        client = transports.HttpGitClient(
            base, pool_manager=pool, username=username, password=password, timeout=_TIMEOUT, quiet=True
        )
        return client, parts.path


class _Ssh(transports.SubprocessSSHVendor):
    """Runs ssh, which never asks and never accepts an unknown host."""

    def __init__(self, credentials: GitCredentials, connections: Connections) -> None:
        self._credentials, self._connections = credentials, connections
        self._running: list[transports.SubprocessWrapper] = []

    def close(self) -> None:
        """End what was run: dulwich leaves it alone if the server or ssh rejects the connection."""
        while self._running:
            self._running.pop().close(timeout=_END)

    def run_command(self, *arguments: object, **options: object) -> object:  # type: ignore[override]
        command = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
        command += ["-o", f"ConnectTimeout={_TIMEOUT:.0f}", "-o", f"ServerAliveInterval={_TIMEOUT:.0f}"]
        if self._credentials.ssh_key is not None:
            command += ["-o", "IdentitiesOnly=yes", "-i", str(self._credentials.ssh_key)]
        if self._credentials.known_hosts is not None:
            command += ["-o", f"UserKnownHostsFile={self._credentials.known_hosts}"]
        options["ssh_command"] = " ".join(map(_quoted, command))
        running = super().run_command(*arguments, **options)  # type: ignore[arg-type]
        self._running.append(running)
        self._connections.add(running.proc)
        return running


def _token(file: Path) -> str:
    try:
        return file.read_text("ascii").strip()
    except UnicodeDecodeError:
        raise GitFailed(f"{file} is no token; write the token alone, as text") from None


def _remove(repository: Repo | None) -> None:
    if repository is not None:
        repository.close()
        shutil.rmtree(repository.path, ignore_errors=True)


def _is_id(ref: str) -> bool:
    return len(ref) == _ID_DIGITS and all(one in "0123456789abcdef" for one in ref)


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text


def _id(refs: Mapping[bytes, ObjectID], ref: str) -> ObjectID:
    """Return the id of what a ref names. Raises GitFailed."""
    for head in (b"",) if ref.startswith("refs/") else _HEADS:
        found = refs.get(head + ref.encode())
        if found is not None:
            return found
    if _is_id(ref):
        return ObjectID(ref.encode())
    names = sorted(
        name.removeprefix(b"refs/heads/").removeprefix(b"refs/tags/").decode("utf-8", "replace")
        for name in refs
        if name.startswith((b"refs/heads/", b"refs/tags/")) and not name.endswith(b"^{}")
    )
    raise GitFailed(
        f"it has no branch and no tag '{ref}'; {did_you_mean(ref, names) or 'it has none at all'}"
    )


def _commit(repository: Repo, id_: ObjectID, folder: str) -> Fetched:
    try:
        found = repository[id_]
    except KeyError:
        raise GitFailed(f"it has no commit {id_.decode()}") from None
    while isinstance(found, Tag):
        found = repository[found.object[1]]
    if not isinstance(found, Commit):
        raise GitFailed(f"{id_.decode()} is not a commit")
    signed = Signed(found.raw_without_sig(), found.gpgsig or b"", float(found.commit_time))
    return Fetched(version_of(found), CommitTree(repository.object_store, found.tree, folder), signed)


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Have every failure told as GitFailed, with the address."""
    try:
        yield
    except GitFailed as error:
        raise GitFailed(f"{where}: {error}") from None
    except transports.HTTPUnauthorized:
        remedy = "give a token with --git-token-file that may read the repository"
        raise GitFailed(f"{where}: the server wants credentials, or rejects these; {remedy}") from None
    except NotGitRepository:
        raise GitFailed(f"{where}: there is no repository, or no right to read it") from None
    except OSError as error:
        raise GitFailed(f"{where}: {error.strerror or error}") from None
    except FAILURES as error:
        raise GitFailed(f"{where}: {words(error)}") from None


def repository(address: GitAddress, credentials: GitCredentials) -> Repository:
    """Return the repository of an address."""
    parts = urlsplit(address.url)
    if parts.scheme == "file":
        return LocalRepository(parts.path, address.folder, address.ref)
    return RemoteRepository(address, credentials)
