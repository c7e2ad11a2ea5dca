"""The second level of the cache: its memory, those who wait, and purges."""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry

from filters.cache.service import CacheService, Store, _Entry
from protos import cache_pb2 as pb

FETCH, FOUND, WAIT = pb.LookupResponse.FETCH, pb.LookupResponse.FOUND, pb.LookupResponse.WAIT


def entry(url: str = "a/", text: bytes = b"x", tags: tuple[str, ...] = ()) -> Any:
    return _Entry(text, url, frozenset(tags), expires=10)


def test_keys_and_selecting_headers_count_as_memory() -> None:
    store = Store(lambda: 0, limit=100_000)
    for number in range(1_000):
        store.put(b"k" * 1_000 + b"%d" % number, {"accept": "v" * 1_000}, ["accept"], entry(f"a/{number}"))
    assert store.bytes <= 100_000
    assert len(store._entries) < 100_000 / 2_000
    assert len(store._of_url) == len(store._entries)
    assert len(store._names) <= 100


async def test_if_the_one_that_fetches_is_gone_one_of_those_who_wait_fetches() -> None:
    service = CacheService(CollectorRegistry(), clock=lambda: 0)
    asked = pb.Selection(key=b"k")
    assert service.lookup(asked).state == FETCH
    assert service.lookup(asked).state == WAIT
    first, second = (asyncio.create_task(service.wait(asked)) for _ in range(2))
    await asyncio.sleep(0)
    service._fetching[b"k"].set_result(True)
    del service._fetching[b"k"]
    done, waiting = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    assert [one.result().state for one in done] == [FETCH]
    assert len(waiting) == 1
    service.keep(pb.StoreRequest(selection=asked, entry=b"x", expires=10, epoch=service.purges.epoch))
    assert (await waiting.pop()).state == FOUND


async def test_nobody_waits_for_what_is_not_stored() -> None:
    service = CacheService(CollectorRegistry(), clock=lambda: 0)
    asked = pb.Selection(key=b"k")
    service.lookup(asked)
    waiting = [asyncio.create_task(service.wait(asked)) for _ in range(3)]
    await asyncio.sleep(0)
    service.keep(pb.StoreRequest(selection=asked))
    assert [(await one).state for one in waiting] == [FETCH] * 3
    assert [service.lookup(asked).state for _ in range(3)] == [FETCH] * 3


async def test_what_was_purged_on_its_way_is_not_stored() -> None:
    service = CacheService(CollectorRegistry(), clock=lambda: 0)
    asked = pb.Selection(key=b"k")
    message = pb.StoreRequest(
        selection=asked,
        entry=b"x",
        url="a/1",
        tags=["red"],
        expires=10,
        epoch=service.purges.epoch,
        version=0,
    )
    service.purge(pb.Purge(kind=pb.Purge.TAG, value="blue"))
    service.keep(message)
    assert service.lookup(asked).state == FOUND
    service.purge(pb.Purge(kind=pb.Purge.TAG, value="red"))
    assert service.lookup(asked).state == FETCH
    service.keep(message)
    assert service.lookup(asked).state != FOUND
