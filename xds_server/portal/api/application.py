"""The API as an ASGI application: tokens, scopes, bodies, ETags and problems around the declared operations."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import parse_qsl

import jsonschema_rs
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from xds_server.database import DatabaseFailed
from xds_server.marketplace import logins
from xds_server.marketplace.actor import VISITOR, Actor, not_found
from xds_server.marketplace.errors import Conflict, Forbidden, Invalid, MarketplaceError, NotFound, Stale
from xds_server.marketplace.store import Marketplace, Transaction
from xds_server.portal.api.declared import Asked, Operation
from xds_server.portal.api.document import PROBLEM, document
from xds_server.portal.api.operations import OPERATIONS, page_of
from xds_server.portal.attempts import Attempts
from xds_server.portal.gateway_view import GatewayView
from xds_server.usage.store import Store

log = logging.getLogger(__name__)

LONGEST_BODY = 1 << 20
"""Bytes of a body."""
_STATUSES: Mapping[type[MarketplaceError], tuple[int, str]] = {
    NotFound: (404, "Not found"),
    Forbidden: (403, "Forbidden"),
    Conflict: (409, "Conflict"),
    Stale: (412, "Changed by somebody else"),
    Invalid: (422, "Invalid value"),
}
_UNUSABLE = re.compile(r"[\ud800-\udfff]|(?<!\\)(?:\\\\)*\\u0000")
"""What no text of the store can hold, in JSON. A backslash that is a part of a text is written twice there."""
_ETAG = re.compile(r'[ \t]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|$)')
_VERSION = re.compile(r'"([1-9][0-9]{0,17})"')


class _Refused(Exception):  # noqa: N818 - a response
    def __init__(
        self, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.response = problem(status, title, detail, headers=headers)


def problem(
    status: int, title: str, detail: str, field: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """Return a problem (RFC 9457)."""
    body = {"title": title, "status": status, "detail": detail, **({"field": field} if field else {})}
    return JSONResponse(body, status, headers, media_type=PROBLEM)


def routes(
    marketplace: Marketplace,
    gateway: Callable[[], GatewayView],
    attempts: Attempts,
    server: Callable[[], str],
    usage: Store | None = None,
) -> list[Route]:
    """Return the routes of the API. `gateway` returns the newest view, `server` the address of the API, and
    `usage` is the usage store, None if there is none.

    `attempts` bounds tokens that are unknown; a bound of its own is for what one user may not do often.
    """

    bounds = Attempts(most=60, per_minute=30)

    def describe(_request: Request) -> Response:
        return JSONResponse(document(server()))

    found = [Route("/openapi.json", describe)]
    by_path: dict[str, list[Operation]] = {}
    for one in OPERATIONS:
        by_path.setdefault(one.path, []).append(one)
    for path, some in by_path.items():
        handlers = {one.method: _Handler(one, marketplace, gateway, attempts, bounds, usage) for one in some}
        found.append(Route(path, _by_method(handlers), methods=[*handlers]))
    return found


def _by_method(handlers: Mapping[str, _Handler]) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await handlers[method].handle(request)

    return handle


class _Handler:
    """Handles the requests of one operation."""

    def __init__(
        self,
        operation: Operation,
        marketplace: Marketplace,
        gateway: Callable[[], GatewayView],
        attempts: Attempts,
        bounds: Attempts,
        usage: Store | None,
    ) -> None:
        self._operation, self._marketplace = operation, marketplace
        self._gateway, self._attempts, self._bounds, self._usage = gateway, attempts, bounds, usage
        self._body = jsonschema_rs.validator_for(operation.body_schema, validate_formats=True)

    async def handle(self, request: Request) -> Response:
        try:
            actor = await run_in_threadpool(self._actor, request)
            body = await self._read(request) if self._operation.body is not None else {}
            return await run_in_threadpool(self._answer, actor, request, body)
        except _Refused as refused:
            return refused.response
        except MarketplaceError as error:
            status, title = _STATUSES[type(error)]
            return problem(status, title, error.message, error.field)
        except DatabaseFailed as failure:
            log.error("the marketplace store failed; the request is rejected error=%s", failure)
            return problem(
                503,
                "Store unavailable",
                "the store cannot be reached; try again",
                headers={"retry-after": "1"},
            )

    def _answer(self, actor: Actor, request: Request, body: Mapping[str, Any]) -> Response:
        operation = self._operation
        if any("\0" in one for one in request.path_params.values()):
            raise not_found("object")
        query = self._query(request)
        version = _version(request.headers.getlist("if-match"))
        if version is not None and operation.changes and not operation.versioned:
            raise _Refused(412, "No version", "what this changes has no ETag; leave If-Match out")
        self._checked(body)
        begin: Callable[[Actor], AbstractContextManager[Transaction]]
        begin = self._marketplace.begin if operation.changes else self._marketplace.read
        if operation.bounded:
            wait = self._bounds.wait(actor.user)
            if wait:
                raise _Refused(429, "Too many", "wait before you do this again", {"retry-after": str(wait)})
            self._bounds.failed(actor.user)
        with begin(actor) as now:
            asked = Asked(
                now=now,
                path=request.path_params,
                query=query,
                body=body,
                version=version,
                gateway=self._gateway(),
                usage=self._usage,
            )
            result = operation.call(asked)
        if operation.returns is None:
            return Response(status_code=operation.status)
        found = getattr(result, "version", None)
        headers = {"cache-control": "no-store", **({"etag": f'"{found}"'} if isinstance(found, int) else {})}
        return JSONResponse(page_of(result), operation.status, headers)

    def _actor(self, request: Request) -> Actor:
        """Return the user of the token, who may do what the token may. Raises _Refused."""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise _Refused(
                401,
                "Token missing",
                "send a token as Authorization: Bearer TOKEN; xds portal token makes one",
                {"www-authenticate": 'Bearer realm="portal"'},
            )
        with self._marketplace.read(VISITOR) as now:
            found = logins.bearer(now, secret.strip())
        if found is None:
            self._note_failure(request.client.host if request.client is not None else "")
            raise _Refused(
                401,
                "Token unknown",
                "the token is unknown, revoked or too old; make another one",
                {"www-authenticate": 'Bearer realm="portal", error="invalid_token"'},
            )
        actor, token = found
        if self._operation.scope not in token.scopes:
            raise _Refused(
                403,
                "Scope missing",
                f"the token needs the scope {self._operation.scope}; it has {', '.join(token.scopes)}",
                {"www-authenticate": f'Bearer error="insufficient_scope", scope="{self._operation.scope}"'},
            )
        return actor

    def _note_failure(self, client: str) -> None:
        """Bound unknown tokens of an address. Others of that address go on, because a token cannot be guessed. Raises _Refused."""
        wait = self._attempts.wait(client)
        if wait:
            raise _Refused(
                429, "Too many attempts", "wait before you try another token", {"retry-after": str(wait)}
            )
        self._attempts.failed(client)

    async def _read(self, request: Request) -> Mapping[str, Any]:
        """Return the body. Raises _Refused."""
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > LONGEST_BODY:
                raise _Refused(413, "Body too long", f"send at most {LONGEST_BODY} bytes")
        if not content and not self._operation.needs:
            return {}
        type_ = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if type_ != "application/json":
            raise _Refused(415, "Unsupported content type", "send application/json")
        try:
            value = json.loads(content, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise _Refused(400, "No JSON", f"the body is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise _Refused(422, "Invalid value", "the body must be an object")
        if _UNUSABLE.search(json.dumps(value, ensure_ascii=False)):
            raise _Refused(422, "Invalid value", "remove NUL and half characters (surrogates) from the texts")
        return value

    def _checked(self, body: Mapping[str, Any]) -> None:
        if self._operation.body is None:
            return
        try:
            error = next(iter(self._body.iter_errors(body)), None)
        except ValueError:
            raise _Refused(
                400, "Nested too deeply", "the body has arrays or objects in too many others"
            ) from None
        if error is not None:
            raise Invalid(error.message[:500], ".".join(map(str, error.instance_path)))

    def _query(self, request: Request) -> Mapping[str, Any]:
        """Return the parameters of the query. Raises Invalid."""
        schemas, found = self._operation.parameters, dict[str, Any]()
        raw = request.scope["query_string"].decode("latin-1")
        for name, value in parse_qsl(raw, keep_blank_values=True):
            if name not in schemas:
                known = ", ".join(sorted(schemas)) or "none"
                raise Invalid(f"there is no such parameter; the parameters are: {known}", name[:100])
            if name in found:
                raise Invalid("write it once", name)
            if "\0" in value:
                raise Invalid("remove NUL", name)
            found[name] = _typed(name, value, schemas[name])
        return found


def _typed(name: str, value: str, schema: Mapping[str, Any]) -> Any:
    typed: Any = value
    if schema["type"] == "integer":
        if not re.fullmatch(r"[0-9]{1,9}", value):
            raise Invalid("write a whole number", name)
        typed = int(value)
    for error in jsonschema_rs.validator_for(dict(schema)).iter_errors(typed):
        raise Invalid(error.message[:500], name)
    return typed


def _version(headers: Sequence[str]) -> frozenset[int] | None:
    """Return the versions of If-Match (RFC 9110, section 13.1.1), of which weak ones never match. Raises Invalid."""
    if not headers or [one.strip() for one in headers] == ["*"]:
        return None
    tags, at, text = list[str](), 0, ",".join(headers)
    while at < len(text) or not tags:
        found = _ETAG.match(text, at)
        if found is None:
            raise Invalid('write the ETag of the object, such as "3"', "If-Match")
        tags.append(found[1])
        at = found.end()
    return frozenset(int(one[1]) for one in map(_VERSION.fullmatch, tags) if one is not None)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
