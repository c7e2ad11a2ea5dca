"""A pinned commit, and the memory of served ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from xds_server.errors import EnvironmentFailed, WrongUsage
from xds_server.sources.git_pin import REMEMBERED, Pin, Pins


def test_what_is_noted_is_read_again(tmp_path: Path) -> None:
    pins = Pins.read(tmp_path / "state.pin")
    for one in ("aaaa1", "bbbb2", "aaaa1", "aaaa1"):
        pins.note_served(one)
    pins.set(Pin("bbbb2", 5.0))
    again = Pins.read(tmp_path / "state.pin")
    assert again.pin == Pin("bbbb2", 5.0)
    assert again.served == ["bbbb2", "aaaa1"]
    again.set(None)
    assert Pins.read(tmp_path / "state.pin").pin is None
    assert [one.name for one in tmp_path.iterdir()] == ["state.pin"]


def test_the_earlier_commit_is_the_one_before() -> None:
    pins = Pins()
    pins.note_served("a" * 40)
    with pytest.raises(WrongUsage, match="xds rollback COMMIT"):
        pins.earlier()
    pins.note_served("b" * 40)
    assert pins.earlier() == "a" * 40


def test_the_first_digits_of_a_served_commit_are_enough_if_they_are_of_one() -> None:
    pins = Pins()
    for one in ("aaaa1", "aaaa2", "bbbb"):
        pins.note_served(one)
    assert pins.whole("aaaa2") == "aaaa2"
    assert pins.whole("bbbb") == "bbbb"
    assert pins.whole("aaa") == "aaa"
    assert pins.whole("main") == "main"
    with pytest.raises(WrongUsage, match="several commits"):
        pins.whole("aaaa")


def test_only_so_many_are_remembered() -> None:
    pins = Pins()
    for number in range(REMEMBERED + 5):
        pins.note_served(f"{number:040}")
    assert len(pins.served) == REMEMBERED
    assert pins.served[-1] == f"{REMEMBERED + 4:040}"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pin": 5, "served": []}', '{"served": []}'])
def test_a_damaged_file_is_not_taken_for_no_pin(tmp_path: Path, text: str) -> None:
    file = tmp_path / "state.pin"
    file.write_text(text)
    with pytest.raises(EnvironmentFailed, match="delete the file"):
        Pins.read(file)


def test_a_pin_that_cannot_be_written_holds_until_a_restart(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "no" / "folder")
    assert pins.survives
    pins.set(Pin("a" * 40, 1.0))
    assert pins.holds("a" * 40)
    assert not pins.survives
    pins.note_served("a" * 40)  # it is logged, and serving goes on
    (tmp_path / "no").mkdir()
    pins.set(None)
    assert pins.survives


def test_each_rollback_goes_one_commit_further_back() -> None:
    pins = Pins()
    for one in ("aaaa", "bbbb", "cccc"):
        pins.note_served(one)
    for wanted in ("bbbb", "aaaa"):
        pins.set(Pin(pins.earlier(), 1.0))
        assert pins.holds(wanted)
        pins.note_served(wanted)
    with pytest.raises(WrongUsage):
        pins.earlier()
    pins.set(None)
    pins.note_served("cccc")
    assert pins.earlier() == "bbbb"
