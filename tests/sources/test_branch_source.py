"""What the files of a preview may read."""

from __future__ import annotations

from pathlib import Path

import pytest

from xds_server.sources.branch_source import Allowed, BranchState
from xds_server.sources.git_commit import CommitFolder


def state(**allowed: object) -> BranchState:
    return BranchState(CommitFolder(), Allowed(**allowed), {})  # type: ignore[arg-type]


def test_a_file_of_the_machine_is_read_only_if_it_is_allowed(tmp_path: Path) -> None:
    allowed, other = tmp_path / "certs" / "a.pem", tmp_path / "key.pem"
    allowed.parent.mkdir()
    for file in (allowed, other):
        file.write_text(file.name)
    own = state(files=(f"{tmp_path}/certs/*",))
    assert own.read(str(allowed)) == b"a.pem"
    for path in (str(other), f"{tmp_path}/certs/../key.pem", f"/{other}"):
        with pytest.raises(PermissionError, match="allow it in groups"):
            own.read(path)
    with pytest.raises(PermissionError):
        state().read(str(allowed))


def test_only_allowed_files_of_a_folder_of_the_machine_are_named(tmp_path: Path) -> None:
    for name in ("a.graphql", "key.pem"):
        (tmp_path / name).write_text(name)
    own = state(files=(f"{tmp_path}/*.graphql",))
    assert [*own.names(f"{tmp_path}/../{tmp_path.name}")] == ["a.graphql"]
    assert own.reads == {tmp_path}
    for folder in (tmp_path.parent, f"{tmp_path}/inner"):
        with pytest.raises(PermissionError, match="allow its files in groups"):
            own.names(str(folder))


def test_a_link_before_two_dots_does_not_lead_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "key.pem").write_text("secret")
    (tmp_path / "certs" / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    with pytest.raises(FileNotFoundError):
        state(files=(f"{tmp_path}/certs/*",)).read(f"{tmp_path}/certs/link/../key.pem")


def test_policies_in_python_need_a_permission() -> None:
    with pytest.raises(PermissionError, match="python: true"):
        state().read("policies/p.py")
    with pytest.raises(FileNotFoundError):
        state(python=True).read("policies/p.py")
