"""products: what developers subscribe to: APIs with plans and prices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from filters.language import Mistake, option
from xds_server.gateway.model.catalog import PUBLIC, MarkdownText, Visibility

MOST_MONEY = 10**12
"""The largest amount in minor units."""
MOST_CALLS = 10**15
_UNCHARGED = (401, 403, 429)
"""Statuses of 4xx that do not count by default, because the gateway rejects calls with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPrice:
    """A price of calls: `amount` for each `per` calls."""

    amount: int = option("Minor units of the currency, such as cents.", minimum=0, maximum=MOST_MONEY)
    per: int = option(
        "The number of calls for the amount. Fewer calls cost their share of it; the sum of a month is rounded once, "
        "half up.",
        default=1,
        minimum=1,
        maximum=10**9,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TierStep(UnitPrice):
    """One step of prices that depend on the number of calls in a month."""

    up_to: int | None = option(
        "The last call of the step, counted from the first call of the month that costs something. The last step has "
        "no end.",
        default=None,
        minimum=1,
        maximum=MOST_CALLS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiers:
    """Prices that depend on the number of calls in a month."""

    mode: Literal["graduated", "volume"] = option(
        "`graduated`: each call costs the price of the step that it is in. `volume`: all calls cost the price of the "
        "step that the last call is in.",
        default="graduated",
    )
    steps: tuple[TierStep, ...] = option("The steps in order.", minimum_items=1)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each step that does not end after the one before."""
        before = 0
        for number, step in enumerate(self.steps):
            last = number == len(self.steps) - 1
            if last and step.up_to is not None:
                message, remedy = "the last step has an end, so further calls have no price", "remove 'up_to'"
                yield Mistake(message, remedy, path=("steps", number, "up_to"), value=step.up_to)
            elif not last and step.up_to is None:
                message, remedy = "only the last step has no end", "write up_to: NUMBER"
                yield Mistake(message, remedy, path=("steps", number))
            elif step.up_to is not None and step.up_to <= before:
                message = f"the step ends before it begins, at {before + 1}"
                yield Mistake(
                    message, "write a larger number", path=("steps", number, "up_to"), value=step.up_to
                )
            before = step.up_to or before


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of a plan: an amount for each month, and one for calls that it does not include."""

    currency: str = option(
        "The currency, by its code of ISO 4217.", pattern=r"[A-Z]{3}", shape="a code such as EUR"
    )
    monthly: int = option("Minor units for each month.", default=0, minimum=0, maximum=MOST_MONEY)
    included: int = option(
        "The first calls of a month, which the monthly amount includes.",
        default=0,
        minimum=0,
        maximum=MOST_CALLS,
    )
    per_call: UnitPrice | None = option("The price of further calls.", default=None)
    tiers: Tiers | None = option("Prices of further calls by their number.", default=None)
    statuses: tuple[str, ...] = option(
        "The statuses of responses that count as calls, such as `404` or `2xx`. Default: 2xx and 3xx, and 4xx without "
        "401, 403 and 429. So a caller pays for neither failures of the service nor rejections by limits and missing "
        "permissions.",
        default=(),
        pattern=r"[1-5](xx|\d\d)",
        shape="a status such as 404, or a class such as 2xx",
        narrows=True,
    )

    def counts(self, status: int) -> bool:
        """True if a response with this status counts as a call."""
        if not self.statuses:
            return 200 <= status <= 499 and status not in _UNCHARGED
        return str(status) in self.statuses or f"{status // 100}xx" in self.statuses

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes between the keys."""
        if self.per_call is not None and self.tiers is not None:
            yield Mistake("'per_call' and 'tiers' exclude each other", "keep one", path=("tiers",))
        if self.per_call is None and self.tiers is None:
            for key in ("included", "statuses"):
                if getattr(self, key):
                    message = f"'{key}' has no effect, because calls have no price"
                    yield Mistake(message, "add 'per_call' or 'tiers', or remove it", path=(key,))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductPlan:
    """A plan as a product offers it."""

    approval: Literal["automatic", "manual"] = option(
        "`manual`: a subscription waits until a publisher approves it.", default="automatic"
    )
    price: Price | None = option("The price. Default: free of charge.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """APIs with plans, to which developers subscribe. More of them are made in the portal."""

    apis: tuple[str, ...] = option("The APIs that subscribers may call.", refers="catalog", minimum_items=1)
    plans: Mapping[str, ProductPlan] = option("The plans by name.", refers="plans")
    title: str | None = option("The title. Default: the name.", default=None)
    summary: str | None = option("One line about it.", default=None)
    description: MarkdownText | None = option("More about it, in Markdown.", default=None)
    visibility: Visibility = option("Who sees it.", default=PUBLIC)
    terms: MarkdownText | None = option(
        "Terms in Markdown that a developer accepts with a subscription.", default=None
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for a product without plans, and for an API that is named twice."""
        if not self.plans:
            yield Mistake("nobody can subscribe without a plan", "write plans: {free: {}}", path=("plans",))
        currencies = {one.price.currency for one in self.plans.values() if one.price is not None}
        if len(currencies) > 1:
            message = (
                f"the plans have prices in {' and '.join(sorted(currencies))}, and a bill has one currency"
            )
            yield Mistake(message, "write a product for each currency", path=("plans",))
        for number, name in enumerate(self.apis):
            if name in self.apis[:number]:
                yield Mistake("the API is named twice", "remove one", path=("apis", number), value=name)
