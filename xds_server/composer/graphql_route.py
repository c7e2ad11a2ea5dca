"""A route with GraphQL, as the control plane sends it. It imports graphql-core, which takes time and memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from filters.graphql import schema
from filters.graphql.faults import SchemaFaults
from filters.graphql.operations import Operations
from filters.graphql.request_context import RequestContext
from filters.graphql.schema import SdlDocument
from filters.graphql.settings import GraphqlLimits
from filters.rules import Refused
from xds_server.composer.calls import Caller
from xds_server.composer.graphql import execution
from xds_server.composer.graphql.endpoint import Endpoint
from xds_server.composer.graphql.requests import HttpRequest, PersistedDocuments
from xds_server.composer.messages import Request, Response


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphqlRoute:
    """Answers the requests of a route. It is never changed, so requests under way keep the schema that they began with."""

    endpoint: Endpoint
    max_answer: int
    retry: Mapping[str, str]

    @property
    def growth(self) -> int:
        """Answers become objects of Python: a text takes as much as its JSON, lists of small objects 9 to 16 times as much."""
        return 10

    async def respond(self, request: Request, caller: Caller) -> Response:
        """Answer a request."""
        _, _, query = request.path.partition("?")
        found = HttpRequest(method=request.method, query=query, headers=request.headers, body=request.body)
        response = await self.endpoint.respond(found, caller, self._context(request))
        return Response(
            status=response.status,
            headers=response.headers.items(),
            body=response.body,
            outcome="complete" if response.status < 400 else "rejected",
        )

    def _context(self, request: Request) -> RequestContext:
        found: Mapping[str, Any] = request.caller
        return RequestContext(
            consumer=found.get("consumer"),
            plan=found.get("plan"),
            claims=found.get("claims") or {},
            headers=request.headers,
            for_calls={**request.for_calls, "host": request.headers.get("host", "")},
            for_safe_calls=self.retry,
            request_id=request.id,
        )


def load(content: bytes) -> GraphqlRoute:
    """Return the route of a rule's content. Raises Refused."""
    try:
        found = json.loads(content)
        limits = GraphqlLimits(**{one.name: found["limits"][one.name] for one in fields(GraphqlLimits)})
        documents = [SdlDocument(name=name, text=text) for name, text in found["documents"]]
        bound = execution.bind(schema.read(documents))
    except (ValueError, KeyError, SchemaFaults) as error:
        raise Refused(f"the schema cannot be read: {error}") from None
    operations = Operations(
        bound, limits, introspection=found["introspection"], suggestions=found["suggestions"]
    )
    return GraphqlRoute(
        endpoint=Endpoint(
            operations=operations,
            limits=limits,
            timeout=found["timeout"],
            persisted=PersistedDocuments.of(tuple(found["persisted"]), only=found["only_persisted"]),
        ),
        max_answer=found["max_answer"],
        retry=found["retry"],
    )
