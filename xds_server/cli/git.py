"""The flags of a gateway in git, and what they make."""

from __future__ import annotations

import argparse
import atexit
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from xds_server.cli import flags
from xds_server.errors import UnreadableFolder, WrongUsage
from xds_server.sources import git_address
from xds_server.sources.source import Source, SourceState

if TYPE_CHECKING:
    from xds_server.sources.git_repository import GitCredentials, Repository

_LOCAL_INTERVAL = 1.0
"""Seconds between two looks at a repository on this machine, which cost almost nothing."""
_SHORTEST = 0.1
_TOKEN, _KEY, _HOSTS = "XDS_GIT_TOKEN_FILE", "XDS_GIT_SSH_KEY", "XDS_GIT_KNOWN_HOSTS"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `xds run` for a gateway in git."""
    add = parser.add_argument
    add(
        "--ref",
        metavar="NAME",
        help="serve the commit of this branch or tag of the folder's repository, and not the files on disk",
    )
    add(
        "--git-interval",
        type=flags.seconds,
        metavar="SECONDS",
        help="time between two looks for a new commit; default: 30, and 1 for a repository on this machine",
    )
    for flag, variable, what in (
        ("--git-token-file", _TOKEN, "file with a token that may read the repository, for https"),
        ("--git-ssh-key", _KEY, "private key for ssh, which has no passphrase"),
        ("--git-known-hosts", _HOSTS, "file with the keys of hosts for ssh; unknown hosts are rejected"),
    ):
        help_ = f"{what}; default: the environment variable {variable}"
        add(flag, type=Path, metavar="FILE", default=os.environ.get(variable), help=help_)
    add(
        "--allow-empty",
        action="store_true",
        help="serve a commit without any YAML file; otherwise the last one with some stays",
    )


def source(arguments: argparse.Namespace) -> Callable[[], Source] | None:
    """Return what makes the source of a gateway in git, None if it is a folder. Raises WrongUsage."""
    if not git_address.is_git(arguments.folder) and arguments.ref is None:
        return None
    from xds_server.sources.git_repository import GitCredentials, LocalRepository
    from xds_server.sources.git_source import GitSource, Pace

    credentials = GitCredentials(
        token_file=_path(arguments.git_token_file),
        ssh_key=_path(arguments.git_ssh_key),
        known_hosts=_path(arguments.git_known_hosts),
    )
    if arguments.ref is not None:
        name = f"{arguments.folder} at {arguments.ref}"
        repository: Repository = LocalRepository.around(Path(arguments.folder), arguments.ref)
    else:
        name, repository = _repository(arguments.folder, credentials)
    pace = Pace()
    interval = arguments.git_interval
    if interval is not None and interval < _SHORTEST:
        raise WrongUsage(
            f"--git-interval: {interval:g} is too often for a server; write at least {_SHORTEST:g}"
        )
    if interval is None:
        interval = _LOCAL_INTERVAL if isinstance(repository, LocalRepository) else pace.interval
    return lambda: GitSource(name, repository, Pace(interval=interval), allow_empty=arguments.allow_empty)


def read(text: str) -> SourceState:
    """Return the gateway of an address of git now. The environment has the credentials. Raises UnreadableFolder, WrongUsage."""
    from xds_server.sources.git_repository import GitCredentials, GitFailed

    files = (_path(os.environ.get(name)) for name in (_TOKEN, _KEY, _HOSTS))
    _, repository = _repository(
        text, GitCredentials(token_file=next(files), ssh_key=next(files), known_hosts=next(files))
    )
    atexit.register(repository.close)  # files of the commit may be read until the command ends
    try:
        found = repository.fetch()
        return found.tree.folder(found.version, allow_empty=True)
    except GitFailed as error:
        raise UnreadableFolder(str(error)) from None


def _repository(text: str, credentials: GitCredentials) -> tuple[str, Repository]:
    from xds_server.sources.git_repository import repository

    address = git_address.parse(text)
    return str(address), repository(address, credentials)


def _path(value: str | Path | None) -> Path | None:
    if not value:
        return None
    if not Path(value).is_file():
        raise WrongUsage(
            f"{value} is not a file; correct --git-token-file, --git-ssh-key or --git-known-hosts"
        )
    return Path(value)
