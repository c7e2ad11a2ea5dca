"""What a processor is: methods for the phases of one exchange, and the rule from which each exchange gets its own.

Processors do no IO of their own accord, read no clock and log nothing. The service calls them, within the time limit of
their route.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

from filters.policy import Context
from filters.processing.phases import Phase, Phases
from filters.processing.values import Outcomes, Request, Response
from filters.rules import RuleType


class Processor:
    """Processes one request and its response. Override the methods for the phases that you need.

    There is an object for each exchange, so attributes of `self` last from the request to the end of its response. A
    method is not called for a message without a body, nor for a body after an answer or a `skip_body`.
    """

    def request_headers(self, request: Request) -> Outcomes:
        """Change the request's headers, or answer. Called before the body arrives."""

    def request_body(self, request: Request, body: bytes) -> Outcomes:
        """Return another body, change headers and body, or answer. `body` is the whole body, decoded."""

    def request_chunk(self, request: Request, chunk: bytes, last: bool) -> Outcomes:
        """Return the bytes to send instead of this piece of the body, or answer. The last piece may be empty."""

    def response_headers(self, request: Request, response: Response) -> Outcomes:
        """Change the response's headers or status, or answer instead."""

    def response_body(self, request: Request, response: Response, body: bytes) -> Outcomes:
        """Return another body, change status, headers and body, or answer. `body` is the whole body, decoded."""

    def response_chunk(self, request: Request, response: Response, chunk: bytes, last: bool) -> Outcomes:
        """Return the bytes to send instead of this piece of the body. Headers were sent before."""


def declared(kind: type[Processor]) -> frozenset[Phase]:
    """The phases whose methods a class overrides."""
    return frozenset(one for one in Phase if getattr(kind, one, None) is not getattr(Processor, one))


class Rule(Protocol):
    """A loaded rule: it makes a processor for each exchange, and calls its methods.

    `immediate` is true if no method waits, so that the service needs no task. `name` is for logs and metrics.
    """

    @property
    def name(self) -> str: ...

    @property
    def phases(self) -> Phases: ...

    @property
    def immediate(self) -> bool: ...

    def begin(self) -> Processor:
        """The processor of a new exchange. It may be the same one, if it keeps no state."""
        ...

    def call(self, processor: Processor, phase: Phase, arguments: tuple[Any, ...]) -> Outcomes:
        """Call the method of a phase. Raises Busy if too many calls are in progress."""
        ...


class OwnRule:
    """The rule of a processor of our own, which keeps no state. With `immediate`, its methods are functions that never wait."""

    def __init__(
        self,
        name: str,
        processor: Processor,
        phases: frozenset[Phase] | None = None,
        *,
        immediate: bool = True,
    ) -> None:
        self.name = name
        self.immediate = immediate
        self.phases = declared(type(processor)) if phases is None else phases
        self._processor = processor

    def begin(self) -> Processor:
        """The one processor."""
        return self._processor

    def call(self, processor: Processor, phase: Phase, arguments: tuple[Any, ...]) -> Outcomes:
        """Call the method of a phase."""
        outcome: Outcomes = getattr(processor, phase)(*arguments)
        return outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One processor in the chain of a route: the rule's type and name, its phases, and the bounds of a call.

    `max_body` is the size in bytes of the largest whole body, before and after the processor. If `lenient`, the message
    passes unchanged when the processor takes more than `timeout`, or the policy server is down.
    """

    type: RuleType
    rule: str
    phases: frozenset[Phase]
    timeout: timedelta = timedelta(seconds=1)
    max_body: int = 1 << 20
    lenient: bool = False


@runtime_checkable
class Uses(Protocol):
    """Settings of a policy that need processors, such as those of `ext_proc`."""

    def uses(self, context: Context) -> tuple[Use, ...]:
        """The processors, in the order in which they process requests."""
        ...
