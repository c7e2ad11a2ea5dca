"""The endpoint of one schema: a request of GraphQL over HTTP becomes a response. It does no IO but the calls of a `Caller`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import OperationType

from filters.graphql import errors
from filters.graphql.errors import Refused, refused
from filters.graphql.operations import Operation, Operations
from filters.graphql.request_context import RequestContext
from filters.graphql.settings import GraphqlLimits
from filters.model.limits import GRAPHQL_COST_HEADER
from xds_server.composer.caching import Caching
from xds_server.composer.calls import Caller
from xds_server.composer.graphql import event_stream, execution, incremental, requests
from xds_server.composer.graphql.execution import Result
from xds_server.composer.graphql.loading import Loader
from xds_server.composer.graphql.requests import (
    Asked,
    HttpError,
    HttpRequest,
    HttpResponse,
    PersistedDocuments,
)
from xds_server.composer.graphql.subscriptions import Subscriber, results


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One schema with its limits and persisted documents. It is never changed: a new schema is a new endpoint.

    `timeout` is in seconds, for all calls of a request together.
    """

    operations: Operations
    limits: GraphqlLimits
    timeout: float | None = None
    persisted: PersistedDocuments = field(default_factory=lambda: PersistedDocuments(by_hash={}))

    async def respond(self, request: HttpRequest, caller: Caller, context: RequestContext) -> HttpResponse:
        """The response to a request. Being cancelled cancels the calls."""
        media = requests.media_type(request.headers.get("accept"))
        if media is None:
            return _response(406, requests.JSON, _failed("No media type of the response is acceptable."))
        try:
            asked = requests.read(request, self.limits.request)
            if isinstance(asked, list):
                return await self._several(asked, media, caller, context)
            operation = self._prepared(asked)
            if request.method == "GET" and operation.kind is OperationType.MUTATION:
                raise HttpError(405, "A mutation needs POST.", {"allow": "POST"})
            variables = operation.declared(asked.variables)
            if operation.kind is OperationType.SUBSCRIPTION and media == requests.EVENTS:
                return self._subscribed(operation, variables, Subscriber(caller, context, self.limits))
            if operation.incremental and media == requests.MULTIPART:
                return await self._in_parts(operation, variables, caller, context)
            result = await execution.run(operation, variables, caller, context, self.limits, self.timeout)
        except HttpError as error:
            return _response(error.status, media, _failed(str(error)), error.headers)
        except Refused as error:
            return _response(_status(media, executed=False), media, _refusal(error))
        if media == requests.EVENTS and result.executed:
            return event_stream.response(event_stream.whole(result.value), result.cost)
        return _response(
            _status(media, executed=result.executed),
            media,
            result.value,
            {GRAPHQL_COST_HEADER: str(result.cost)},
            result.caching,
        )

    def _subscribed(
        self, operation: Operation, variables: Mapping[str, Any], subscriber: Subscriber
    ) -> HttpResponse:
        """The response to a subscription. Raises Refused."""
        cost = operation.cost(variables)
        found = results(operation, variables, subscriber)
        return event_stream.response(event_stream.events(found), cost)

    async def _in_parts(
        self, operation: Operation, variables: Mapping[str, Any], caller: Caller, context: RequestContext
    ) -> HttpResponse:
        """The response to an operation with `@defer` or `@stream`. Raises Refused."""
        loader = Loader(caller, context, self.limits, self.timeout)
        try:
            found = await execution.begin(operation, variables, loader)
        except BaseException:
            await loader.close()
            raise
        if isinstance(found, Result):
            await loader.close()
            media = requests.MULTIPART
            executed = _status(media, executed=found.executed)
            return _response(executed, media, found.value, caching=found.caching)
        headers = {
            "content-type": incremental.CONTENT_TYPE,
            **requests.NOT_STORED,
            GRAPHQL_COST_HEADER: str(operation.cost(variables)),
        }
        return HttpResponse(status=200, headers=headers, body=incremental.parts(found, loader))

    def _prepared(self, asked: Asked) -> Operation:
        return self.operations.prepare(self.persisted.document(asked), asked.name)

    async def _several(
        self, asked: list[Asked], media: str, caller: Caller, context: RequestContext
    ) -> HttpResponse:
        """The response to a list: a list. Mutations in it run in its order. Raises Refused."""
        most = self.limits.operations
        if len(asked) > most:
            text = f"The request has {len(asked)} operations, and at most {most} are allowed."
            raise refused(errors.TOO_MANY_OPERATIONS, text, limit=most)
        loader = Loader(caller, context, self.limits, self.timeout)
        prepared = [self._prepared_or_refused(one) for one in asked]
        try:
            if any(isinstance(one, Operation) and one.kind is OperationType.MUTATION for one in prepared):
                results = [await self._one(*pair, loader) for pair in zip(prepared, asked, strict=True)]
            else:
                results = await asyncio.gather(
                    *(self._one(*pair, loader) for pair in zip(prepared, asked, strict=True))
                )
        finally:
            await loader.close()
        cost = sum(one.cost for one in results)
        values = [one.value for one in results]
        return _response(200, media, values, {GRAPHQL_COST_HEADER: str(cost)}, loader.caching)

    def _prepared_or_refused(self, asked: Asked) -> Operation | Refused:
        try:
            return self._prepared(asked)
        except Refused as error:
            return error

    async def _one(self, operation: Operation | Refused, asked: Asked, loader: Loader) -> Result:
        if isinstance(operation, Refused):
            return Result(value=_refusal(operation), executed=False)
        try:
            return await execution.run_with(operation, operation.declared(asked.variables), loader)
        except Refused as error:
            return Result(value=_refusal(error), executed=False)


def _status(media: str, *, executed: bool) -> int:
    """The status for a well-formed request: with application/json it is 200 for request errors too."""
    return 200 if executed or media == requests.JSON else 400


def _failed(text: str) -> Mapping[str, Any]:
    return {"errors": [{"message": text, "extensions": {"code": "BAD_REQUEST"}}]}


def _refusal(error: Refused) -> Mapping[str, Any]:
    return {"errors": [errors.formatted(one) for one in error.errors]}


def _response(
    status: int,
    media: str,
    value: Any,
    headers: Mapping[str, str] | None = None,
    caching: Caching | None = None,
) -> HttpResponse:
    media = requests.RESPONSE_JSON if media in (requests.MULTIPART, requests.EVENTS) else media
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    failed = any("errors" in one for one in (value if isinstance(value, list) else [value]))
    stored = (caching or Caching(requests.VARY)).headers(failed=failed)
    return HttpResponse(
        status=status,
        headers={"content-type": f"{media}; charset=utf-8", **stored, **(headers or {})},
        body=body,
    )
