"""The limits that apply to a route: those of all levels, of its policy sets and of the plans of its consumers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from filters.language.options import OFF
from filters.model.limits import ConcurrencyLimit, Limit
from filters.model.methods import methods
from filters.policy import Context, Levels
from filters.rate_limit.limit_rules import (
    DeclaredLimit,
    as_tuple,
    by_of,
    counts_graphql,
    limits_of_plan,
    shared,
)

Styles = tuple[Literal["x-ratelimit", "ietf"], ...]
KEYS = ("rate_limit", "quota", "concurrency")


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveLimits:
    """All limits of a route: the names of the rules, and the limits themselves. `plans` is true if plans count too."""

    rules: tuple[str, ...]
    written: tuple[DeclaredLimit, ...]
    plans: bool

    @property
    def everything(self) -> bool:
        """True if a limit needs the end of each request: to count bytes, statuses or costs, or to give back slots."""
        return self.graphql or any(not isinstance(limit, Limit) or limit.count for limit in self.written)

    @property
    def graphql(self) -> bool:
        """True if a limit counts the cost of operations of GraphQL."""
        return counts_graphql(self.written)

    @property
    def slots(self) -> bool:
        """True if a limit counts requests at the same time."""
        return any(isinstance(limit, ConcurrencyLimit) for limit in self.written)

    @property
    def strict(self) -> bool:
        """True if a request is rejected if it cannot be counted."""
        return any(isinstance(limit, Limit) and limit.on_error == "deny" for limit in self.written)

    @property
    def inputs(self) -> list[str]:
        """Headers and claims that are part of a request's key, or set its cost."""
        names = {by for one in self.written for by in by_of(one)}
        names |= {
            limit.cost for limit in self.written if isinstance(limit, Limit) and isinstance(limit.cost, str)
        }
        return sorted(names)


def places(key: str, settings: Any) -> Iterator[tuple[str, Any]]:
    """The rules of a policy's settings: the name, and the limits that are written there."""
    for place, written in settings.places if isinstance(settings, Levels) else ():
        if any(shared(limit) for limit in as_tuple(written)):
            yield f"{key}:{place}", written


def effective_limits(context: Context) -> EffectiveLimits:
    """The limits that the policy server counts for the route of `context`."""
    rules = [pair for key in KEYS for pair in places(key, context.effective.get(key))]
    written = [one for _, found in rules for one in as_tuple(found) if shared(one)]
    exempt = context.effective.get("plan_limits") is OFF
    plans = [] if exempt or not methods(context.effective) else [*map(limits_of_plan, context.plans.values())]
    of_plans = [one for found in plans for one in found if shared(one)]
    return EffectiveLimits(
        rules=tuple(name for name, _ in rules), written=(*written, *of_plans), plans=bool(of_plans)
    )


def local_places(context: Context) -> tuple[tuple[str, Limit], ...]:
    """The limits on the route of `context` that each proxy counts for itself, with the place of each."""
    settings = context.effective.get("rate_limit")
    levels = settings.places if isinstance(settings, Levels) else ()
    found = ((place, one) for place, written in levels for one in as_tuple(written))
    return tuple((place, one) for place, one in found if isinstance(one, Limit) and one.scope == "local")
