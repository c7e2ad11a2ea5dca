"""The plans of a product in the fields of a form, and back. The number of a plan, and of a step, is part of a field's name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xds_server.marketplace.errors import Invalid
from xds_server.marketplace.records import ProductPlan
from xds_server.portal.pages import money

CHARGES = ("nothing", "per_call", "graduated", "volume")
"""What calls cost: nothing, the same each, or by steps in one of their two modes."""
_FIELD = re.compile(
    r"plans\.(?P<plan>\d{1,3})\.(?:price\.)?(?P<key>\w+)(?:\.steps)?(?:\.(?P<step>\d{1,3}))?(?:\.(?P<part>\w+))?"
)
_PARTS = ("up_to", "amount", "per")
_SPARE_STEPS = 2
_FEWEST_STEPS = 3
_MOST_PLANS = 50
_MOST_STEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFields:
    """The texts of one step of prices."""

    up_to: str = ""
    amount: str = ""
    per: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFields:
    """The texts of one plan. A plan without a name is one that may be added."""

    plan: str = ""
    approval: str = "automatic"
    currency: str = ""
    monthly: str = ""
    included: str = ""
    charge: str = "nothing"
    steps: tuple[StepFields, ...]
    statuses: str = ""


def shown(plans: Sequence[ProductPlan]) -> list[PlanFields]:
    """Return the fields of these plans, and those of one more."""
    return [*(_fields(one) for one in plans), PlanFields(steps=(StepFields(),) * _FEWEST_STEPS)]


def _fields(one: ProductPlan) -> PlanFields:
    price = one.price
    if price is None:
        return PlanFields(plan=one.plan, approval=one.approval, steps=(StepFields(),) * _FEWEST_STEPS)
    currency = price["currency"]
    tiers, per_call = price["tiers"], price["per_call"]
    steps = [_step(step, currency) for step in (tiers["steps"] if tiers else [per_call] if per_call else [])]
    empty = max(_SPARE_STEPS, _FEWEST_STEPS - len(steps))
    return PlanFields(
        plan=one.plan,
        approval=one.approval,
        currency=currency,
        monthly=money.written(price["monthly"], currency),
        included=str(price["included"]),
        charge=tiers["mode"] if tiers else "per_call" if per_call else "nothing",
        steps=(*steps, *(StepFields() for _ in range(empty))),
        statuses=", ".join(price["statuses"]),
    )


def _step(step: Mapping[str, Any], currency: str) -> StepFields:
    up_to = step.get("up_to")
    return StepFields(
        up_to="" if up_to is None else str(up_to),
        amount=money.written(step["amount"], currency),
        per=str(step["per"]),
    )


def read(form: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the plans of a form, as the marketplace takes them. Raises Invalid."""
    plans = []
    for number in range(_MOST_PLANS):
        if name := form.get(f"plan-{number}", "").strip():
            price = _price(form, number)
            approval = form.get(f"approval-{number}", "automatic")
            plans.append({"plan": name, "approval": approval, "price": price})
        elif form.get(f"currency-{number}", "").strip():
            raise Invalid("choose the plan that has this price, or empty the currency", f"plan-{number}")
    return plans


def name_of(field: str, form: Mapping[str, str]) -> str:
    """Return the name that a field of a plan of the marketplace, such as ``plans.0.price.monthly``, has in a form."""
    found = _FIELD.fullmatch(field)
    numbers = [number for number in range(_MOST_PLANS) if form.get(f"plan-{number}", "").strip()]
    if found is None or int(found["plan"]) >= len(numbers):
        return field
    number, key = numbers[int(found["plan"])], found["key"]
    if key not in ("per_call", "tiers"):
        return f"{key}-{number}"
    return f"{found['part']}-{number}-{found['step'] or 0}" if found["part"] in _PARTS else f"charge-{number}"


def _price(form: Mapping[str, str], number: int) -> dict[str, Any] | None:
    currency = form.get(f"currency-{number}", "").strip().upper()
    charge = form.get(f"charge-{number}", "nothing")
    if charge not in CHARGES:
        raise Invalid(f"write one of {', '.join(CHARGES)}", f"charge-{number}")
    steps = list(_steps(form, number, currency))
    monthly = form.get(f"monthly-{number}", "").strip()
    if not currency:
        if charge != "nothing" or steps or monthly:
            raise Invalid("write a currency such as EUR, or no amounts", f"currency-{number}")
        return None
    price: dict[str, Any] = {
        "currency": currency,
        "monthly": _amount(monthly or "0", currency, f"monthly-{number}"),
    }
    if included := form.get(f"included-{number}", "").strip():
        price["included"] = _count(included, f"included-{number}")
    if statuses := form.get(f"statuses-{number}", "").replace(",", " ").split():
        price["statuses"] = statuses
    price |= _charged(charge, steps, number)
    return price


def _charged(charge: str, steps: list[dict[str, Any]], number: int) -> dict[str, Any]:
    field = f"charge-{number}"
    if charge == "nothing":
        if steps:
            raise Invalid("choose what calls cost, or empty the amounts of calls", field)
        return {}
    if not steps:
        raise Invalid("write an amount for calls, or choose that they cost nothing", f"amount-{number}-0")
    if charge != "per_call":
        return {"tiers": {"mode": charge, "steps": steps}}
    if len(steps) > 1 or "up_to" in steps[0]:
        raise Invalid("write one amount without an end, or choose prices by steps", field)
    return {"per_call": steps[0]}


def _steps(form: Mapping[str, str], number: int, currency: str) -> Iterator[dict[str, Any]]:
    for at in range(_MOST_STEPS):
        up_to, amount, per = (
            form.get(f"{name}-{number}-{at}", "").strip() for name in ("up_to", "amount", "per")
        )
        if not amount:
            if up_to or per:
                raise Invalid(
                    "write the amount of this step, or empty its other fields", f"amount-{number}-{at}"
                )
            continue
        step: dict[str, Any] = {"amount": _amount(amount, currency, f"amount-{number}-{at}")}
        if up_to:
            step["up_to"] = _count(up_to, f"up_to-{number}-{at}")
        if per:
            step["per"] = _count(per, f"per-{number}-{at}")
        yield step


def _amount(text: str, currency: str, field: str) -> int:
    try:
        return money.parsed(text, currency)
    except ValueError as error:
        raise Invalid(str(error), field) from None


def _count(text: str, field: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 18):
        raise Invalid("write a whole number", field)
    return int(text)
