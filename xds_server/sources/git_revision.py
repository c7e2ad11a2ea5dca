"""A gateway in a commit that somebody names as git does: ``main``, ``origin/main``, ``v1``, ``3f2a91c``, ``HEAD~2``, ``main^``."""

from __future__ import annotations

import re
from pathlib import Path

from dulwich.objects import Commit
from dulwich.objectspec import AmbiguousShortId, parse_commit
from dulwich.repo import Repo

from filters.language.problems import did_you_mean
from xds_server.errors import UnreadableFolder
from xds_server.sources.git_commit import CommitFolder, CommitTree, version_of
from xds_server.sources.git_repository import FAILURES, working_tree

_SYNTAX = re.compile(r"(?P<name>[^\s~^:?*\[\\@{]+(?:@[^\s~^:?*\[\\{]+)*)(?P<steps>(?:~\d{0,6}|\^\d{0,2})*)")
_STEP = re.compile(r"([~^])(\d*)")
_KNOWN = "a branch, a tag, REMOTE/BRANCH, the id of a commit or HEAD, and then ~N or ^"


class RevisionReader:
    """Reads commits of the repository around a folder. Use as a context manager, until no file of a commit is read any more.

    Raises UnreadableFolder if the folder is in no repository.
    """

    def __init__(self, folder: Path) -> None:
        found = working_tree(folder)
        if found is None:
            raise UnreadableFolder(f"{folder} is not in a working tree of git")
        path, self._within = found
        self._repository = Repo(path)

    def close(self) -> None:
        """Close the repository."""
        self._repository.close()

    def read(self, revision: str, folder: str | None = None) -> CommitFolder:
        """Return the folder of a commit, by its path in the repository; None is the folder that was given.

        Raises UnreadableFolder if there is no such commit.
        """
        try:
            commit = self._commit(revision)
        except AmbiguousShortId:
            raise UnreadableFolder(
                f"'{revision}' begins the ids of several commits; write more of it"
            ) from None
        except FAILURES as error:
            raise UnreadableFolder(f"'{revision}' cannot be read from git: {error}") from None
        within = self._within if folder is None else folder.strip("/")
        tree = CommitTree(self._repository.object_store, commit.tree, within)
        return tree.folder(version_of(commit), allow_empty=True)

    def _commit(self, revision: str) -> Commit:
        match = _SYNTAX.fullmatch(revision)
        if match is None:
            raise UnreadableFolder(f"'{revision}' is not a revision that is understood: {_KNOWN}")
        try:
            commit = parse_commit(self._repository, match["name"])
        except KeyError:
            raise UnreadableFolder(self._unknown(match["name"])) from None
        for kind, number in _STEP.findall(match["steps"]):
            if kind == "^":
                commit = self._parent(commit, int(number or 1), revision)
            else:
                for _ in range(int(number or 1)):
                    commit = self._parent(commit, 1, revision)
        return commit

    def _parent(self, commit: Commit, number: int, revision: str) -> Commit:
        if number == 0:
            return commit
        if number > len(commit.parents):
            which = "no parent" if not commit.parents else f"{len(commit.parents)} parents"
            raise UnreadableFolder(f"'{revision}' does not exist: {commit.id.decode()[:12]} has {which}")
        try:
            found = self._repository[commit.parents[number - 1]]
        except KeyError:
            raise UnreadableFolder(
                f"'{revision}' is not here, because this is a shallow clone; fetch more of its history, such as with "
                "git fetch --unshallow"
            ) from None
        assert isinstance(found, Commit)
        return found

    def _unknown(self, name: str) -> str:
        prefixes = ("refs/heads/", "refs/tags/", "refs/remotes/")
        refs = [one.decode("utf-8", "replace") for one in self._repository.refs.allkeys()]
        names = [one.removeprefix(prefix) for one in refs for prefix in prefixes if one.startswith(prefix)]
        near = did_you_mean(name, sorted(names))
        return f"the repository has no branch, tag or commit '{name}'" + (f"; {near}" if near else "")
