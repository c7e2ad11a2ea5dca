"""The data of server-sent events."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.graphql.event_stream import EventStream, TooLarge

STREAM = (
    b": comment\r\nevent: a\ndata: 1\n\ndata:2\r\ndata:  3\r\n\r\nid: 4\n\ndata\r\rdata: 5\n\ndata: cut off"
)


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    parts = [STREAM[begin:end] for begin, end in itertools.pairwise(places)]
    stream = EventStream(100)
    assert [one for part in parts for one in stream.feed(part)] == [b"1", b"2\n 3", b"", b"5"]


@pytest.mark.parametrize("content", [b"data: " + b"x" * 200, b"data: 0123456789\n" * 20])
def test_an_event_has_a_bound(content: bytes) -> None:
    with pytest.raises(TooLarge):
        list(EventStream(100).feed(content))
