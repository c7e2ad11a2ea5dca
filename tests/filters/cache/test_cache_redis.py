"""Values of responses in Redis, and the index of purges, without Redis. tests/e2e/test_cache_redis.py has the rest."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from filters.cache.redis import START, Position, PurgeIndex, RedisResponses, decoded, encoded
from filters.rate_limit.stores.redis_client import connect
from protos import cache_pb2 as pb

URL = "a.test/x"


def response(**changes: Any) -> pb.Response:
    values: dict[str, Any] = {
        "status": 200,
        "born": 5,
        "fresh": 10,
        "url": URL,
        "body": b"b",
        "tags": ["red"],
    }
    headers = [pb.ResponseHeader(name="content-type", value=b"text/plain")]
    return pb.Response(**{**values, "headers": headers, **changes})


def stored(**changes: Any) -> pb.Stored:
    values: dict[str, Any] = {"key": b"r\0v\0" + URL.encode(), "url": URL, "tags": ["red"], "expires": 15}
    entry = response().SerializeToString()
    return pb.Stored(**{**values, "entry": entry, "generation": "1-0", **changes})


def test_a_value_is_read_as_it_was_written() -> None:
    assert decoded(encoded(stored())) == stored()


@given(st.binary(max_size=100), st.integers(0, 200))
def test_a_value_that_is_cut_or_changed_is_none(junk: bytes, at: int) -> None:
    whole = encoded(stored())
    assert decoded(whole[: min(at, len(whole) - 1)]) is None
    assert decoded(whole + junk) == (stored() if not junk else None)
    assert decoded(whole[:at] + junk + whole[at + len(junk) :]) in (None, stored())
    assert decoded(junk) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "a.test/other"},
        {"key": b"r\0v\0a.test/other"},
        {"tags": []},
        {"expires": 16},
        {"generation": "soon"},
        {"entry": b"\xff"},
        {"entry": response(status=99).SerializeToString()},
        {"entry": response(url="a.test/other").SerializeToString()},
        *(
            {"entry": response(headers=[pb.ResponseHeader(name=name, value=value)]).SerializeToString()}
            for name, value in (
                (":status", b"500"),
                ("a b", b""),
                ("", b""),
                ("Upper", b""),
                ("a", b"b\r\nc: d"),
            )
        ),
    ],
)
def test_a_value_that_is_no_response_of_ours_is_none(changes: dict[str, Any]) -> None:
    assert decoded(encoded(stored(**changes))) is None


def purge(kind: int, value: str = "") -> pb.Purge:
    return pb.Purge(kind=kind, value=value)  # type: ignore[arg-type]


URLS, TAGS = ("a.test/", "a.test/x", "a.test/x/y", "b.test/"), ("red", "blue")
PURGES = st.one_of(
    st.just(purge(pb.Purge.ALL)),
    st.sampled_from(URLS).map(lambda url: purge(pb.Purge.URL, url)),
    st.sampled_from(URLS).map(lambda url: purge(pb.Purge.PREFIX, url)),
    st.sampled_from(TAGS).map(lambda tag: purge(pb.Purge.TAG, tag)),
)


def matches(one: pb.Purge, url: str, tags: tuple[str, ...]) -> bool:
    return (
        one.kind == pb.Purge.ALL
        or (one.kind == pb.Purge.URL and url == one.value)
        or (one.kind == pb.Purge.PREFIX and url.startswith(one.value))
        or (one.kind == pb.Purge.TAG and one.value in tags)
    )


@given(
    st.lists(PURGES),
    st.integers(0, 10),
    st.sampled_from(URLS),
    st.sets(st.sampled_from(TAGS)),
    st.integers(1, 50),
)
def test_the_index_knows_what_the_log_says(
    purges: list[pb.Purge], generation: int, url: str, tags: set[str], limit: int
) -> None:
    index = PurgeIndex(limit)
    for number, one in enumerate(purges, 1):
        index.add((number, 0), one)
    at: Position = (generation, 0)
    expected = any(matches(one, url, tuple(tags)) for one in purges[generation:])
    found = index.purged(at, url, tags)
    assert found or not expected  # a purge is never missed
    if index.floor == START or at >= index.floor:
        assert found == expected
    assert len(index._last) <= limit


async def test_it_ends_whenever_it_is_closed(tmp_path: Path) -> None:
    """Closed at several moments after a purge has woken the task that follows the log."""
    for turns in range(40):
        client = connect(f"unix://{tmp_path}/nobody")
        responses = RedisResponses(client, CollectorRegistry(), lambda _: 0, lambda: 0)
        await asyncio.sleep(0.01)  # until it waits, because nobody answers at the socket
        responses.purge(purge(pb.Purge.ALL))
        for _ in range(turns % 4):
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await responses.close()


async def test_it_ends_although_the_client_loses_a_cancellation(tmp_path: Path) -> None:
    client = connect(f"unix://{tmp_path}/nobody")
    lost = asyncio.Event()

    async def loses(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if lost.is_set():
                raise
            lost.set()
            await asyncio.Event().wait()

    client.get = loses
    responses = RedisResponses(client, CollectorRegistry(), lambda _: 0, lambda: 0)
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await responses.close()
    assert lost.is_set()
