"""What a request asks of limits, and the decision on all of them."""

from __future__ import annotations

from typing import NamedTuple

from filters.rate_limit.engine.algorithms import Limit


class Hit(NamedTuple):
    """What a request asks of one limit. Keys of one decision differ.

    `cost` 0 asks whether the limit's `least` is left and takes nothing. `lease` names the request where it holds a slot.
    """

    limit: Limit
    key: str
    cost: int = 1
    lease: str = ""


class Figure(NamedTuple):
    """One limit after a decision. `remaining` is never below 0; `reset` is a moment, `wait` a time (microseconds).

    `short` says that there was no room, be it in shadow.
    """

    limit: Limit
    remaining: int
    reset: int
    wait: int
    short: bool


class Decision(NamedTuple):
    """Whether a request passes, and the figures of each limit in the order asked.

    `uncounted` says that a limit had no counter for it; where it does not pass then, there are no figures.
    """

    admitted: bool
    now: int
    figures: tuple[Figure, ...]
    uncounted: bool = False

    @property
    def violated(self) -> tuple[Figure, ...]:
        """The limits that reject it."""
        return tuple(one for one in self.figures if one.short and not one.limit.shadow)

    def strictest(self) -> Figure | None:
        """The limit to tell of: of those that reject the one with the longest wait, else that which leaves least."""
        violated = self.violated
        if violated:
            return max(violated, key=lambda one: one.wait)
        enforced = [one for one in self.figures if not one.limit.shadow]
        return min(enforced, key=lambda one: (one.remaining, -one.reset), default=None)
