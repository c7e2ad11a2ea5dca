"""Addresses of gateways in git: what they mean, and what is wrong with others."""

from __future__ import annotations

import pytest

from xds_server.cli.main import main
from xds_server.errors import WrongUsage
from xds_server.sources.git_address import GitAddress, is_git, parse


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("git+https://h.test/a/b.git", GitAddress("https://h.test/a/b.git", "", "HEAD")),
        ("git+https://h.test/b.git//x/y/?ref=v1", GitAddress("https://h.test/b.git", "x/y", "v1")),
        ("git+ssh://git@h.test:22/b.git//x?ref=a/b", GitAddress("ssh://git@h.test:22/b.git", "x", "a/b")),
        ("git+file:///srv/b.git//x?ref=main", GitAddress("file:///srv/b.git", "x", "main")),
    ],
)
def test_an_address_names_repository_folder_and_ref(text: str, address: GitAddress) -> None:
    assert is_git(text)
    assert parse(text) == address
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("git+ftp://h.test/a.git", "git+ftp is not served"),
        ("git+https:///a.git", "has no host"),
        ("git+https://h.test", "has no repository"),
        ("git+https://h.test/a.git?branch=x", "no parameter 'branch'"),
        ("git+https://h.test/a.git?ref=", "has one ref"),
        ("git+https://h.test/a.git//../x", "must not contain . or .."),
        ("git+https://me:hidden@h.test/a.git", "--git-token-file"),
        ("git+https://hidden@h.test/a.git", "--git-token-file"),
        ("git+https://h.test:x/a.git", "is not git+https"),
    ],
)
def test_another_address_is_told_and_never_with_its_password(text: str, said: str) -> None:
    with pytest.raises(WrongUsage) as caught:
        parse(text)
    assert said in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_an_interval_of_nothing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "git+https://h.test/a.git", "--git-interval", "0"]) == 2
    assert "--git-interval: 0 is too often" in capsys.readouterr().err
