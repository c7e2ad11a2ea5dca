"""Aggregates: the calls of one request, those at once that can be, and the one response of their answers.

A required call that fails ends the request. Of several, the first in the order of the file decides the status:

- a 4xx of its upstream is the status of the response;
- a value that the request lacks is 400, and one that an earlier answer lacks is 502;
- a timeout is 504;
- everything else is 502: a 5xx, an upstream that cannot be reached, an answer that is no JSON or is too large.

A call that uses the answer of a required one that failed is not made. The other calls before it in the file go on,
because they may decide the status. Of those behind it, calls that have not begun
are not made, and calls that change nothing are given up. Calls that change something are awaited, and the response
reports what became of each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from xds_server.composer import aggregate_response
from xds_server.composer.aggregate_plan import AggregatePlan, PlannedCall
from xds_server.composer.aggregate_values import NoValue, Values, body_of, headers_of, path_of
from xds_server.composer.caching import Caching
from xds_server.composer.calls import Answer, Call, Caller, CallFailed
from xds_server.composer.json_values import MISSING, Json, NotJson, encode, filled
from xds_server.composer.messages import Request, Response
from xds_server.composer.problems import problem
from xds_server.translate.composer_entry import PARTIAL_HEADER

Why = Literal["status", "timeout", "unreachable", "too_large", "not_json", "no_value", "not_made"]
_JSON = "application/json"
_UNKNOWN = frozenset(("timeout", "unreachable", "too_large"))
"""Failures after which an upstream may or may not have done what a call asked for."""
_NULL = Json(b"null")
_SOON = 0.001
"""Seconds that a call has at least, so that its timeout is told from one of the past."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call has no answer that can be used. `status` is that of the upstream, 0 if there is none."""

    why: Why
    status: int = 0
    of_request: bool = False

    def as_json(self, call: str) -> dict[str, Any]:
        """The failure for the client. Nothing of what the upstream says is in it."""
        return (
            {"call": call, "status": self.status}
            if self.why == "status"
            else {"call": call, "reason": self.why}
        )


@dataclass(frozen=True, slots=True)
class AggregateRoute:
    """Answers the requests of a route."""

    plan: AggregatePlan

    @property
    def max_answer(self) -> int:
        """The size of the largest answer in bytes."""
        return self.plan.max_answer

    @property
    def growth(self) -> int:
        """Answers stay texts."""
        return 1

    async def respond(self, request: Request, caller: Caller) -> Response:
        """Answer a request."""
        body = None
        if self.plan.reads_body:
            if not _is_json(request.headers.get("content-type", "")):
                return problem(request, "unsupported_media_type", overrides=self.plan.overrides)
            try:
                body = Json(request.body)
            except NotJson:
                return problem(request, "malformed_body", overrides=self.plan.overrides)
        run = _Run(self.plan, request, caller, Values(request, body))
        await run.calls()
        return run.response()


