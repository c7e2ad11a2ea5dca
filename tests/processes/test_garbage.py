"""What lives long is not looked at again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from xds_server.processes.garbage import LONGEST, Pauses, settle


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def _after(seconds: float, generation: int) -> int:
    """How many objects are left alone after a collection that took so long."""
    times = iter((0.0, seconds))
    pauses = Pauses(lambda: next(times))
    gc.unfreeze()
    for phase in ("start", "stop"):
        pauses.collected(phase, {"generation": generation})
    return gc.get_freeze_count()


def test_what_a_long_collection_has_seen_is_left_alone() -> None:
    assert _after(LONGEST * 2, 2) > 0


@pytest.mark.parametrize(("seconds", "generation"), [(LONGEST / 2, 2), (LONGEST * 2, 1)])
def test_short_collections_and_those_of_new_objects_change_nothing(seconds: float, generation: int) -> None:
    assert _after(seconds, generation) == 0


def test_it_is_asked_by_the_collector_from_its_begin_to_its_end() -> None:
    calls = iter(range(0, 1000, 10))
    pauses = Pauses(lambda: float(next(calls)))
    pauses.watch()
    gc.unfreeze()
    gc.collect()
    assert gc.get_freeze_count() > 0
    pauses.end()
    gc.unfreeze()
    gc.collect()
    assert gc.get_freeze_count() == 0


def test_what_is_settled_is_left_alone() -> None:
    settle()
    assert gc.get_freeze_count() > 0
