"""What calls cost, by examples and against a slow model that adds up call by call."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds_server.billing import months
from xds_server.billing.amounts import cost, half_up, of_calls
from xds_server.gateway.model.products import Price, Tiers, TierStep, UnitPrice
from xds_server.marketplace.errors import Invalid


def graduated(mode: str = "graduated") -> Price:
    steps = (TierStep(amount=50, per=1000, up_to=100_000), TierStep(amount=30, per=1000))
    return Price(currency="EUR", tiers=Tiers(mode=mode, steps=steps))  # type: ignore[arg-type] # one of two


@pytest.mark.parametrize(
    ("price", "calls", "amount"),
    [
        (Price(currency="EUR", per_call=UnitPrice(amount=50, per=1000)), 0, 0),
        (Price(currency="EUR", per_call=UnitPrice(amount=50, per=1000)), 9, 0),
        (Price(currency="EUR", per_call=UnitPrice(amount=50, per=1000)), 10, 1),  # half a cent goes up
        (Price(currency="EUR", per_call=UnitPrice(amount=50, per=1000)), 1_000_000, 50_000),
        (Price(currency="EUR", included=1000, per_call=UnitPrice(amount=2)), 1000, 0),
        (Price(currency="EUR", included=1000, per_call=UnitPrice(amount=2)), 1003, 6),
        (graduated(), 100_000, 5000),
        (graduated(), 200_000, 5000 + 3000),
        (graduated("volume"), 100_000, 5000),
        (graduated("volume"), 200_000, 6000),
        (Price(currency="EUR", monthly=2900), 5, 0),
    ],
)
def test_calls_cost_what_the_price_says(price: Price, calls: int, amount: int) -> None:
    assert cost(price, calls) == amount


units = st.builds(UnitPrice, amount=st.integers(0, 10_000), per=st.integers(1, 2000))


@st.composite
def prices(draw: st.DrawFn) -> Price:
    included = draw(st.integers(0, 50))
    if draw(st.booleans()):
        return Price(currency="EUR", included=included, per_call=draw(units))
    ends = sorted(draw(st.sets(st.integers(1, 100), max_size=3)))
    steps = [draw(units) for _ in range(len(ends) + 1)]
    made = tuple(
        TierStep(amount=one.amount, per=one.per, up_to=end)
        for one, end in zip(steps, [*ends, None], strict=True)
    )
    return Price(currency="EUR", included=included, tiers=Tiers(mode=draw(st.sampled_from(("graduated", "volume"))), steps=made))  # fmt: skip


def exact(price: Price, calls: int) -> Fraction:
    """The sum, call by call."""
    charged = max(0, calls - price.included)
    if price.per_call is not None:
        return Fraction(price.per_call.amount, price.per_call.per) * charged
    assert price.tiers is not None

    def step(number: int) -> Fraction:
        assert price.tiers is not None
        one = next(one for one in price.tiers.steps if one.up_to is None or number <= one.up_to)
        return Fraction(one.amount, one.per)

    if price.tiers.mode == "volume":
        return step(charged) * charged if charged else Fraction(0)
    return sum((step(number) for number in range(1, charged + 1)), Fraction(0))


@given(prices(), st.integers(0, 300))
def test_lines_add_up_to_the_exact_sum_rounded_once(price: Price, calls: int) -> None:
    lines = of_calls(price, "gold", calls)
    assert sum(one.amount for one in lines) == half_up(exact(price, calls))
    assert sum(one.calls for one in lines) == calls
    assert all(one.amount >= 0 for one in lines)


def test_months_follow_each_other() -> None:
    assert (months.after("2026-12"), months.before("2027-01")) == ("2027-01", "2026-12")
    assert months.end("2026-11") == months.begin("2026-12") == 1_796_083_200
    assert months.of(1_796_083_199) == "2026-11"
    for wrong in ("2026-13", "2026-1", "26-01", "2026-11-01", ""):
        with pytest.raises(Invalid):
            months.checked(wrong)
