"""Executes prepared operations: the resolvers of a bound schema, and the result as clients get it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import CoroutineType
from typing import Any, TypeGuard

from graphql import (
    ExecutionResult,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLUnionType,
    OperationType,
    get_nullable_type,
    is_list_type,
)
from graphql.execution import (
    ExperimentalIncrementalExecutionResults,
    experimental_execute_incrementally,
)
from graphql.pyutils import Path

from filters.graphql import errors
from filters.graphql.directives import Auth, Discriminator, Rest
from filters.graphql.errors import FieldError
from filters.graphql.operations import Operation
from filters.graphql.request_context import RequestContext
from filters.graphql.schema import BoundSchema
from filters.graphql.selection import Pick
from filters.graphql.settings import GraphqlLimits
from xds_server.composer.caching import Caching
from xds_server.composer.calls import Caller
from xds_server.composer.graphql.executor import LEAVES, Leaves, MemberExecutor, leaf_of
from xds_server.composer.graphql.loading import Loader, Place
from xds_server.composer.graphql.requests import VARY
from xds_server.composer.graphql.subscriptions import subscribing

Resolver = Callable[..., Any]
Info = GraphQLResolveInfo[Loader]
_ROOT: Mapping[str, Any] = {}
_AWAITABLE = (asyncio.Future, CoroutineType)


def bind(schema: BoundSchema) -> BoundSchema:
    """Give the types of a schema their resolvers. It is called once, before the schema is used."""
    for kind in schema.types.type_map.values():
        if isinstance(kind, GraphQLInterfaceType | GraphQLUnionType):
            kind.resolve_type = _type_resolver(schema.discriminators.get(kind.name, Discriminator()))
        if not isinstance(kind, GraphQLObjectType) or kind.name.startswith("__"):
            continue
        leaves: Leaves = {}
        for name, one in kind.fields.items():
            key = (kind.name, name)
            resolver: Resolver = _member
            if key in schema.streams:
                one.subscribe = subscribing(schema.streams[key], schema.allowed.get(key, ()))
                resolver = _event
            elif key in schema.calls:
                many = is_list_type(get_nullable_type(one.type))
                resolver = _calling(schema.calls[key], many=many)
            elif key in schema.values:
                resolver = _taking(schema.values[key])
            if key in schema.allowed:
                resolver = _allowing(resolver, schema.allowed[key])
            one.resolve = resolver
            if resolver is _member and (leaf := leaf_of(one)) is not None:
                leaves[name] = leaf
        kind.extensions[LEAVES] = leaves
    return schema


def _member(parent: Any, info: Info, **_arguments: Any) -> Any:
    if type(parent) is dict:
        return parent.get(info.field_name)
    raise FieldError(errors.UPSTREAM_INVALID, "The upstream's answer has no object here.")


def _event(event: Any, _info: Info, **_arguments: Any) -> Any:
    if isinstance(event, FieldError):
        raise event
    return event


def _taking(pick: Pick) -> Resolver:
    def resolve(parent: Any, _info: Info, **_arguments: Any) -> Any:
        return pick(parent)

    return resolve


def _calling(rest: Rest, *, many: bool) -> Resolver:
    def resolve(parent: Any, info: Info, **arguments: Any) -> Any:
        return info.context.load(rest, parent, arguments, _place(info.path), many=many)

    return resolve


def _place(path: Path | None) -> Place:
    """Where a field is in its operation: its path without the indexes of lists."""
    found: list[str] = []
    while path is not None:
        if isinstance(path.key, str):
            found.append(path.key)
        path = path.prev
    found.reverse()
    return tuple(found)


def _allowing(resolver: Resolver, auths: tuple[Auth, ...]) -> Resolver:
    def resolve(parent: Any, info: Info, **arguments: Any) -> Any:
        context: RequestContext = info.context.context
        if all(one.allows(context) for one in auths):
            return resolver(parent, info, **arguments)
        raise FieldError(errors.FORBIDDEN, "This caller may not have this field.")

    return resolve


def _type_resolver(discriminator: Discriminator) -> Resolver:
    def resolve(value: Any, _info: Info, _kind: Any) -> str | None:
        return discriminator.type_of(value)

    return resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The answer to one operation: `value` is the object of the response, `executed` is false for request errors.

    `caching` has what the answers of upstreams say, if any call was possible.
    """

    value: Mapping[str, Any]
    executed: bool = True
    cost: int = 0
    caching: Caching = field(default_factory=partial(Caching, VARY))


