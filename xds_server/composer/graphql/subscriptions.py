"""Subscriptions: the events of an upstream's stream (server-sent events) become results, one after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from graphql import ExecutionResult, GraphQLResolveInfo
from graphql.execution import Executor, create_source_event_stream

from filters.graphql import errors
from filters.graphql.directives import Auth, Rest
from filters.graphql.errors import FieldError
from filters.graphql.event_stream import EventStream, TooLarge
from filters.graphql.operations import Operation
from filters.graphql.request_context import RequestContext
from filters.graphql.settings import GraphqlLimits
from filters.graphql.templates import MissingValue, Values
from xds_server.composer.calls import Answer, Caller, CallFailed
from xds_server.composer.graphql import loading, upstream_json
from xds_server.composer.graphql.loading import Loader

Results = AsyncGenerator[Mapping[str, Any]]
MOST_EVENT = 1 << 20
"""Bytes of the largest event."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Who has subscribed, and how calls are made for each event."""

    caller: Caller
    context: RequestContext
    limits: GraphqlLimits


def subscribing(rest: Rest, auths: tuple[Auth, ...]) -> Callable[..., Any]:
    """What opens the stream of a field."""

    async def subscribe(
        _parent: Any, info: GraphQLResolveInfo[Subscriber], **arguments: Any
    ) -> AsyncGenerator[Any]:
        subscriber = info.context
        if not all(one.allows(subscriber.context) for one in auths):
            raise FieldError(errors.FORBIDDEN, "This caller may not have this field.")
        try:
            call = loading.call_of(rest, Values(arguments, None, subscriber.context, sent=rest.sent))
        except MissingValue as missing:
            raise FieldError(errors.BAD_USER_INPUT, f"{missing}.") from None
        call.headers["accept"] = "text/event-stream"  # type: ignore[index] # it is a dict of our own
        parts = subscriber.caller.stream(call)
        try:
            answer = await anext(parts)
        except CallFailed as failed:
            raise loading.failure(failed) from None
        assert isinstance(answer, Answer), "it comes first"
        if answer.status != 200 or not answer.headers.get("content-type", "").startswith("text/event-stream"):
            await parts.aclose()
            loading.check_status(answer)
            raise FieldError(errors.UPSTREAM_INVALID, "The upstream's answer is no stream of events.")
        return _events(parts, rest)

    return subscribe


async def _events(parts: AsyncGenerator[Answer | bytes], rest: Rest) -> AsyncGenerator[Any]:
    """Yield the value of each event, or the error with which the stream ends."""
    events = EventStream(MOST_EVENT)
    async with aclosing(parts):
        try:
            async for part in parts:
                assert isinstance(part, bytes), "the answer came before"
                for data in events.feed(part):
                    yield rest.select(upstream_json.decoded(data))
        except ValueError:
            yield FieldError(errors.UPSTREAM_INVALID, "An event of the upstream is not JSON.")
        except TooLarge:
            yield FieldError(errors.UPSTREAM_TOO_LARGE, "An event of the upstream is too large.")
        except CallFailed as failed:
            yield loading.failure(failed)


async def results(operation: Operation, variables: Mapping[str, Any], subscriber: Subscriber) -> Results:
    """Yield the results of a subscription. Closing the generator ends the call to the upstream."""
    executor = Executor.build(
        operation.schema.types,
        operation.document,
        root_value={},
        context_value=subscriber,
        raw_variable_values=dict(variables),
        hide_suggestions=True,
    )
    if isinstance(executor, list):
        yield {"errors": [errors.formatted(one) for one in executor]}
        return
    source = create_source_event_stream(executor)
    if not isinstance(source, ExecutionResult | AsyncIterable):
        source = await source
    if isinstance(source, ExecutionResult):
        yield {"errors": [errors.formatted(one) for one in source.errors or ()]}
        return
    from xds_server.composer.graphql import execution  # which binds the fields to this module

    async with aclosing(source) as events:  # type: ignore[type-var] # it is the generator of a field
        async for event in events:
            loader = Loader(subscriber.caller, subscriber.context, subscriber.limits)
            try:
                found = await execution.execute_event(operation, variables, event, loader)
            finally:
                await loader.close()
            yield found.value
