"""Commits that git itself has signed with keys of ssh and OpenPGP."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pysequoia
import pytest

from tests.support.git import WorkingTree
from xds_server.errors import WrongUsage
from xds_server.sources.git_repository import LocalRepository
from xds_server.sources.git_signature import Signed, Unsigned, verifier

needs_ssh = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")


def key(path: Path, kind: str = "ed25519") -> str:
    """Make a key pair of ssh, and return the public key."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path.with_suffix(".pub").read_text().strip()


def signed(tree: WorkingTree, *options: str) -> Signed:
    """Commit with options of git, and return what is signed of it."""
    tree.write("a.yaml", "routes: {}\n")
    tree.git("add", "--all")
    settings = (word for option in options for word in ("-c", option))
    sign = ("--gpg-sign",) if options else ()
    tree.git(*settings, "commit", "--quiet", "--allow-empty", *sign, "--message", "One\n\nMore")
    return LocalRepository(str(tree.path), "", "main").fetch().signed


def by_ssh(tree: WorkingTree, path: Path) -> Signed:
    return signed(tree, "gpg.format=ssh", f"user.signingkey={path}")


@pytest.fixture
def tree(tmp_path: Path) -> WorkingTree:
    return WorkingTree(tmp_path / "tree")


@needs_ssh
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_key_that_is_allowed(tree: WorkingTree, tmp_path: Path, kind: str) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(f"ada@example.com {key(tmp_path / 'key', kind)}\n")
    assert verifier(f"ssh:{allowed}")(by_ssh(tree, tmp_path / "key")) == "ada@example.com"


@needs_ssh
def test_a_key_that_is_not_allowed(tree: WorkingTree, tmp_path: Path) -> None:
    key(tmp_path / "key")
    other, allowed = key(tmp_path / "other"), tmp_path / "allowed"
    commit = by_ssh(tree, tmp_path / "key")
    for line, reason in (
        (f"ada@example.com {other}", "its key is not in"),
        (
            f'ada@example.com valid-before="20200101Z" {(tmp_path / "key.pub").read_text()}',
            "was not allowed when",
        ),
        (f'ada@example.com namespaces="file" {(tmp_path / "key.pub").read_text()}', "not one of this commit"),
        ("", "is empty, so nobody may sign"),
        ("ada@example.com nothing", "of that file ssh-keygen says: .*allowed:1: "),
    ):
        allowed.write_text(f"{line}\n")
        with pytest.raises(Unsigned, match=reason):
            verifier(f"ssh:{allowed}")(commit)


@needs_ssh
def test_a_signature_of_another_commit(tree: WorkingTree, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(f"ada@example.com {key(tmp_path / 'key')}\n")
    first = by_ssh(tree, tmp_path / "key")
    moved = Signed(first.payload.replace(b"One", b"Two"), first.signature, first.time)
    with pytest.raises(Unsigned, match="not one of this commit"):
        verifier(f"ssh:{allowed}")(moved)


def test_a_commit_without_a_signature(tree: WorkingTree, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")
    commit = signed(tree)
    assert commit.signature == b""
    for form in ("ssh", "gpg"):
        with pytest.raises(Unsigned, match="it is not signed"):
            verifier(f"{form}:{tmp_path / 'keys'}")(commit)


@needs_ssh
def test_a_signature_of_the_other_kind(tree: WorkingTree, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")
    key(tmp_path / "key")
    commit = by_ssh(tree, tmp_path / "key")
    with pytest.raises(Unsigned, match="no OpenPGP signature"):
        verifier(f"gpg:{tmp_path / 'keys'}")(commit)


@pytest.mark.skipif(not shutil.which("gpg"), reason="gpg is not installed")
def test_a_commit_that_gpg_has_signed(
    tree: WorkingTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    make = [
        "gpg",
        "--batch",
        "--quiet",
        "--passphrase",
        "",
        "--quick-gen-key",
        "Ada <ada@example.com>",
        "ed25519",
        "sign",
    ]
    subprocess.run(make, check=True, timeout=60, capture_output=True)
    try:
        commit = signed(tree, "user.signingkey=ada@example.com")
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], check=False, timeout=60)
    exported = subprocess.run(
        ["gpg", "--export", "--armor"], check=True, timeout=60, capture_output=True
    ).stdout
    keys = tmp_path / "keys.asc"
    keys.write_bytes(exported)
    fingerprint = pysequoia.Cert.from_bytes(exported).fingerprint
    assert verifier(f"gpg:{keys}")(commit) == fingerprint
    other = pysequoia.Tsk.generate("Eve <eve@example.com>").extract_certificate()
    keys.write_bytes(bytes(other))
    with pytest.raises(Unsigned, match="not signed by a key of"):
        verifier(f"gpg:{keys}")(commit)
    keys.write_text("nonsense")
    with pytest.raises(Unsigned, match="not signed by a key of") as caught:
        verifier(f"gpg:{keys}")(commit)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "ssh", "ssh:", "pgp:keys", "gpg:/no/such/file"])
def test_a_flag_that_names_no_keys(text: str) -> None:
    with pytest.raises(WrongUsage, match="--require-signature"):
        verifier(text)
