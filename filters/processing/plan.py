"""The loaded processors of a route, and what follows from their phases. It is made once for many exchanges."""

from __future__ import annotations

from dataclasses import dataclass

from filters.processing.phases import Phase, Side
from filters.processing.processor import Rule

HEADERS: dict[Side, Phase] = {"request": Phase.REQUEST_HEADERS, "response": Phase.RESPONSE_HEADERS}
BODY: dict[Side, Phase] = {"request": Phase.REQUEST_BODY, "response": Phase.RESPONSE_BODY}
CHUNK: dict[Side, Phase] = {"request": Phase.REQUEST_CHUNK, "response": Phase.RESPONSE_CHUNK}


def side_of(phase: str) -> Side:
    """The side of a phase, or of a kind of message."""
    return "request" if phase.startswith("request") else "response"


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One processor of the chain of a route, with its bounds there: seconds, and bytes of a body."""

    rule: Rule
    timeout: float
    max_body: int
    lenient: bool = False


class Plan:
    """The steps of a route. `of` has those of each phase, in the order in which they process that side.

    `bodies` has those that take a body, whole or in pieces. `immediate` is true if no processor waits.
    """

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.steps = steps
        self.phases = frozenset(phase for step in steps for phase in step.rule.phases)
        self.immediate = all(step.rule.immediate for step in steps)
        orders = {"request": steps, "response": steps[::-1]}
        self.of = {
            phase: tuple(step for step in orders[side_of(phase)] if phase in step.rule.phases)
            for phase in Phase
        }
        self.bodies = {
            side: tuple(step for step in order if {f"{side}_body", f"{side}_chunk"} & set(step.rule.phases))
            for side, order in orders.items()
        }
        self.whole = {side: bool(self.of[BODY[side]]) for side in BODY}
        """True if a processor wants the body of a side as a whole. Then no processor gets it in pieces."""
