"""Prices of plans as the store has them: what is valid, and the same price as in the gateway's YAML. It does no IO."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from xds_server.gateway.model.products import MOST_CALLS, MOST_MONEY, Price, Tiers, TierStep, UnitPrice
from xds_server.marketplace.errors import Invalid

_KEYS = frozenset({"currency", "monthly", "included", "per_call", "tiers", "statuses"})


def checked(price: Any, field: str = "price") -> dict[str, Any] | None:
    """Return a valid price with all its parts, or None for none. Raises Invalid."""
    if price is None:
        return None
    if not isinstance(price, Mapping) or price.keys() - _KEYS:
        raise Invalid(f"write an object with {', '.join(sorted(_KEYS))}", field)
    currency = price.get("currency")
    if not isinstance(currency, str) or not re.fullmatch(r"[A-Z]{3}", currency):
        raise Invalid("write a code of ISO 4217 such as EUR", f"{field}.currency")
    per_call, tiers = price.get("per_call"), price.get("tiers")
    if per_call is not None and tiers is not None:
        raise Invalid("write per_call or tiers, and not both", f"{field}.tiers")
    found = {
        "currency": currency,
        "monthly": _integer(price.get("monthly", 0), f"{field}.monthly", 0, MOST_MONEY),
        "included": _integer(price.get("included", 0), f"{field}.included", 0, MOST_CALLS),
        "per_call": None if per_call is None else _unit(per_call, f"{field}.per_call", {"amount", "per"}),
        "tiers": None if tiers is None else _tiers(tiers, f"{field}.tiers"),
        "statuses": _statuses(price.get("statuses", ()), f"{field}.statuses"),
    }
    for mistake in as_price(found).check():
        raise Invalid(f"{mistake.message}; {mistake.remedy}", f"{field}.{mistake.path[0]}")
    return found


def as_price(values: Mapping[str, Any]) -> Price:
    """Return a price of the store, which `checked` has made, as the one that the gateway's YAML would have."""
    per_call, tiers = values["per_call"], values["tiers"]
    return Price(
        currency=values["currency"],
        monthly=values["monthly"],
        included=values["included"],
        per_call=UnitPrice(**per_call) if per_call is not None else None,
        tiers=Tiers(mode=tiers["mode"], steps=tuple(TierStep(**one) for one in tiers["steps"]))
        if tiers is not None
        else None,
        statuses=tuple(values["statuses"]),
    )


def written(of: Price) -> dict[str, Any]:
    """Return a price of the gateway's YAML as the store has it."""
    return {
        "currency": of.currency,
        "monthly": of.monthly,
        "included": of.included,
        "per_call": {"amount": of.per_call.amount, "per": of.per_call.per} if of.per_call else None,
        "tiers": {
            "mode": of.tiers.mode,
            "steps": [{"amount": one.amount, "per": one.per, "up_to": one.up_to} for one in of.tiers.steps],
        }
        if of.tiers
        else None,
        "statuses": sorted(of.statuses),
    }


def _statuses(value: Any, field: str) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise Invalid("write a list of statuses such as 404 or 2xx", field)
    for one in value:
        if not isinstance(one, str) or not re.fullmatch(r"[1-5](xx|\d\d)", one):
            raise Invalid("write statuses as texts such as '404' or '2xx'", field)
    return sorted(set(value))


def _integer(value: Any, field: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Invalid(f"write an integer from {least} to {most}", field)
    return value


def _unit(value: Any, field: str, keys: set[str]) -> dict[str, int]:
    if not isinstance(value, Mapping) or "amount" not in value or value.keys() - keys:
        raise Invalid(f"write an object with {', '.join(sorted(keys))}", field)
    return {
        "amount": _integer(value["amount"], f"{field}.amount", 0, MOST_MONEY),
        "per": _integer(value.get("per", 1), f"{field}.per", 1, 10**9),
    }


def _tiers(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or value.keys() - {"mode", "steps"}:
        raise Invalid("write an object with mode and steps", field)
    mode, steps = value.get("mode", "graduated"), value.get("steps")
    if mode not in ("graduated", "volume"):
        raise Invalid("write graduated or volume", f"{field}.mode")
    if not isinstance(steps, Sequence) or isinstance(steps, str) or not 1 <= len(steps) <= 100:
        raise Invalid("write a list of 1 to 100 steps", f"{field}.steps")
    found, before = [], 0
    for number, step in enumerate(steps):
        at = f"{field}.steps.{number}"
        unit: dict[str, int | None] = dict(_unit(step, at, {"amount", "per", "up_to"}))
        last = number == len(steps) - 1
        if last != (step.get("up_to") is None):
            raise Invalid("write up_to in every step but the last", f"{at}.up_to")
        unit["up_to"] = None if last else _integer(step["up_to"], f"{at}.up_to", before + 1, MOST_CALLS)
        before = unit["up_to"] or before
        found.append(unit)
    return {"mode": mode, "steps": found}
