"""The calls of one request: equal ones are made once, those for several keys become one, and few are made at once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from filters.graphql import errors
from filters.graphql.directives import Batch, Rest
from filters.graphql.errors import FieldError
from filters.graphql.request_context import RequestContext
from filters.graphql.selection import Pick
from filters.graphql.settings import GraphqlLimits
from filters.graphql.templates import BodyTemplate, MissingValue, PathTemplate, UnusableValue, Values, scalar
from xds_server.composer.caching import Caching
from xds_server.composer.calls import Answer, Call, Caller, CallFailed
from xds_server.composer.graphql import upstream_json
from xds_server.composer.graphql.requests import VARY

_FAILED = {
    "timeout": (errors.UPSTREAM_TIMEOUT, "The upstream did not answer in time."),
    "unreachable": (errors.UPSTREAM_UNREACHABLE, "The upstream cannot be reached."),
    "too_large": (errors.UPSTREAM_TOO_LARGE, "The upstream's answer is too large."),
}
_NOT_FOUND = 404
_MOST_PATH = 32_000
"""Characters of the path of a call: Envoy rejects requests whose headers have more than 60 KiB."""
Place = tuple[str, ...]
"""The fields from the root of an operation down to one, without the indexes of lists."""
_Key = tuple[str, str, str, bytes, tuple[tuple[str, str], ...], float | None]


@dataclass(slots=True)
class _Keys:
    """The keys of one field that wait for more of them, by their texts, and where the field is in the operation."""

    rest: Rest
    many: bool
    futures: dict[str, tuple[Any, asyncio.Future[Any]]] = field(default_factory=dict)
    places: set[Place] = field(default_factory=set)


class Loader:
    """Makes the calls of one request. After `close`, none of its calls is under way.

    `timeout` is in seconds from now, for all calls together. `caching` has what the answers say about storing them.
    """

    def __init__(
        self,
        caller: Caller,
        context: RequestContext,
        limits: GraphqlLimits,
        timeout: float | None = None,
    ) -> None:
        self.context = context
        self.caching = Caching(VARY)
        self._caller = caller
        self._left = limits.calls
        self._slots = asyncio.Semaphore(limits.parallel)
        self._loop = asyncio.get_running_loop()
        self._end = None if timeout is None else self._loop.time() + timeout
        self._known: dict[_Key, asyncio.Task[Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._awaited: Counter[Place] = Counter()
        self._waiting: dict[int, _Keys] = {}

    def load(
        self, rest: Rest, parent: Any, arguments: Mapping[str, Any], place: Place, *, many: bool
    ) -> Awaitable[Any] | None:
        """The value of the field at a place, or None if the parent lacks what the call needs. `many` is true for lists.

        Raises FieldError.
        """
        if rest.request_headers:
            self.caching.vary(*rest.request_headers)
        found = self._found_or_awaited(rest, parent, arguments, place, many=many)
        if found is not None:
            self._awaited[place] += 1
            found.add_done_callback(lambda _ended: self._ended(place))
        return found

    def _found_or_awaited(
        self, rest: Rest, parent: Any, arguments: Mapping[str, Any], place: Place, *, many: bool
    ) -> asyncio.Future[Any] | None:
        values = Values(arguments, parent, self.context, sent=rest.sent)
        if rest.batch is not None and rest.key is not None:
            key = values.of(rest.key)
            if key is None:
                return None
            return self._batched(rest, _text(key, rest), key, place, many=many)
        try:
            call = call_of(rest, values)
        except MissingValue as missing:
            if missing.source.kind == "parent":
                return None
            raise _lacking(missing) from None
        return self._value(rest, call, safe=rest.safe)

    async def close(self) -> None:
        """Cancel the calls under way, and wait for their end."""
        for one in self._tasks:
            one.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # an execution is a cycle of references, which must not keep the answers until it is collected
        self._known.clear()
        self._waiting.clear()

    def _value(self, rest: Rest, call: Call, *, safe: bool) -> asyncio.Future[Any]:
        """The part of a call's answer that a field selects. Equal safe calls are made once, if no call between them changes something."""
        if not safe:
            self._known.clear()
            change = self._started(self._answer(call))
            change.add_done_callback(lambda _ended: self._known.clear())  # those made meanwhile may be older
            return self._following(change, rest.select)
        headers = tuple(call.headers.items())
        key = (call.upstream, call.method, call.path, call.body, headers, call.timeout)
        task = self._known.get(key)
        if task is None:
            task = self._known[key] = self._started(self._answer(call))
        return self._following(task, rest.select)

    def _following(self, task: asyncio.Task[Any], pick: Pick) -> asyncio.Future[Any]:
        """What is picked of a task's result. Cancelling it does not cancel the task, which others may wait for too."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def follow(ended: asyncio.Task[Any]) -> None:
            if future.done():
                return
            try:
                future.set_result(pick(ended.result()))
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                _fail(future, error)

        task.add_done_callback(follow)
        return future

    def _started(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, call: Call) -> Any:
        """The JSON of an answer, None for a 404. Raises FieldError."""
        if self._left <= 0:
            raise FieldError(errors.TOO_MANY_CALLS, "The request needs too many calls to upstreams.")
        self._left -= 1
        async with self._slots:
            try:
                answer = await self._caller.call(self._in_time(call))
            except CallFailed as failed:
                raise failure(failed) from None
        self.caching.add(answer.headers)
        return _decoded(answer, call)

    def _in_time(self, call: Call) -> Call:
        """The call with no more time than the request has left. Raises CallFailed."""
        if self._end is None:
            return call
        left = self._end - self._loop.time()
        if left <= 0:
            raise CallFailed("timeout", "the time of the request is up")
        return replace(call, timeout=left if call.timeout is None else min(left, call.timeout))

    # Batches -----------------------------------------------------------------------------------------------------

    def _batched(self, rest: Rest, text: str, key: Any, place: Place, *, many: bool) -> asyncio.Future[Any]:
        waiting = self._waiting.get(id(rest))
        if waiting is None:
            waiting = self._waiting[id(rest)] = _Keys(rest, many)
            self._loop.call_soon(self._begin_ready)
        waiting.places.add(place)
        known = waiting.futures.get(text)
        if known is None:
            known = waiting.futures[text] = (key, self._loop.create_future())
        return asyncio.shield(known[1])

    def _ended(self, place: Place) -> None:
        """Note that a field has its value, which may be the last that others waited for to have all of their keys."""
        self._awaited[place] -= 1
        if not self._awaited[place]:
            del self._awaited[place]
            if self._waiting:
                # the executor goes to the fields below in this turn of the loop, or in the next
                self._loop.call_soon(self._loop.call_soon, self._begin_ready)

    def _begin_ready(self) -> None:
        """Start the calls for keys to which no field above them can add any more."""
        for waiting in list(self._waiting.values()):
            if any(place[:end] in self._awaited for place in waiting.places for end in range(1, len(place))):
                continue
            rest = waiting.rest
            del self._waiting[id(rest)]
            assert rest.batch is not None, "the field has a batch"
            found = [*waiting.futures.items()]
            for at in range(0, len(found), rest.batch.size):
                part = dict(found[at : at + rest.batch.size])
                self._started(self._fill(rest, rest.batch, part, waiting.many))

    async def _fill(
        self, rest: Rest, batch: Batch, keys: Mapping[str, tuple[Any, asyncio.Future[Any]]], many: bool
    ) -> None:
        """Give each key its value, or all of them the same error, whatever it is: else the request would wait for ever."""
        try:
            found = await self._found(rest, batch, [key for key, _ in keys.values()], many)
        except BaseException as error:
            for _, future in keys.values():
                _fail(future, error)
            if not isinstance(error, FieldError):
                raise
        else:
            for text, (_, future) in keys.items():
                future.set_result(found.get(text, [] if many else None))

    async def _found(self, rest: Rest, batch: Batch, keys: Sequence[Any], many: bool) -> Mapping[str, Any]:
        """The values by the texts of their keys. A single key takes the call of the field. Raises FieldError."""
        if len(keys) == 1 and rest.key is not None:
            value = await self._value(rest, self._single(rest, keys[0]), safe=True)
            return {} if value is None else {_text(keys[0], rest): value}
        call = _needed(rest, batch.method, batch.path, batch.body, Values({}, {}, self.context, keys))
        answer = await self._value(rest, call, safe=True)
        if answer is None:  # a 404: none of the keys is known
            return {}
        if not isinstance(answer, list):
            raise FieldError(errors.UPSTREAM_INVALID, "The upstream's answer for several keys is no list.")
        grouped: dict[str, Any] = {}
        for one in answer:
            key = batch.by(one)
            if not isinstance(key, str | int | float) or isinstance(key, bool):
                continue
            if many:
                grouped.setdefault(_text(key, rest), []).append(one)
            else:
                grouped.setdefault(_text(key, rest), one)
        return grouped

    def _single(self, rest: Rest, key: Any) -> Call:
        assert rest.key is not None, "the field has a batch"
        steps = rest.key.steps
        value: Any = key
        for step in reversed(steps):
            value = {step: value}
        return _needed(rest, rest.method, rest.path, None, Values(value, value, self.context))


def _lacking(missing: MissingValue) -> FieldError:
    return FieldError(errors.BAD_USER_INPUT, f"{missing}.")


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    elif not future.done():
        future.set_exception(error)
        future.exception()  # a future that nobody awaits any more must not be reported


def _text(key: Any, rest: Rest) -> str:
    assert rest.key is not None, "the field has a batch"
    try:
        return scalar(key, rest.key)
    except UnusableValue as error:
        raise FieldError(errors.BAD_USER_INPUT, f"{error}.") from None


def _needed(rest: Rest, method: str, path: PathTemplate, body: BodyTemplate | None, values: Values) -> Call:
    """The call of a batch, whose keys are known. Raises FieldError if the request lacks a value."""
    try:
        return _call(rest, method, path, body, values)
    except MissingValue as missing:
        raise _lacking(missing) from None


def _call(rest: Rest, method: str, path: PathTemplate, body: BodyTemplate | None, values: Values) -> Call:
    """The call with the values of a request. Raises MissingValue, FieldError."""
    try:
        context = values.context
        headers = {**context.for_calls, **(context.for_safe_calls if rest.safe else {})}
        headers["accept"] = "application/json"
        for name, text in rest.headers:
            if (rendered := text.render(values)) is not None:
                headers[name] = rendered.encode().decode("latin-1")  # one character for each byte
        sent = b""
        if body is not None:
            headers["content-type"] = "application/json"
            sent = _json(body.render(values))
        where = path.render(values)
        if len(where) > _MOST_PATH:
            raise FieldError(errors.BAD_USER_INPUT, "The path of the call to the upstream would be too long.")
        return Call(
            upstream=rest.upstream,
            method=method,
            path=where,
            headers=headers,
            body=sent,
            timeout=rest.timeout,
        )
    except UnusableValue as error:
        raise FieldError(errors.BAD_USER_INPUT, f"{error}.") from None


def _json(value: Any) -> bytes:
    """A value as JSON. Raises FieldError for a number that JSON does not have."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        raise FieldError(errors.BAD_USER_INPUT, "A number is too large.") from None


def failure(failed: CallFailed) -> FieldError:
    """The error of a field whose call has no answer."""
    code, text = _FAILED[failed.reason]
    return FieldError(code, text)


def call_of(rest: Rest, values: Values) -> Call:
    """The call of a field with the values of a request. Raises MissingValue, FieldError."""
    return _call(rest, rest.method, rest.path, rest.body, values)


def check_status(answer: Answer) -> None:
    """Raise FieldError unless the status says that there is a value."""
    if not 200 <= answer.status <= 299:
        text = f"The upstream answered with the status {answer.status}."
        raise FieldError(errors.UPSTREAM_ERROR, text, status=answer.status)


def _decoded(answer: Answer, call: Call) -> Any:
    """The JSON of an answer. Raises FieldError."""
    if answer.status == _NOT_FOUND and call.method in ("GET", "HEAD"):
        return None
    check_status(answer)
    if not answer.body:
        return None
    try:
        return upstream_json.decoded(answer.body)
    except ValueError:
        raise FieldError(errors.UPSTREAM_INVALID, "The upstream's answer is not JSON.") from None