class _Run:
    """The calls of one request."""

    def __init__(self, plan: AggregatePlan, request: Request, caller: Caller, values: Values) -> None:
        self._plan, self._request, self._caller, self._values = plan, request, caller, values
        self._loop = asyncio.get_running_loop()
        self._deadline = None if plan.timeout is None else self._loop.time() + plan.timeout
        self._failures = {one.name: Failure("not_made") for one in plan.calls}
        """Why each call has no answer. A call with an answer is not in it."""
        self._ended = {name: self._loop.create_future() for name in plan.awaited}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._begun: set[str] = set()
        self._caching = Caching(*plan.request_headers)
        if plan.for_one_client:
            self._caching.forbid()
        self._failed: int | None = None
        """The position of the first required call that has failed."""

    async def calls(self) -> None:
        """Make all calls."""
        if len(self._plan.order) == 1:
            await self._make(self._plan.order[0])
            return
        for one in self._plan.order:
            task = self._tasks[one.name] = self._loop.create_task(self._make(one))
            if (ended := self._ended.get(one.name)) is not None:
                # not by the task itself, which may be cancelled before it begins
                task.add_done_callback(partial(_end, ended))
        try:
            await asyncio.wait(self._tasks.values())
        except asyncio.CancelledError:
            for task in self._tasks.values():
                task.cancel()
            raise
        for task in self._tasks.values():
            if not task.cancelled():
                task.result()

    async def _make(self, call: PlannedCall) -> None:
        for name in call.after:
            await asyncio.shield(self._ended[name])
        if (self._failed is not None and call.position > self._failed) or self._waited_in_vain(call):
            return
        failure = await self._outcome(call)
        if failure is None:
            del self._failures[call.name]
        else:
            self._failures[call.name] = failure
            if not call.optional:
                self._give_up(call.position)

    def _waited_in_vain(self, call: PlannedCall) -> bool:
        """True if a call uses the answer of one that has none because a required call failed."""
        failures = ((name, self._failures[name]) for name in call.after if name in self._failures)
        return any(one.why == "not_made" or name in self._plan.required for name, one in failures)

    def _give_up(self, position: int) -> None:
        """End calls that are of no use since a required one has failed."""
        if self._failed is not None and self._failed <= position:
            return
        self._failed = position
        for call in self._plan.calls[position + 1 :]:
            task = self._tasks.get(call.name)
            if task is not None and (call.safe or call.name not in self._begun):
                task.cancel()

    async def _outcome(self, call: PlannedCall) -> Failure | None:
        """Make a call, and keep its answer. Returns why there is none."""
        try:
            made = self._call(call)
            self._begun.add(call.name)
            answer = await self._caller.call(made)
        except NoValue as error:
            return Failure("no_value", of_request=error.of_request)
        except CallFailed as error:
            return Failure(error.reason)
        if not 200 <= answer.status <= 299:
            return Failure("status", answer.status)
        self._caching.add(answer.headers)
        return self._read(call, answer)

    def _read(self, call: PlannedCall, answer: Answer) -> Failure | None:
        try:
            self._values.answers[call.name] = Json(answer.body) if answer.body else _NULL
        except NotJson:
            return Failure("not_json")
        return None

    def _call(self, call: PlannedCall) -> Call:
        values = self._values
        headers = {
            **self._request.for_calls,
            "host": self._request.headers.get("host", call.upstream),
            "accept": _JSON,
            **call.retry,
        }
        body = body_of(call, values)
        if call.body is not None:
            headers["content-type"] = _JSON
        if call.headers:
            headers.update(headers_of(call, values))
        return Call(
            upstream=call.upstream,
            method=call.method,
            path=path_of(call, values),
            headers=headers,
            body=body,
            timeout=self._timeout(call),
        )

    def _timeout(self, call: PlannedCall) -> float | None:
        if self._deadline is None:
            return call.timeout
        left = max(_SOON, self._deadline - self._loop.time())
        return left if call.timeout is None else min(left, call.timeout)

    def response(self) -> Response:
        """The response, after all calls have ended."""
        if self._failed is not None:
            return self._error(self._plan.calls[self._failed])
        missing = [one.name for one in self._plan.calls if one.name in self._failures]
        body = self._body()
        headers = [("content-type", _JSON)]
        # a cache would keep a response without what is missing now
        headers += self._caching.headers(failed=bool(missing)).items()
        if missing:
            headers.append((PARTIAL_HEADER, ",".join(missing)))
            if self._plan.errors:
                body[aggregate_response.ERRORS] = [self._failures[name].as_json(name) for name in missing]
        outcome = "partial" if missing else "complete"
        return Response(status=200, headers=headers, body=encode(body), outcome=outcome)

    def _body(self) -> dict[str, Any]:
        answers = self._values.answers
        if self._plan.response is None:
            parts = [
                (one, aggregate_response.part(one, answers[one.name]))
                for one in self._plan.calls
                if one.name in answers
            ]
            return aggregate_response.merged(parts)
        for one in self._plan.calls:
            if one.name in answers and (one.target or one.shape is not None):
                found = aggregate_response.part(one, answers[one.name])
                if found is MISSING:
                    del answers[one.name]
                else:
                    answers[one.name] = Json(encode(found))
        result: dict[str, Any] = filled(self._plan.response, self._values)
        return result

    def _error(self, call: PlannedCall) -> Response:
        failure = self._failures[call.name]
        more: dict[str, Any] = {"call": call.name}
        if self._plan.writes:
            more["calls"] = dict(self._report())
        reason, status = _rejection(failure)
        return problem(self._request, reason, status, overrides=self._plan.overrides, more=more)

    def _report(self) -> Iterator[tuple[str, str]]:
        """Yield what became of each call: done, failed, not_made, given_up, or unknown if its upstream may have done it."""
        for one in self._plan.calls:
            failure = self._failures.get(one.name)
            if failure is None:
                yield one.name, "done"
            elif failure.why in ("not_made", "no_value"):
                yield one.name, "given_up" if one.name in self._begun else "not_made"
            else:
                yield one.name, "unknown" if failure.why in _UNKNOWN else "failed"


def _is_json(content_type: str) -> bool:
    """True for JSON. Pages of other origins may send any other type without asking (Fetch standard, section 2.2.2)."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == _JSON or (kind.startswith("application/") and kind.endswith("+json"))


def _end(ended: asyncio.Future[None], _task: asyncio.Task[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _rejection(failure: Failure) -> tuple[str, int | None]:
    """Return the reason of a failed required call, and the status if it is not that of the reason."""
    if failure.why == "status" and 400 <= failure.status <= 499:
        return "call_rejected", failure.status
    if failure.why == "timeout":
        return "call_timeout", None
    if failure.why == "no_value" and failure.of_request:
        return "value_missing", None
    return "call_failed", None
