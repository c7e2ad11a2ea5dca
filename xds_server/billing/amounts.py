"""What calls cost. All amounts are integers in minor units; fractions are kept exactly and rounded once. It does no IO."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from xds_server.gateway.model.products import Price, UnitPrice

Kind = Literal["monthly", "included", "calls", "correction"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a statement. `calls` are counted ones; `amount` is in minor units, and negative for a credit.

    `step` is the number of a step of prices, from 0. `period` is that of a correction, such as ``2026-11``.
    """

    kind: Kind
    plan: str
    calls: int = 0
    amount: int = 0
    step: int | None = None
    period: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for the store and for JSON."""
        return {
            "kind": self.kind,
            "plan": self.plan,
            "calls": self.calls,
            "amount": self.amount,
            "step": self.step,
            "period": self.period,
        }


def of_calls(price: Price, plan: str, calls: int) -> list[Line]:
    """Return the lines of a month's calls on a plan: those that are included, and those that cost something.

    The sum of all calls that cost something is rounded once, half up; a step has the share that remains after the steps
    before it, so the lines add up to the rounded sum.
    """
    included = min(calls, price.included)
    found = [Line(kind="included", plan=plan, calls=included)] if included else []
    charged = calls - included
    if not charged:
        return found
    parts = list(_parts(price, charged))
    exact, before = Fraction(0), 0
    for step, number, unit in parts:
        exact += Fraction(number * unit.amount, unit.per)
        rounded = half_up(exact)
        found.append(Line(kind="calls", plan=plan, calls=number, amount=rounded - before, step=step))
        before = rounded
    return found


def _parts(price: Price, charged: int) -> list[tuple[int | None, int, UnitPrice]]:
    """Return the calls of each price: the number of its step, the calls and the price."""
    if price.per_call is not None:
        return [(None, charged, price.per_call)]
    if price.tiers is None:
        return [(None, charged, UnitPrice(amount=0))]
    steps = price.tiers.steps
    if price.tiers.mode == "volume":
        number = next(at for at, one in enumerate(steps) if one.up_to is None or charged <= one.up_to)
        return [(number, charged, steps[number])]
    found: list[tuple[int | None, int, UnitPrice]] = []
    before = 0
    for at, one in enumerate(steps):
        end = charged if one.up_to is None else min(charged, one.up_to)
        if end > before:
            found.append((at, end - before, one))
            before = end
    return found


def half_up(value: Fraction) -> int:
    """Return a number of minor units without fractions: halves go away from zero."""
    whole = (abs(value) * 2 + 1) // 2
    return int(whole) if value >= 0 else -int(whole)


def cost(price: Price, calls: int) -> int:
    """Return what a month's calls cost, without the monthly amount."""
    return sum(one.amount for one in of_calls(price, "", calls))
