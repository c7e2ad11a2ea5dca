"""The spool keeps each acknowledged batch, whatever happens to the file after it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds_server.errors import EnvironmentFailed
from xds_server.usage import spool_format
from xds_server.usage.spool import Position, Spool, SpoolFull

BEGIN = Position(0, 0)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


def found(spool: Spool, begin: Position = BEGIN, most: int = 1 << 20) -> tuple[list[bytes], Position]:
    """Read from a position to the end."""
    payloads: list[bytes] = []
    while True:
        part = spool.read(begin, most)
        payloads += [one.record.payload for one in part.records]
        if part.end == begin:
            return payloads, begin
        begin = part.end


async def test_what_is_acknowledged_is_read_again_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.start()
    await asyncio.gather(*(spool.append(b"%d" % number, 7) for number in range(50)))
    assert found(spool)[0] == [b"%d" % number for number in range(50)]
    name = spool.name
    spool.stop()
    again = Spool(tmp_path)
    again.start()
    await again.append(b"more", 8)
    assert again.name == name
    assert found(again)[0] == [*(b"%d" % number for number in range(50)), b"more"]
    again.stop()


async def test_one_write_to_the_disk_serves_the_batches_that_wait(tmp_path: Path) -> None:
    writes: list[int] = []
    spool = Spool(tmp_path, sync=writes.append)
    spool.start()
    await spool.append(b"first", 1)
    await asyncio.gather(*(spool.append(b"x" * 1000, 1) for _ in range(1000)))
    spool.stop()
    assert len(writes) < 500


async def test_a_batch_is_not_acknowledged_if_the_disk_fails(tmp_path: Path) -> None:
    failing = True

    def sync(file: int) -> None:
        if failing:
            raise OSError(5, "Input/output error")
        os.fdatasync(file)

    spool = Spool(tmp_path, sync=sync)
    spool.start()
    with pytest.raises(OSError, match="Input/output"):
        await spool.append(b"lost or not", 1)
    failing = False
    await spool.append(b"kept", 1)
    assert found(spool)[0][-1] == b"kept"
    spool.stop()


async def test_segments_begin_by_size_and_go_when_they_are_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment=1000)
    spool.start()
    for number in range(20):
        await spool.append(b"%d" % number * 300, 1)
    assert len(files(tmp_path)) > 4
    payloads, end = found(spool, most=10)
    assert len(payloads) == 20
    assert spool.size > 6000
    spool.rolled(end, keep=end.segment)
    assert spool.size == 0
    assert len(files(tmp_path)) == 1
    spool.stop()


async def test_a_full_spool_takes_nothing_until_there_is_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=1000)
    spool.start()
    await spool.append(b"x" * 900, 1)
    with pytest.raises(SpoolFull):
        spool.append(b"y" * 100, 1)
    spool.rolled(found(spool)[1], keep=99)
    await spool.append(b"y" * 100, 1)
    spool.stop()


def test_two_servers_cannot_have_the_same_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(EnvironmentFailed, match="used by another usage server"):
        Spool(tmp_path)
    spool.stop()
    Spool(tmp_path).stop()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailed, match="cannot be used"):
        Spool(tmp_path / "file" / "spool")


async def test_a_damaged_segment_loses_only_its_own_records(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.start()
    for number in range(3):
        await spool.append(b"%d" % number * 100, 1)
    spool.stop()
    (file,) = files(tmp_path)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    again = Spool(tmp_path)
    part = again.read(Position(0, 0), 1 << 20)
    part = again.read(part.end, 1 << 20)
    assert [one.record.payload[:1] for one in part.records] == [b"0", b"2"]
    assert part.corrupt == spool_format.HEADER + 100
    again.stop()


PAYLOADS = st.lists(st.one_of(st.binary(max_size=80), st.just(spool_format.MAGIC * 3)), max_size=6)


def _payloads(data: bytes) -> list[bytes]:
    return [one.record.payload for one in spool_format.scan(data)]


@given(PAYLOADS, st.integers(0, 2**40))
def test_records_are_read_as_they_were_written(payloads: list[bytes], arrival: int) -> None:
    data = b"".join(spool_format.encode(payload, arrival) for payload in payloads)
    records = list(spool_format.scan(data))
    assert [one.record.payload for one in records] == payloads
    assert all(one.record.arrival == arrival and not one.skipped for one in records)
    assert not records or records[-1].end == len(data)


@given(PAYLOADS, st.data())
def test_a_torn_write_leaves_the_records_before_it(payloads: list[bytes], draw: st.DataObject) -> None:
    records = [spool_format.encode(payload, 1) for payload in payloads]
    data = b"".join(records)
    torn = data[: draw.draw(st.integers(0, len(data)))]
    whole, size = 0, 0
    for record in records:
        size += len(record)
        whole += size <= len(torn)
    assert _payloads(torn) == payloads[:whole]


@given(PAYLOADS.filter(bool), st.data())
def test_a_flipped_bit_takes_exactly_one_record(payloads: list[bytes], draw: st.DataObject) -> None:
    records = [spool_format.encode(payload, 1) for payload in payloads]
    data = bytearray(b"".join(records))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= 1 << draw.draw(st.integers(0, 7))
    hit, size = 0, len(records[0])
    while at >= size:
        hit += 1
        size += len(records[hit])
    assert _payloads(bytes(data)) == payloads[:hit] + payloads[hit + 1 :]
