"""A watched folder: every way in which files come to change ends in one more reading."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from watchdog.events import FileSystemEvent

from xds_server.sources.directory import QUIET, Directory
from xds_server.sources.folder import Folder

LIMIT = 30


class Watched:
    """Reads on until the folder is as expected."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.seen: list[Folder] = []
        self._changes = directory.changes()

    async def until(self, **files: str) -> Folder:
        """The first reading whose files are these."""
        wanted = {name.replace("_", "."): text.encode() for name, text in files.items()}
        return await self.when(lambda folder: not folder.problems and dict(folder.files) == wanted)

    async def when(self, condition) -> Folder:  # type: ignore[no-untyped-def]
        async with asyncio.timeout(LIMIT):
            while True:
                folder = await anext(self._changes)
                self.seen.append(folder)
                if condition(folder):
                    return folder

    async def close(self) -> None:
        await self._changes.aclose()


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    folder = tmp_path / "gateway"
    folder.mkdir()
    (folder / "a.yaml").write_text("1")
    watched = Watched(Directory(folder))
    await watched.until(a_yaml="1")
    yield watched
    await watched.close()


async def test_a_file_that_is_written_is_read(watched: Watched) -> None:
    (watched.directory.path / "a.yaml").write_text("2")
    await watched.until(a_yaml="2")


async def test_an_atomic_rename_is_seen(watched: Watched) -> None:
    temporary = watched.directory.path / ".a.yaml.tmp"
    temporary.write_text("3")
    temporary.rename(watched.directory.path / "a.yaml")
    await watched.until(a_yaml="3")


async def test_a_link_that_is_swapped_as_kubernetes_swaps_config_maps_is_seen(watched: Watched) -> None:
    root = watched.directory.path
    (root / "a.yaml").unlink()
    for number in ("1", "2"):
        (root / f"..{number}").mkdir()
        (root / f"..{number}" / "a.yaml").write_text(f"version {number}")
    (root / "..data").symlink_to("..1")
    (root / "a.yaml").symlink_to("..data/a.yaml")
    await watched.until(a_yaml="version 1")
    (root / "..data_tmp").symlink_to("..2")
    (root / "..data_tmp").rename(root / "..data")
    await watched.until(a_yaml="version 2")


async def test_a_deleted_file_is_gone_from_the_next_reading(watched: Watched) -> None:
    (watched.directory.path / "b.yaml").write_text("b")
    await watched.until(a_yaml="1", b_yaml="b")
    (watched.directory.path / "a.yaml").unlink()
    await watched.until(b_yaml="b")


async def test_a_burst_of_files_is_read_far_less_often_than_it_has_files(watched: Watched) -> None:
    before = len(watched.seen)
    for number in range(200):
        (watched.directory.path / f"f{number}.yaml").write_text(str(number))
    await watched.when(lambda folder: len(folder.files) == 201)
    assert len(watched.seen) - before < 100


async def test_a_new_folder_within_is_watched_too(watched: Watched) -> None:
    within = watched.directory.path / "team"
    within.mkdir()
    (within / "x.yaml").write_text("x")
    await watched.when(lambda folder: folder.files.get("team/x.yaml") == b"x")
    (within / "x.yaml").write_text("y")
    await watched.when(lambda folder: folder.files.get("team/x.yaml") == b"y")


async def test_a_folder_that_vanishes_is_a_problem_and_is_read_again_when_it_returns(
    watched: Watched,
) -> None:
    root = watched.directory.path
    shutil.rmtree(root)
    gone = await watched.when(lambda folder: bool(folder.problems))
    assert "does not exist" in gone.problems[0]
    root.mkdir()
    (root / "a.yaml").write_text("back")
    await watched.until(a_yaml="back")
    (root / "a.yaml").write_text("and watched")
    await watched.until(a_yaml="and watched")


