"""Commits of real repositories, on this machine and over smart HTTP: what is read of them, and what is told."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.git import DrippingServer, GitServer, WorkingTree, collected
from xds_server.errors import WrongUsage
from xds_server.sources import git_repository
from xds_server.sources.git_address import GitAddress
from xds_server.sources.git_commit import LARGEST, MOST, CommitFolder
from xds_server.sources.git_repository import (
    GitCredentials,
    GitFailed,
    LocalRepository,
    RemoteRepository,
)


@pytest.fixture
def tree(tmp_path: Path) -> WorkingTree:
    return WorkingTree(tmp_path / "tree", tmp_path / "served" / "shop.git")


@pytest.fixture
def server(tmp_path: Path, tree: WorkingTree) -> Iterator[GitServer]:
    with GitServer(tmp_path / "served") as running:
        yield running


OPENED: list[LocalRepository] = []


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    with collected():
        yield
        while OPENED:
            OPENED.pop().close()


def local(tree: WorkingTree, folder: str = "", ref: str = "main") -> CommitFolder:
    OPENED.append(LocalRepository(str(tree.path), folder, ref))
    found = OPENED[-1].fetch()
    return found.tree.folder(found.version, allow_empty=False)


def remote(server: GitServer, folder: str = "", ref: str = "main", **credentials: Path) -> RemoteRepository:
    address = GitAddress(f"{server.url}/shop.git", folder, ref)
    return RemoteRepository(address, GitCredentials(**credentials))


def read(repository: RemoteRepository) -> CommitFolder:
    found = repository.fetch()
    return found.tree.folder(found.version, allow_empty=False)


def test_the_committed_state_is_read_and_not_the_files_on_disk(tree: WorkingTree) -> None:
    tree.write("gateway/tests/case.yaml", "x: 1")
    tree.write("gateway/.hidden.yaml", "x: 1")
    tree.write("gateway/inner/b.yaml", "b: 1")
    tree.write("gateway/UPPER.YAML", "x: 1")
    tree.write("gateway/page.html", "hello")
    id_ = tree.commit("First\n\nMore about it", **{"gateway/a": "a: 1"})
    tree.write("gateway/a.yaml", "a: 2")
    found = local(tree, "gateway")
    assert dict(found.files) == {"a.yaml": b"a: 1", "inner/b.yaml": b"b: 1"}
    assert found.ignored == ("UPPER.YAML",)
    assert not found.problems
    assert found.read("page.html") == b"hello"
    assert found.version is not None
    assert (found.version.id, found.version.subject) == (id_, "First")
    assert found.version.author == "Ada <ada@example.com>"
    OPENED.append(LocalRepository.around(tree.path / "gateway", "main"))
    assert OPENED[-1].fetch().tree.read("a.yaml") == b"a: 1"


def test_links_are_followed_inside_of_the_repository_only(tree: WorkingTree) -> None:
    tree.write("shared/common.yaml", "common: 1")
    (tree.path / "gateway").mkdir()
    (tree.path / "gateway" / "common.yaml").symlink_to("../shared/common.yaml")
    (tree.path / "gateway" / "linked").symlink_to("../shared")
    tree.commit("Inside")
    assert dict(local(tree, "gateway").files) == {"common.yaml": b"common: 1"}
    assert local(tree, "gateway").read("linked/common.yaml") == b"common: 1"
    told = [str(one) for one in local(tree, "gateway").findings]
    assert told == [
        "warning: linked is a link to a folder, in which no YAML file is read; move the folder here, or link single files"
    ]
    (tree.path / "gateway" / "out.yaml").symlink_to("../../secret.yaml")
    (tree.path / "gateway" / "loop.yaml").symlink_to("loop.yaml")
    (tree.path / "gateway" / "folder.yaml").symlink_to("../shared")
    tree.commit("Outside")
    told = "\n".join(local(tree, "gateway").problems)
    assert "out.yaml: it leads out of the repository" in told
    assert "loop.yaml: it leads through too many links" in told
    assert "folder.yaml: it is a link to a folder" in told
    for path in ("../../x", "../../../etc/passwd", "page/../../../x", "missing"):
        with pytest.raises(FileNotFoundError):
            local(tree, "gateway").read(path)


def test_what_is_no_file_is_told(tree: WorkingTree) -> None:
    tree.write("lfs.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    tree.write("large.yaml", "#" * (LARGEST + 1))
    tree.write("Same.yaml", "a: 1")
    tree.write("same.yaml", "a: 2")
    tree.git("add", "--all")
    tree.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},other")
    tree.git("commit", "--quiet", "--message", "Odd")
    id_ = tree.git("rev-parse", "HEAD")
    found = local(tree)
    told = "\n".join(found.problems)
    assert all(one.startswith(f"commit {id_[:12]}: ") for one in found.problems)
    assert "lfs.yaml: it is a pointer of Git LFS" in told
    assert "large.yaml: it has 16777217 bytes" in told
    assert "other is a submodule" in told
    assert [one.message.partition(" are")[0] for one in found.findings] == ["same.yaml and Same.yaml"]
    assert "has no folder gateway" in local(tree, "gateway").problems[0]
    assert "same.yaml is a file" in local(tree, "same.yaml").problems[0]


def test_a_commit_without_files_is_a_problem_unless_it_is_allowed(tree: WorkingTree) -> None:
    tree.write("note.txt", "x")
    tree.commit("Nothing")
    assert "no YAML file" in local(tree).problems[0]
    found = OPENED[-1].fetch()
    assert not found.tree.folder(found.version, allow_empty=True).problems


@pytest.mark.parametrize("text", ["", "# nothing\n", "routes: {}\nlisteners:\n", "---\n", "x-a: {b: 1}\n"])
def test_files_that_say_nothing_are_a_problem_too(tree: WorkingTree, text: str) -> None:
    tree.commit("Nothing", a=text, b="")
    assert "nothing in its YAML files" in local(tree).problems[0]
    tree.commit("Something", b="routes: {a: {}}\n")
    assert not local(tree).problems


def test_trees_that_git_does_not_make_are_a_problem(tree: WorkingTree) -> None:
    tree.commit("One", a="a: 1")
    blob = tree.git("rev-parse", "HEAD:a.yaml")
    for names in (("a.yaml", "a.yaml"), ("../a.yaml",), (".git",)):
        entries = b"".join(b"100644 " + name.encode() + b"\0" + bytes.fromhex(blob) for name in names)
        file = tree.path.parent / "object"
        file.write_bytes(entries)
        made = tree.git("hash-object", "-t", "tree", "-w", "--literally", str(file))
        commit = tree.git("commit-tree", "-m", "Odd", made)
        tree.git("update-ref", "refs/heads/main", commit)
        assert "a name that git does not make, or is there twice" in local(tree).problems[0]


def test_a_small_commit_with_a_huge_folder_is_a_problem(tree: WorkingTree) -> None:
    tree.commit("One", **{"gateway/a": "a: 1"})
    named = tree.git("rev-parse", "HEAD:gateway")
    for _ in range(5):  # each names the one before ten times
        entries = b"".join(b"40000 d%d\0" % number + bytes.fromhex(named) for number in range(10))
        file = tree.path.parent / "object"
        file.write_bytes(entries)
        named = tree.git("hash-object", "-t", "tree", "-w", str(file))
    tree.git("update-ref", "refs/heads/main", tree.git("commit-tree", "-m", "Odd", named))
    (told,) = local(tree).problems
    assert f"the folder of the gateway has more than {MOST} files" in told
    assert not local(tree, "d0/d0").problems


def test_a_deep_folder_is_read_and_a_missing_object_is_a_problem(tree: WorkingTree) -> None:
    tree.commit("One", **{"gateway/a": "a: 1"})
    named = tree.git("rev-parse", "HEAD:gateway")
    for _ in range(1200):  # deeper than Python calls itself
        body = b"40000 d\0" + bytes.fromhex(named)
        content = b"tree %d\0" % len(body) + body
        named = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        stored = tree.path / ".git" / "objects" / named[:2] / named[2:]
        stored.parent.mkdir(exist_ok=True)
        stored.write_bytes(zlib.compress(content))
    tree.git("update-ref", "refs/heads/main", tree.git("commit-tree", "-m", "Deep", named))
    assert list(local(tree).files) == [f"{'d/' * 1200}a.yaml"]
    (tree.path / ".git" / "objects" / named[:2] / named[2:]).unlink()
    (told,) = local(tree).problems
    assert f"object {named[:12]} of the repository is missing or damaged" in told


def test_author_and_subject_control_no_terminal(tree: WorkingTree) -> None:
    tree.write("a.yaml", "a: 1")
    tree.git("add", "--all")
    tree.git(
        "commit",
        "--quiet",
        "--author",
        "E\x1b[31mve <eve@example.com>",
        "--message",
        "A \x1b]0;x\x07 \u202eb",
    )
    version = local(tree).version
    assert version is not None
    assert (version.author, version.subject) == (
        "E\\x1b[31mve <eve@example.com>",
        "A \\x1b]0;x\\x07 \\u202eb",
    )


def test_branches_tags_ids_and_what_is_none_of_them(tree: WorkingTree) -> None:
    first = tree.commit("One", a="a: 1")
    tree.git("tag", "--annotate", "--message", "v1", "v1")
    tree.git("tag", "light")
    second = tree.commit("Two", a="a: 2")
    tree.git("update-ref", "refs/tags/refs/heads/main", first)  # a whole name is no part of another one
    whole = LocalRepository(str(tree.path), "", "refs/heads/main")
    assert whole.fetch().version.id == second
    whole.close()
    tree.git("update-ref", "-d", "refs/tags/refs/heads/main")
    wanted = {
        "main": second,
        "HEAD": second,
        "refs/heads/main": second,
        "v1": first,
        "light": first,
        first: first,
    }
    for ref, id_ in wanted.items():
        version = local(tree, ref=ref).version
        assert version is not None
        assert version.id == id_, ref
    with pytest.raises(GitFailed, match="no branch and no tag 'man'; did you mean 'main'"):
        local(tree, ref="man")
    with pytest.raises(GitFailed):
        local(tree, ref="1" * 40)
    with pytest.raises(WrongUsage, match="not in a working tree"):
        LocalRepository.around(Path("/"), "main")


def test_commits_are_fetched_one_by_one(tree: WorkingTree, server: GitServer) -> None:
    ids = [tree.commit("One", a="a: 1"), tree.commit("Two", a="a: 2")]
    tree.push()
    repository = remote(server)
    try:
        assert read(repository).files == {"a.yaml": b"a: 2"}
        assert repository.fetch() is repository.fetch()
        ids.append(tree.commit("Three", b="b: 1"))
        tree.push()
        assert read(repository).files == {"a.yaml": b"a: 2", "b.yaml": b"b: 1"}
        tree.git("reset", "--quiet", "--hard", ids[0])
        tree.push("--force", "origin", "HEAD:main")
        assert read(repository).files == {"a.yaml": b"a: 1"}
        tree.push("origin", "HEAD:other")
        tree.git("push", "--quiet", "origin", ":other")
        assert read(repository).files == {"a.yaml": b"a: 1"}
    finally:
        repository.close()


def test_many_fetches_leave_few_files(
    tree: WorkingTree, server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_repository, "_FETCHES", 3)
    repository = remote(server)
    try:
        for number in range(8):
            tree.commit("More", a=f"a: {number}")
            tree.push()
            assert read(repository).files == {"a.yaml": f"a: {number}".encode()}
    finally:
        repository.close()


def test_an_earlier_commit_is_here_while_the_server_is_down(tree: WorkingTree, server: GitServer) -> None:
    repository = RemoteRepository(GitAddress(f"{server.url}/shop.git", "", "main"), GitCredentials())

    def pushed(number: int) -> str:
        id_ = tree.commit(str(number), a=f"x-version: {number}\n")
        tree.push()
        assert repository.fetch().version.id == id_
        return id_

    ids = [pushed(1), pushed(2)]
    with collected():
        server.down = True
        for _ in range(3):
            with pytest.raises(GitFailed, match="503"):
                repository.fetch()
        for id_ in ids:
            assert repository.fetch(id_).version.id == id_
            assert repository.fetch(id_) is repository.fetch(id_)
        with pytest.raises(GitFailed, match="503"):
            repository.fetch("f" * 40)
        server.down = False
        assert repository.fetch().version.id == ids[1]
        assert repository.fetch(ids[0]).tree.read("a.yaml") == b"x-version: 1\n"
        repository.close()


def test_a_fetch_without_end_can_be_ended() -> None:
    with collected(), DrippingServer() as server:
        repository = RemoteRepository(GitAddress(f"{server.url}/shop.git"), GitCredentials())

        def end() -> None:
            server.connected.wait(60)
            repository.end()

        threading.Thread(target=end).start()
        with pytest.raises(GitFailed, match="did not send the commit in time"):
            repository.fetch()
        repository.close()


def test_failures_are_told_and_pass(tree: WorkingTree, server: GitServer, tmp_path: Path) -> None:
    tree.commit("One", a="a: 1")
    tree.push()
    repository = remote(server)
    assert read(repository).files == {"a.yaml": b"a: 1"}
    server.down = True
    with pytest.raises(GitFailed, match=r"shop\.git: .*503"):
        repository.fetch()
    server.down = False
    assert read(repository).files == {"a.yaml": b"a: 1"}
    repository.close()
    with pytest.raises(GitFailed, match="no branch and no tag 'none'"):
        remote(server, ref="none").fetch()
    with pytest.raises(GitFailed, match="there is no repository"):
        RemoteRepository(GitAddress(f"{server.url}/other.git"), GitCredentials()).fetch()
    with pytest.raises(GitFailed, match="refused"):
        RemoteRepository(GitAddress("http://127.0.0.1:9/x.git"), GitCredentials()).fetch()
    with pytest.raises(GitFailed, match="there is no repository"):
        LocalRepository(str(tmp_path), "", "main").fetch()


def test_a_token_comes_from_a_file_and_is_never_told(tree: WorkingTree, tmp_path: Path) -> None:
    tree.commit("One", a="a: 1")
    tree.push()
    token = tmp_path / "token"
    token.write_text("wrong-token\n")
    with GitServer(tmp_path / "served", "right-token") as server:
        with pytest.raises(GitFailed, match="wants credentials"):
            remote(server).fetch()
        repository = remote(server, token_file=token)
        with pytest.raises(GitFailed) as caught:
            repository.fetch()
        assert "wrong-token" not in str(caught.value)
        token.write_text("right-token\n")
        assert read(repository).files == {"a.yaml": b"a: 1"}
        repository.close()
