"""The last good state survives a restart, and nothing that was damaged is ever served."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from google.protobuf import wrappers_pb2

from tests.support.conversation import snapshot
from tests.support.resources import gateway
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, custom
from xds_server.serving.persistence import LastGood, Unreadable, load, save
from xds_server.serving.store import Store

GATEWAY = gateway(["a", "b"], {"/": "a"})


def test_what_was_saved_is_read_with_equal_content_and_versions(tmp_path: Path) -> None:
    rules = custom("rule", "google.protobuf.StringValue")
    other = Snapshot.of({rules: [Resource.of(wrappers_pb2.StringValue(value="x"), "free")]})
    save(tmp_path / "state", {"": GATEWAY, "other": other})
    found = load(tmp_path / "state")
    assert found.keys() == {"", "other"}
    assert found[""].resources == GATEWAY.resources
    assert found[""].versions == GATEWAY.versions
    assert found["other"].resources == other.resources


def test_a_state_that_was_not_saved_is_none(tmp_path: Path) -> None:
    assert load(tmp_path / "missing") == {}


@pytest.mark.parametrize("at", [0, 3, 10, 40, 100, -1])
def test_a_damaged_byte_is_found(tmp_path: Path, at: int) -> None:
    file = tmp_path / "state"
    save(file, {"": GATEWAY})
    content = bytearray(file.read_bytes())
    content[at] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(Unreadable):
        load(file)


def test_a_truncated_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "state"
    save(file, {"": GATEWAY})
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(Unreadable, match="checksum"):
        load(file)


def test_only_the_owner_may_read_the_keys_in_it(tmp_path: Path) -> None:
    file = tmp_path / "state"
    save(file, {"": GATEWAY})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_but_the_file_is_left_behind(tmp_path: Path) -> None:
    for _ in range(3):
        save(tmp_path / "state", {"": GATEWAY})
    assert [one.name for one in tmp_path.iterdir()] == ["state"]


async def test_a_restarted_server_serves_what_the_one_before_it_served(tmp_path: Path) -> None:
    store = Store()
    last = LastGood(tmp_path / "state", store)
    store.observe(last.observe)
    for version in ("1", "2", "3"):
        store.publish(snapshot(cluster={"a": version}))
    await last.close()
    restarted = Store()
    assert LastGood(tmp_path / "state", restarted).restore()
    current = restarted.current()
    assert current is not None
    assert current[CLUSTER]["a"].version == "3"


async def test_a_newer_publication_is_not_overwritten_by_the_restored_one(tmp_path: Path) -> None:
    save(tmp_path / "state", {"": snapshot(cluster={"a": "old"})})
    store = Store()
    store.publish(snapshot(cluster={"a": "new"}))
    LastGood(tmp_path / "state", store).restore()
    current = store.current()
    assert current is not None
    assert current[CLUSTER]["a"].version == "new"


async def test_a_damaged_file_is_reported_and_serves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_bytes(b"nonsense")
    store = Store()
    assert not LastGood(tmp_path / "state", store).restore()
    assert store.current() is None
    assert "could not read the last good state" in caplog.text


async def test_a_folder_that_cannot_be_written_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store()
    last = LastGood(tmp_path / "file" / "state", store)
    store.observe(last.observe)
    store.publish(snapshot(cluster={"a": "1"}))
    await last.close()
    assert "could not write the last good state" in caplog.text


async def test_what_could_not_be_written_is_written_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("in the way")
    store = Store()
    last = LastGood(tmp_path / "folder" / "state", store)
    store.observe(last.observe)
    store.publish(snapshot(cluster={"a": "1"}))
    await last.close()
    (tmp_path / "folder").unlink()
    await last.close()
    assert load(tmp_path / "folder" / "state").keys() == {""}


def test_a_file_of_another_version_is_told_from_one_that_is_none(tmp_path: Path) -> None:
    for content, message in ((b"XDS0 and more", "another version"), (b"", "not a file of snapshots")):
        (tmp_path / "state").write_bytes(content)
        with pytest.raises(Unreadable, match=message):
            load(tmp_path / "state")


async def test_what_is_restored_is_adapted_to_what_this_process_can_serve(tmp_path: Path) -> None:
    save(tmp_path / "state", {"": snapshot(cluster={"a": "1", "b": "1"})})
    store = Store(quarantine=True)

    def without_b(found: Snapshot) -> Snapshot:
        return found.replacing({CLUSTER: {"a": found[CLUSTER]["a"]}})

    assert LastGood(tmp_path / "state", store, adapt=without_b).restore()
    current = store.current()
    assert current is not None
    assert list(current[CLUSTER]) == ["a"]
    assert current.versions == snapshot(cluster={"a": "1"}).versions
