"""Prices of plans: what is valid. Amounts are integers in minor units of a currency, such as cents. It does no IO."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from xds_server.marketplace.errors import Invalid

COUNTED = ("2xx", "3xx", "4xx")
"""Statuses of responses that count if a price does not say which. 401, 403 and 429 never count, because the gateway
rejected these requests itself.
"""
LARGEST = 10**15
_STATUSES = frozenset({"1xx", "2xx", "3xx", "4xx", "5xx"})
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
    statuses = price.get("statuses", list(COUNTED))
    if (
        not isinstance(statuses, Sequence)
        or isinstance(statuses, str)
        or not statuses
        or set(statuses) - _STATUSES
    ):
        raise Invalid("write a list of 2xx, 3xx, 4xx and 5xx", f"{field}.statuses")
    return {
        "currency": currency,
        "monthly": _integer(price.get("monthly", 0), f"{field}.monthly"),
        "included": _integer(price.get("included", 0), f"{field}.included"),
        "per_call": None if per_call is None else _rate(per_call, f"{field}.per_call"),
        "tiers": None if tiers is None else _tiers(tiers, f"{field}.tiers"),
        "statuses": sorted(set(statuses)),
    }


def _integer(value: Any, field: str, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST:
        raise Invalid(f"write an integer from {least} to {LARGEST}", field)
    return value


def _rate(value: Any, field: str) -> dict[str, int]:
    if not isinstance(value, Mapping) or not {"amount"} <= value.keys() <= {"amount", "per", "up_to"}:
        raise Invalid("write an object with amount and per", field)
    return {
        "amount": _integer(value["amount"], f"{field}.amount"),
        "per": _integer(value.get("per", 1), f"{field}.per", 1),
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
        rate: dict[str, int | None] = dict(_rate(step, at))
        last = number == len(steps) - 1
        if last != (step.get("up_to") is None):
            raise Invalid("write up_to in every step but the last", f"{at}.up_to")
        rate["up_to"] = None if last else _integer(step["up_to"], f"{at}.up_to", before + 1)
        before = rate["up_to"] or before
        found.append(rate)
    return {"mode": mode, "steps": found}
