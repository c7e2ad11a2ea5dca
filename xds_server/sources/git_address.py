"""Addresses of gateways in git: ``git+https://host/repo.git//folder?ref=main``, as other tools write them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from xds_server.errors import WrongUsage

PREFIX = "git+"
_SCHEMES = ("https", "http", "ssh", "file")
_FORM = "git+https://HOST/REPOSITORY.git//FOLDER?ref=BRANCH"


@dataclass(frozen=True, slots=True)
class GitAddress:
    """A folder of a repository at a ref: the name of a branch or tag, the whole name of a ref, or the id of a commit.

    `url` has no credentials. `folder` is empty for the top of the repository.
    """

    url: str
    folder: str = ""
    ref: str = "HEAD"

    def __str__(self) -> str:
        return f"{PREFIX}{self.url}{f'//{self.folder}' if self.folder else ''}?ref={self.ref}"


def is_git(text: str) -> bool:
    """True if a source is an address of git."""
    return text.startswith(PREFIX)


def parse(text: str) -> GitAddress:
    """Read an address. Raises WrongUsage, which never repeats a password."""
    try:
        parts = urlsplit(text.removeprefix(PREFIX))
        parts.port  # noqa: B018 - it raises if the port is no number
    except ValueError:
        raise WrongUsage(f"the address of git is not {_FORM}") from None
    if parts.scheme not in _SCHEMES:
        raise WrongUsage(
            f"git+{parts.scheme or '?'} is not served; write {_FORM}, or ssh, http or file for https"
        )
    if parts.password is not None or (parts.username and parts.scheme in ("https", "http")):
        raise WrongUsage("credentials in the address of git can be read by others; use --git-token-file")
    if parts.scheme != "file" and (not parts.hostname or parts.hostname.startswith("-")):
        raise WrongUsage(f"the address of git has no host: {_FORM}")
    path, _, folder = parts.path.partition("//")
    query = parse_qs(parts.query, keep_blank_values=True)
    unknown = sorted(query.keys() - {"ref"})
    if unknown:
        raise WrongUsage(f"the address of git has no parameter '{unknown[0]}'; known: ref")
    refs = query.get("ref", ["HEAD"])
    if len(refs) != 1 or not refs[0]:
        raise WrongUsage("the address of git has one ref: the name of a branch or tag, or the id of a commit")
    names = [one for one in folder.split("/") if one]
    if ".." in names or "." in names:
        raise WrongUsage(f"the folder '{folder}' of the address of git must not contain . or ..")
    if not path.strip("/"):
        raise WrongUsage(f"the address of git has no repository: {_FORM}")
    return GitAddress(f"{parts.scheme}://{parts.netloc}{path}", "/".join(names), refs[0])
