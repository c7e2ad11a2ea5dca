"""The hits of a request on limits, and the decision on all of them."""

from __future__ import annotations

from typing import NamedTuple

from filters.rate_limit.engine.algorithms import Limit


class Hit(NamedTuple):
    """The hit of a request on one limit. The keys of the hits of one decision differ.

    A hit of `cost` 0 takes nothing; it is admitted if the limit's `least` is left. `lease` names the request if it
    holds a slot.
    """

    limit: Limit
    key: str
    cost: int = 1
    lease: str = ""


class Taken(NamedTuple):
    """A part of what a decision took from one limit, to be given back.

    `cost` is at most what the hit took. `since` is the decision's `now` and `until` its figure's `reset`, which together
    name the window. Slots of concurrency are released instead.
    """

    limit: Limit
    key: str
    cost: int
    since: int
    until: int


class Figure(NamedTuple):
    """One limit after a decision. `remaining` is never below 0. `reset` is a moment, `wait` a time (microseconds).

    `short` is true if there was no room, even if the limit is in shadow.
    """

    limit: Limit
    remaining: int
    reset: int
    wait: int
    short: bool


class LimitDecision(NamedTuple):
    """`admitted` is true if a request passes. The figures are in the order of the hits.

    `uncounted` is true if a limit had no counter for the request. If such a request does not pass, there are no
    figures.
    """

    admitted: bool
    now: int
    figures: tuple[Figure, ...]
    uncounted: bool = False

    @property
    def violated(self) -> tuple[Figure, ...]:
        """The figures of the limits that reject the request."""
        return tuple(figure for figure in self.figures if figure.short and not figure.limit.shadow)

    def strictest(self) -> Figure | None:
        """The limit to report: of those that reject, that with the longest wait, else that with the least rest."""
        if len(self.figures) == 1:
            return None if self.figures[0].limit.shadow else self.figures[0]
        violated = self.violated
        if violated:
            return max(violated, key=lambda one: one.wait)
        enforced = [figure for figure in self.figures if not figure.limit.shadow]
        return min(enforced, key=lambda one: (one.remaining, -one.reset), default=None)
