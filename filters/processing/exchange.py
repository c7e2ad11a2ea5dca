"""One exchange on its way through a chain of processors: requests in the order of the chain, responses in reverse.

Laws:
- Each processor sees the message as the processors before it left it.
- A message is answered as a whole or not at all: after a `Failure`, nothing of its changes is sent.
- The framing headers follow from the body, whatever a processor returns.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from filters.content_coding import (
    CodingError,
    MalformedError,
    TooLargeError,
    UnknownCodingError,
    codings,
    decode,
)
from filters.model.headers import Headers
from filters.processing.phases import Body, Phase, Side
from filters.processing.plan import BODY, CHUNK, HEADERS, Plan, Step
from filters.processing.processor import Processor
from filters.processing.values import Answer, Change, Outcome, Request, Response
from filters.unary import Busy

DIGESTS = ("content-digest", "content-md5", "digest", "repr-digest")
"""Headers that are wrong after a body was changed (RFC 9530, RFC 1864)."""
GRPC, EVENTS = "application/grpc", "text/event-stream"
"""Types of messages that may never end."""

_OF_REQUESTS = frozenset({Phase.REQUEST_HEADERS, Phase.REQUEST_BODY, Phase.REQUEST_CHUNK})
_OUTCOMES = {type(None): "continued", bytes: "changed", Change: "changed", Answer: "responded"}
TOO_LARGE, TOO_LARGE_RESPONSE = "body_too_large", "response_too_large"
_REASONS: Mapping[type[CodingError], tuple[str, int]] = {
    TooLargeError: (TOO_LARGE, 413),
    UnknownCodingError: ("unsupported_content_coding", 415),
    MalformedError: ("malformed_content_coding", 400),
}
_REASONS_OF_RESPONSES: Mapping[type[CodingError], tuple[str, int]] = {
    TooLargeError: (TOO_LARGE_RESPONSE, 500),
    UnknownCodingError: ("unsupported_content_coding", 500),
    MalformedError: ("malformed_content_coding", 500),
}
"""Reasons and statuses for a body that cannot be decoded."""

Bounded = Callable[[Awaitable[Any], float], Awaitable[Any]]
"""Awaits something for at most some seconds. Raises Late."""


class Late(Exception):  # noqa: N818 - becomes a Failure
    """A call took more than its time limit."""


class Failure(Exception):  # noqa: N818 - the client gets it as a response
    """A message cannot be processed. `reason` and `status` are those of the response, `detail` is for the client.

    `error` is what a processor raised.
    """

    def __init__(
        self, reason: str, status: int, detail: str, processor: str = "", error: BaseException | None = None
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.status = status
        self.detail = detail
        self.processor = processor
        self.error = error


@dataclass(slots=True)
class Changes:
    """The changes of all processors to one message. `next` says what they want of the body after headers.

    If one processor wants the body as a whole and another in pieces, the latter gets it in one piece.
    """

    removed: set[str] = field(default_factory=set)
    values: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)
    """By name: each value, and whether it is added beside those of the same name."""
    status: int | None = None
    body: bytes | None = None
    next: Body | None = None
    note: tuple[tuple[str, str], ...] = ()

    def applied(self, headers: Headers) -> Headers:
        """Headers as they are after these changes."""
        gone = {*self.removed, *(name for name, several in self.values.items() if not several[0][1])}
        kept = [(name, value) for name in headers if name not in gone for value in headers.get_all(name)]
        return Headers([*kept, *((name, one) for name, several in self.values.items() for one, _ in several)])

    def apply(self, change: Change) -> None:
        """Add the changes of the next processor."""
        for name in change.remove:
            self.remove(name)
        for name, value in change.headers:
            self.values[name] = [(value, False)]
        for name, value in change.add:
            self.values.setdefault(name, []).append((value, True))
        self.status = change.status or self.status
        self.note += change.note

    def remove(self, name: str) -> None:
        """Remove a header."""
        self.values.pop(name, None)
        self.removed.add(name)

    def set(self, name: str, value: str) -> None:
        """Set a header."""
        self.values[name] = [(value, False)]


class Exchange:
    """Runs a chain for one exchange. Only one of its methods runs at a time.

    The methods return the changes of a message, or the answer of a processor. They raise Failure. `seen` gets the name
    of each processor that was called, the phase, and the outcome.
    """

    def __init__(self, plan: Plan, bounded: Bounded, seen: Callable[[str, str, str], None]) -> None:
        self._plan = plan
        self._processors = {step: _begun(step) for step in plan.steps}
        self._bounded = bounded
        self._seen = seen
        self._skipped: set[tuple[Step, Side]] = set()
        self._messages: dict[Side, Any] = {}

    async def headers(self, side: Side, message: Request | Response, *, ends: bool) -> Changes | Answer:
        """Process the headers of a message. `ends` is true if it has no body."""
        self._messages[side] = message
        if side == "request" and (self._plan.whole["request"] or self._plan.whole["response"]):
            self._check_type(side, GRPC, 415, "a gRPC call is a stream")
        changes, phase = Changes(), HEADERS[side]
        for step in self._plan.of[phase]:
            outcome = await self._call(step, phase)
            if outcome is None:
                continue
            if isinstance(outcome, Answer):
                return outcome
            if isinstance(outcome, bytes) or outcome.body is not None:
                raise _failed(step, phase, "returned a body for headers; a method for bodies may do so")
            self._change(side, changes, outcome, step, phase)
            if outcome.skip_body:
                self._skipped.add((step, side))
        changes.next = None if ends else self._next(side)
        return changes

    def _next(self, side: Side) -> Body | None:
        """What the processors want of a body that follows. Raises Failure if it cannot be given."""
        wanting = self._wanting(side)
        if not wanting:
            return Body.UNSEEN if self._plan.bodies[side] else None
        if not self._plan.whole[side]:
            return None
        if side == "response":
            self._check_type(side, EVENTS, 500, "the response is a stream of events")
        length = self._messages[side].headers.get("content-length", "")
        limit = min(step.max_body for step in wanting)
        if length.isdecimal() and (len(length) > 18 or int(length) > limit):
            raise _unreadable(side, TooLargeError(f"the body is larger than {limit} bytes"))
        return Body.SIZED if length else Body.UNSIZED

    def _check_type(self, side: Side, kind: str, status: int, why: str) -> None:
        """Raise Failure for a message of a type that may never end."""
        if self._messages[side].headers.get("content-type", "").lower().startswith(kind):
            detail = f"The processors of this route need whole bodies, and {why}."
            raise Failure("processor_stream", status, detail)

    def _wanting(self, side: Side) -> tuple[Step, ...]:
        """The steps that take the body of a side."""
        steps = self._plan.bodies[side]
        return tuple(step for step in steps if (step, side) not in self._skipped) if self._skipped else steps

    async def body(self, side: Side, body: bytes) -> Changes | Answer:
        """Process a whole body. Processors that take it in pieces get it in one piece."""
        changes, changed, decoded = Changes(), body, False
        for step in self._wanting(side):
            whole = BODY[side] in step.rule.phases
            if not decoded:
                decoded, changed = True, self._decoded(side, changed, step.max_body)
                before = changed
            phase, arguments = (BODY[side], (changed,)) if whole else (CHUNK[side], (changed, True))
            outcome = await self._call(step, phase, *arguments)
            if outcome is None:
                continue
            if isinstance(outcome, Answer):
                return outcome
            if isinstance(outcome, bytes):
                changed = outcome
            else:
                self._change(side, changes, outcome, step, phase)
                changed = changed if outcome.body is None else outcome.body
            if len(changed) > step.max_body:
                raise _failed(step, phase, f"returned a body of more than {step.max_body} bytes")
        if decoded and changed != before:
            self._replace(side, changes, changed)
        return changes

    def _replace(self, side: Side, changes: Changes, body: bytes) -> None:
        """Replace a body, and the headers that describe it."""
        changes.body = body
        changes.set("content-length", str(len(body)))
        headers = self._messages[side].headers
        for name in ("content-encoding", *DIGESTS):
            if name in headers and name not in changes.values:
                changes.remove(name)
        etag = headers.get("etag", "")
        if etag and not etag.startswith("W/"):
            changes.set("etag", f"W/{etag}")

    async def chunk(
        self, side: Side, chunk: bytes, *, last: bool, trailers: bool = False
    ) -> Changes | Answer:
        """Process a piece of a body. With `trailers` the body has ended without it, and no bytes can follow."""
        changes, changed, phase = Changes(), chunk, CHUNK[side]
        for step in self._wanting(side):
            outcome = await self._call(step, phase, changed, last)
            if outcome is None:
                continue
            if isinstance(outcome, Answer):
                return outcome
            if isinstance(outcome, Change):
                if outcome != Change(body=outcome.body):
                    raise _failed(step, phase, "changed headers, which were sent before")
                outcome = outcome.body
            changed = changed if outcome is None else outcome
            if len(changed) > step.max_body:
                raise _failed(step, phase, f"returned a piece of more than {step.max_body} bytes")
            if trailers and changed:
                raise _failed(step, phase, "returned bytes at the end of a body with trailers")
        changes.body = None if changed == chunk else changed
        return changes

    def _decoded(self, side: Side, body: bytes, limit: int) -> bytes:
        """The body without its content codings. Raises Failure."""
        header = self._messages[side].headers.get("content-encoding", "")
        try:
            if len(body) > limit:
                raise TooLargeError(f"the body is larger than {limit} bytes")
            return decode(body, header, limit) if codings(header) else body
        except CodingError as error:
            raise _unreadable(side, error) from None

    async def _call(self, step: Step, phase: Phase, *more: Any) -> Outcome:
        """Call a method. Raises Failure if it fails or takes too long, unless the route is lenient about that."""
        rule, kind = step.rule, type(None)
        try:
            asked = self._messages["request"]
            messages = (asked,) if phase in _OF_REQUESTS else (asked, self._messages["response"])
            outcome: Any = rule.call(self._processors[step], phase, (*messages, *more))
            kind = type(outcome)
            if kind not in _OUTCOMES and isinstance(outcome, Awaitable):
                outcome = await (outcome if rule.immediate else self._bounded(outcome, step.timeout))
                kind = type(outcome)
        except (Late, Busy) as error:
            self._late(step, phase, error)
            return None
        except (GeneratorExit, CancelledError):
            raise
        except BaseException as error:
            self._seen(rule.name, phase, "failed")
            raise _failed(step, phase, "failed", error) from error
        known = _OUTCOMES.get(kind)
        self._seen(rule.name, phase, known or "failed")
        if known is None:
            raise _failed(step, phase, f"returned {kind.__name__}")
        return outcome  # type: ignore[no-any-return]

    def _late(self, step: Step, phase: Phase, error: BaseException) -> None:
        """Raise Failure, unless the route is lenient."""
        self._seen(step.rule.name, phase, "busy" if isinstance(error, Busy) else "timeout")
        if not step.lenient:
            detail = f"A processor did not finish {phase} in time."
            raise Failure("processor_timeout", 500, detail, step.rule.name, error)

    def _change(self, side: Side, changes: Changes, change: Change, step: Step, phase: Phase) -> None:
        if change.status is not None and side == "request":
            raise _failed(step, phase, "changed the status of a request")
        changes.apply(change)
        if change.headers or change.add or change.remove or change.status:
            self._messages[side] = self._messages[side].changed(change)


def _unreadable(side: Side, error: CodingError) -> Failure:
    """The failure for a body that is too large or cannot be decoded."""
    reason, status = _REASONS[type(error)] if side == "request" else _REASONS_OF_RESPONSES[type(error)]
    return Failure(reason, status, f"{str(error)[0].upper()}{str(error)[1:]}.")


def _begun(step: Step) -> Processor:
    """A processor for this exchange. Raises Failure."""
    try:
        return step.rule.begin()
    except BaseException as error:
        detail = "A processor failed before the request."
        raise Failure("processor_failed", 500, detail, step.rule.name, error) from error


def _failed(step: Step, phase: Phase, what: str, error: BaseException | None = None) -> Failure:
    """The failure of a processor. The client learns the phase, and the log the rest."""
    why = error or TypeError(f"{step.rule.name} {what}")
    return Failure("processor_failed", 500, f"A processor failed in {phase}.", step.rule.name, why)