async def run(
    operation: Operation,
    variables: Mapping[str, Any],
    caller: Caller,
    context: RequestContext,
    limits: GraphqlLimits,
    timeout: float | None = None,  # noqa: ASYNC109 - it is divided among the calls
) -> Result:
    """Execute an operation. Raises Refused if it costs too much. Being cancelled cancels its calls.

    `timeout` is in seconds, for all calls together.
    """
    loader = Loader(caller, context, limits, timeout)
    try:
        return await run_with(operation, variables, loader)
    finally:
        await loader.close()


async def run_with(operation: Operation, variables: Mapping[str, Any], loader: Loader) -> Result:
    """Execute an operation by a loader, which several operations of one request may share. Raises Refused."""
    if operation.kind is OperationType.SUBSCRIPTION:
        text = "The response to a subscription is text/event-stream, which the request does not accept."
        raise errors.refused(errors.NOT_SUBSCRIBED, text)
    if operation.incremental:
        text = "The response to @defer and @stream is multipart/mixed, which the request does not accept."
        raise errors.refused(errors.NOT_INCREMENTAL, text)
    found = await begin(operation, variables, loader)
    assert isinstance(found, Result), "nothing is deferred"
    return found


async def execute_event(
    operation: Operation, variables: Mapping[str, Any], event: Any, loader: Loader
) -> Result:
    """The result of a subscription for one event."""
    found = await _executed_from(event, operation, variables, loader)
    assert isinstance(found, ExecutionResult), "nothing of a subscription is deferred"
    return Result(value=_response(found), executed=True)


async def begin(
    operation: Operation, variables: Mapping[str, Any], loader: Loader
) -> Result | ExperimentalIncrementalExecutionResults:
    """Execute an operation up to what it defers. Raises Refused."""
    cost = operation.cost(variables)
    result = await _executed_from(_ROOT, operation, variables, loader)
    if isinstance(result, ExperimentalIncrementalExecutionResults):
        return result
    return Result(value=_response(result), executed=_executed(result), cost=cost, caching=loader.caching)


async def _executed_from(
    root: Any, operation: Operation, variables: Mapping[str, Any], loader: Loader
) -> ExecutionResult | ExperimentalIncrementalExecutionResults:
    result = experimental_execute_incrementally(
        operation.schema.types,
        operation.document,
        root_value=root,
        context_value=loader,
        variable_values=dict(variables),
        hide_suggestions=True,
        is_awaitable=_is_awaitable,
        executor_class=MemberExecutor,
    )
    if isinstance(result, ExecutionResult | ExperimentalIncrementalExecutionResults):
        return result
    return await result


def _is_awaitable(value: Any) -> TypeGuard[Awaitable[Any]]:
    """True for what resolvers and the executor itself return to be awaited. It is called several times for each field."""
    return isinstance(value, _AWAITABLE)


def _executed(result: ExecutionResult) -> bool:
    """False if the variables were rejected, so that nothing ran: such errors have no path."""
    return result.data is not None or any(one.path is not None for one in result.errors or ())


def _response(result: ExecutionResult) -> dict[str, Any]:
    value: dict[str, Any] = {}
    if result.errors:
        value["errors"] = [errors.formatted(one) for one in result.errors]
    if _executed(result):
        value["data"] = result.data
    return value