async def test_a_folder_behind_a_link_is_read_again_when_the_link_is_swapped(tmp_path: Path) -> None:
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "a.yaml").write_text(number)
    link = tmp_path / "current"
    link.symlink_to("1")
    watched = Watched(Directory(link))
    try:
        await watched.until(a_yaml="1")
        (tmp_path / "next").symlink_to("2")
        (tmp_path / "next").rename(link)
        await watched.until(a_yaml="2")
        (tmp_path / "2" / "a.yaml").write_text("3")
        await watched.until(a_yaml="3")
    finally:
        await watched.close()


async def test_a_link_further_up_may_be_swapped_as_git_sync_swaps_it(tmp_path: Path) -> None:
    for number in ("1", "2"):
        (tmp_path / number / "gateway").mkdir(parents=True)
        (tmp_path / number / "gateway" / "a.yaml").write_text(number)
    (tmp_path / "current").symlink_to("1")
    watched = Watched(Directory(tmp_path / "current" / "gateway"))
    try:
        await watched.until(a_yaml="1")
        (tmp_path / "next").symlink_to("2")
        (tmp_path / "next").rename(tmp_path / "current")
        await watched.until(a_yaml="2")
    finally:
        await watched.close()


async def test_a_file_outside_that_the_gateway_refers_to_is_watched(watched: Watched, tmp_path: Path) -> None:
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    (certificates / "ca.crt").write_text("old")
    watched.directory.refer_to([certificates / "ca.crt"])
    before = len(watched.seen)
    (certificates / "ca.crt").write_text("new")
    await watched.when(lambda _: len(watched.seen) > before)


async def test_polling_sees_changes_without_the_kernels_help(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("1")
    watched = Watched(Directory(tmp_path, poll=True))
    try:
        await watched.until(a_yaml="1")
        (tmp_path / "a.yaml").write_text("longer than before")
        await watched.until(a_yaml="longer than before")
    finally:
        await watched.close()


async def test_what_is_no_file_is_a_problem_and_does_not_hold_the_reader(watched: Watched) -> None:
    os.mkfifo(watched.directory.path / "pipe.yaml")
    found = await watched.when(lambda folder: bool(folder.problems))
    assert "pipe.yaml is not a file" in found.problems[0]
    (watched.directory.path / "pipe.yaml").unlink()
    await watched.until(a_yaml="1")


async def test_a_folder_counts_as_settled_when_no_file_is_empty_any_more(watched: Watched) -> None:
    (watched.directory.path / "a.yaml").write_text("")
    settling = asyncio.ensure_future(watched.directory.settled())
    await asyncio.sleep(0)
    (watched.directory.path / "a.yaml").write_text("whole")
    assert dict((await settling).files) == {"a.yaml": b"whole"}


async def test_a_file_that_is_still_open_for_writing_is_not_settled(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("1")
    watched = Watched(Directory(tmp_path, longest=60))
    await watched.until(a_yaml="1")
    with path.open("w") as file:
        file.write("half")
        file.flush()
        await watched.when(lambda folder: folder.files.get("a.yaml") == b"half")
        settling = asyncio.ensure_future(watched.directory.settled())
        await asyncio.sleep(QUIET * 1.5)
        assert not settling.done()
        file.write(" and whole")
    assert dict((await settling).files) == {"a.yaml": b"half and whole"}
    await watched.close()


async def test_reading_is_no_event(tmp_path: Path) -> None:
    class Recording(Directory):
        def happened(self, event: FileSystemEvent) -> None:
            seen.append(event.event_type)
            super().happened(event)

    seen: list[str] = []
    for name in "abcdef":
        (tmp_path / f"{name}.yaml").write_text("1")
    watched = Watched(Recording(tmp_path))
    await watched.when(lambda _: True)
    for name in "abcdef":
        (tmp_path / f"{name}.yaml").read_text()
    (tmp_path / "a.yaml").write_text("2")
    await watched.when(lambda folder: folder.files["a.yaml"] == b"2")
    await watched.close()
    assert seen
    assert {"opened", "closed_no_write"}.isdisjoint(seen)
