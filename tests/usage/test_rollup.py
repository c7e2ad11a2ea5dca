"""Counts by hour, each entry once, against a model that remembers everything."""

from __future__ import annotations

import uuid
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.support.usage import entry
from xds_server.usage.rollup import EARLY, HOUR, LATE, Batch, Seen, count, count_again

NOW = 500_000 * HOUR + 120


def batch(*entries: str, arrival: int = NOW, identity: bytes = b"b") -> Batch:
    return Batch(identity, arrival, entries)


def test_requests_bytes_and_milliseconds_are_summed_by_hour_and_names() -> None:
    one = entry(start=NOW, received=10, sent=20, lasted=5)
    two = entry(start=NOW + 60, received=1, sent=2, lasted="-")
    other = entry(start=NOW - HOUR, status=404, consumer="-", plan="-")
    counted = count([batch(one, two), batch(other)], Seen())
    assert counted.sums == {
        (500_000, "acme", "gold", "users", "200"): [2, 11, 22, 5, 0, 0, 1, *[0] * 11],
        (499_999, "-", "-", "users", "404"): [1, 1, 2, 3, 0, 0, 1, *[0] * 11],
    }
    assert (counted.taken, counted.repeated, counted.misdated) == (3, frozenset(), 0)


def test_an_entry_counts_once_also_in_another_batch() -> None:
    seen = Seen()
    first, second = entry(start=NOW), entry(start=NOW)
    assert count([batch(first)], seen).taken == 1
    again = count([batch(second, first), batch(second)], seen)
    assert (again.taken, again.repeated) == (1, {(0, 1), (1, 0)})


def test_late_and_shifted_entries_are_in_the_hour_of_their_own_time() -> None:
    for shift in (-LATE, -86_400, -1, 1, 7200, EARLY):
        counted = count([batch(entry(start=NOW + shift))], Seen())
        assert [key[0] for key in counted.sums] == [(NOW + shift) // HOUR]
        assert counted.misdated == 0


def test_entries_of_impossible_times_are_in_the_hour_of_their_arrival() -> None:
    for shift in (-LATE - 1, EARLY + 1, -NOW, 10**14):
        counted = count([batch(entry(start=NOW + shift))], Seen())
        assert [key[0] for key in counted.sums] == [500_000]
        assert counted.misdated == 1


def test_the_window_has_at_least_its_size() -> None:
    seen = Seen(100)
    names = [str(number) for number in range(1000)]
    for number, name in enumerate(names):
        assert seen.new(name)
        assert not any(seen.new(old) for old in names[max(0, number - 99) : number + 1])


IDENTITIES = [str(uuid.UUID(int=number)) for number in range(40)]
BATCHES = st.lists(st.lists(st.sampled_from(IDENTITIES), max_size=8), max_size=12)


@given(BATCHES, st.integers(1, 5))
def test_any_order_of_entries_and_resends_counts_as_the_model_does(
    batches: list[list[str]], parts: int
) -> None:
    """The consumer of an entry follows from its identity, so that it is the same in a resend."""
    made = [
        batch(*(entry(identity=one, start=NOW, consumer=f"c{int(one[-2:], 16) % 3}") for one in names))
        for names in batches
    ]
    seen, total = Seen(), Counter[str]()
    for begin in range(0, max(1, len(made)), parts):
        counted = count(made[begin : begin + parts], seen)
        for key, sums in counted.sums.items():
            total[key[1]] += sums[0]
        assert counted.taken + len(counted.repeated) == sum(
            len(one.entries) for one in made[begin : begin + parts]
        )
    model = Counter(f"c{int(one[-2:], 16) % 3}" for one in {one for names in batches for one in names})
    assert total == model


@given(BATCHES, st.sets(st.integers(0, 11)))
def test_counting_without_some_batches_is_counting_the_others(
    batches: list[list[str]], known: set[int]
) -> None:
    made = [
        batch(*(entry(identity=one, start=NOW) for one in names), identity=bytes([at]))
        for at, names in enumerate(batches)
    ]
    seen = Seen()
    seen.new(IDENTITIES[0])
    before = count(made, seen)
    again = count_again(made, before, {bytes([at]) for at in known})
    expected = sum(
        (at, number) not in before.repeated
        for at, one in enumerate(made)
        if at not in known
        for number in range(len(one.entries))
    )
    assert again.taken == sum(sums[0] for sums in again.sums.values()) == expected
