"""What a form of plans shows is what it reads, and amounts that are none are told with the name of their field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds_server.gateway.model.products import MOST_CALLS, MOST_MONEY
from xds_server.marketplace import prices
from xds_server.marketplace.errors import Invalid
from xds_server.marketplace.records import ProductPlan
from xds_server.portal.pages import money, plan_forms

CURRENCIES = st.sampled_from(["EUR", "KRW", "KWD"])
AMOUNTS = st.integers(0, MOST_MONEY)
UNITS = st.fixed_dictionaries({"amount": AMOUNTS, "per": st.integers(1, 10**9)})


@st.composite
def tiers(draw: st.DrawFn) -> dict[str, Any]:
    """Prices by steps whose ends grow."""
    ends: list[int | None] = [*sorted(draw(st.sets(st.integers(1, MOST_CALLS), max_size=4))), None]
    steps = [{**draw(UNITS), "up_to": one} for one in ends]
    return {"mode": draw(st.sampled_from(["graduated", "volume"])), "steps": steps}


@st.composite
def plans(draw: st.DrawFn) -> list[ProductPlan]:
    """Plans with every kind of price."""
    found = []
    for name in draw(st.lists(st.sampled_from(["free", "gold", "pro"]), unique=True, min_size=1)):
        price: dict[str, Any] | None = draw(
            st.none() | st.fixed_dictionaries({"currency": CURRENCIES, "monthly": AMOUNTS})
        )
        if price is not None:
            price |= draw(st.just({}) | st.builds(lambda unit: {"per_call": unit}, UNITS) | st.builds(lambda one: {"tiers": one}, tiers()))  # fmt: skip
            if len(price) > 2:
                price["included"] = draw(st.integers(0, MOST_CALLS))
                price["statuses"] = draw(st.lists(st.sampled_from(["2xx", "404"]), unique=True))
        approval = draw(st.sampled_from(["automatic", "manual"]))
        found.append(ProductPlan(plan=name, approval=approval, price=prices.checked(price)))
    return found


def form_of(shown: list[plan_forms.PlanFields]) -> dict[str, str]:
    """The fields as a browser sends them."""
    form = {}
    for number, one in enumerate(shown):
        for name in ("plan", "approval", "currency", "monthly", "included", "charge", "statuses"):
            form[f"{name}-{number}"] = getattr(one, name)
        for at, step in enumerate(one.steps):
            for name in ("up_to", "amount", "per"):
                form[f"{name}-{number}-{at}"] = getattr(step, name)
    return form


@given(plans())
def test_a_form_that_is_not_changed_changes_nothing(written: list[ProductPlan]) -> None:
    read = plan_forms.read(form_of(plan_forms.shown(written)))
    assert [ProductPlan(**{**one, "price": prices.checked(one["price"])}) for one in read] == written


@given(AMOUNTS, CURRENCIES)
def test_an_amount_is_read_as_it_is_written(amount: int, currency: str) -> None:
    assert money.parsed(money.written(amount, currency), currency) == amount


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"currency-0": "EUR", "monthly-0": "9,99"}, "monthly-0"),
        ({"currency-0": "KRW", "monthly-0": "9.5"}, "monthly-0"),
        ({"currency-0": "EUR", "monthly-0": "-1"}, "monthly-0"),
        ({"monthly-0": "5"}, "currency-0"),
        ({"currency-0": "EUR", "amount-0-0": "1"}, "charge-0"),
        ({"currency-0": "EUR", "charge-0": "per_call"}, "amount-0-0"),
        ({"currency-0": "EUR", "charge-0": "per_call", "amount-0-0": "1", "up_to-0-0": "5"}, "charge-0"),
        ({"currency-0": "EUR", "charge-0": "volume", "up_to-0-0": "5"}, "amount-0-0"),
        ({"currency-0": "EUR", "charge-0": "volume", "amount-0-0": "1", "per-0-0": "many"}, "per-0-0"),
        ({"currency-0": "EUR", "charge-0": "all"}, "charge-0"),
        ({"plan-0": "", "currency-0": "EUR"}, "plan-0"),
    ],
)
def test_a_field_that_cannot_be_meant_is_named(fields: dict[str, str], field: str) -> None:
    with pytest.raises(Invalid) as raised:
        plan_forms.read({"plan-0": "gold", **fields})
    assert raised.value.field == field


def test_a_price_of_nothing_is_refused_as_in_the_gateway() -> None:
    with pytest.raises(Invalid, match="has no effect") as raised:
        prices.checked({"currency": "EUR", "included": 5})
    assert raised.value.field == "price.included"
