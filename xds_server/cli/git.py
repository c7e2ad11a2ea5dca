"""The flags of a gateway in git, and what they make."""

from __future__ import annotations

import argparse
import atexit
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xds_server.cli import flags
from xds_server.errors import UnreadableFolder, WrongUsage
from xds_server.sources import git_address
from xds_server.sources.git_pin import Pins
from xds_server.sources.source import SourceState

if TYPE_CHECKING:
    from xds_server.run_options import GitOptions
    from xds_server.sources.commit_status import Forge
    from xds_server.sources.git_repository import GitCredentials, Repository

_LOCAL_INTERVAL = 1.0
"""Seconds between two looks at a repository on this machine, which cost almost nothing."""
_SHORTEST = 0.1
_SHORTEST_SECRET = 16
"""Characters."""
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
        "--require-signature",
        metavar="FORM:FILE",
        help="serve signed commits only: ssh:FILE with allowed signers as git has them, or gpg:FILE with exported public keys",
    )
    add(
        "--git-webhook-secret",
        type=Path,
        metavar="FILE",
        help="file with the secret of webhooks, which are then accepted at POST /git/webhook of the admin address",
    )
    add(
        "--commit-status",
        metavar="FORGE",
        help="tell github:OWNER/NAME, gitlab:GROUP/NAME or KIND:URL whether each commit is served",
    )
    add(
        "--commit-status-token",
        type=Path,
        metavar="FILE",
        help="file with a token that may set statuses of commits",
    )
    add(
        "--commit-status-context",
        metavar="NAME",
        default="xds",
        help="name of the status, if several gateways serve one repository",
    )
    add(
        "--allow-empty",
        action="store_true",
        help="serve a commit without any YAML file; otherwise the last one with some stays",
    )


def options(arguments: argparse.Namespace) -> GitOptions | None:
    """Return the options of a gateway in git, None if it is a folder. Raises WrongUsage."""
    if not git_address.is_git(arguments.folder) and arguments.ref is None:
        _need_git(arguments)
        return None
    from xds_server.run_options import GitOptions
    from xds_server.sources.git_repository import GitCredentials, LocalRepository
    from xds_server.sources.git_signature import verifier
    from xds_server.sources.git_source import GitSource, Pace

    credentials = GitCredentials(
        token_file=_path(arguments.git_token_file),
        ssh_key=_path(arguments.git_ssh_key),
        known_hosts=_path(arguments.git_known_hosts),
    )
    of_ref = _repositories(arguments, credentials)
    name, repository = of_ref(None)
    interval = _interval(arguments.git_interval, local=isinstance(repository, LocalRepository))
    verify = verifier(arguments.require_signature) if arguments.require_signature else None
    pin_file = Path(f"{arguments.state}.pin") if arguments.state is not None else None

    def source() -> GitSource:
        pins = Pins.read(pin_file)
        pace = Pace(interval=interval)
        return GitSource(name, repository, pace, allow_empty=arguments.allow_empty, verify=verify, pins=pins)

    def branch(ref: str) -> GitSource:
        return GitSource(*of_ref(ref), Pace(interval=interval), verify=verify)

    return GitOptions(
        source=source,
        branch=branch,
        webhook_secret=_webhook_secret(arguments.git_webhook_secret),
        forge=_forge(arguments),
    )


def _repositories(
    arguments: argparse.Namespace, credentials: GitCredentials
) -> Callable[[str | None], tuple[str, Repository]]:
    """Return a function that returns the name and the repository of a ref, or of the ref that the arguments name."""
    from xds_server.sources.git_repository import LocalRepository, repository

    def around(ref: str | None) -> tuple[str, Repository]:
        ref = ref or arguments.ref
        return f"{arguments.folder} at {ref}", LocalRepository.around(Path(arguments.folder), ref)

    def at(ref: str | None) -> tuple[str, Repository]:
        address = git_address.parse(arguments.folder)
        address = address if ref is None else replace(address, ref=ref)
        return str(address), repository(address, credentials)

    return at if arguments.ref is None else around


def _need_git(arguments: argparse.Namespace) -> None:
    """Raise WrongUsage if a flag has no meaning for a folder on disk."""
    for name in ("require_signature", "git_webhook_secret", "commit_status"):
        if getattr(arguments, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise WrongUsage(f"{flag} needs a gateway in git: git+https://HOST/REPOSITORY.git, or --ref")


def _interval(given: float | None, *, local: bool) -> float:
    from xds_server.sources.git_source import Pace

    if given is None:
        return _LOCAL_INTERVAL if local else Pace().interval
    if given < _SHORTEST:
        raise WrongUsage(f"--git-interval: {given:g} is too often for a server; write at least {_SHORTEST:g}")
    return given


def _webhook_secret(file: Path | None) -> Path | None:
    if file is None:
        return None
    try:
        secret = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"--git-webhook-secret: {file} cannot be read: {error}") from None
    if len(secret) < _SHORTEST_SECRET:
        raise WrongUsage(f"--git-webhook-secret: a secret has at least {_SHORTEST_SECRET} characters")
    return file


def _forge(arguments: argparse.Namespace) -> Forge | None:
    from xds_server.sources.commit_status import Forge

    text, token = arguments.commit_status, arguments.commit_status_token
    if (text is None) != (token is None):
        raise WrongUsage("--commit-status and --commit-status-token need each other")
    if text is None:
        return None
    if not token.is_file():
        raise WrongUsage(f"--commit-status-token: {token} is not a file")
    return Forge.parse(text, arguments.commit_status_context, token)


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
