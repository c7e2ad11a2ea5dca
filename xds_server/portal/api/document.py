"""The OpenAPI 3.1 document of the API."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from xds_server.portal.api import schemas
from xds_server.portal.api.declared import Operation
from xds_server.portal.api.operations import EXTENDED, LISTS, OPERATIONS, PLAIN

PROBLEM = "application/problem+json"
_ERRORS = {
    "400": "The request cannot be read.",
    "401": "The token is missing, unknown, revoked or too old.",
    "403": "The token has not this scope, or the user may not do this.",
    "404": "There is no such object, or the user may not know of it.",
    "409": "The state of an object does not allow this, or there is such an object already.",
    "412": "Somebody else has changed the object since it was read (If-Match).",
    "413": "The body is too long.",
    "415": "The body is not application/json.",
    "422": "A value cannot be used; `field` says which.",
    "429": "Too many requests; `Retry-After` says when to try again.",
    "503": "The store cannot be reached; try again.",
}
_SLOTS = {"enum": ["primary", "secondary"]}


def document(server: str) -> dict[str, Any]:
    """Return the document of the API at an address."""
    paths: dict[str, dict[str, Any]] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Developer portal",
            "version": "1",
            "description": "Everything that the pages of the portal do. Lists have pages: `next` is `after` of the next "
            "one. `ETag` of an object is its version; with `If-Match`, a change of an older version is rejected.",
        },
        "servers": [{"url": server}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": dict(_schemas()),
            "responses": {status: _error(text) for status, text in _ERRORS.items()},
        },
    }


def _schemas() -> Iterator[tuple[str, Any]]:
    for name, record in schemas.SHOWN.items():
        yield name, schemas.of_record(record)
    for name, (base, more) in EXTENDED.items():
        plain = schemas.of_record(schemas.SHOWN[base])
        properties = {**plain["properties"], **{key: dict(value) for key, value in more.items()}}
        yield name, {**plain, "properties": properties, "required": sorted(properties)}
    yield from PLAIN.items()
    for name, item in LISTS.items():
        yield name, {"type": "array", "items": schemas.reference(item)}
    for name in sorted({one.returns for one in OPERATIONS if one.lists and one.returns}):
        items = {"type": "array", "items": schemas.reference(name)}
        following = {"anyOf": [{"type": "string"}, {"type": "null"}]}
        yield (
            f"{name}Page",
            {
                "type": "object",
                "properties": {"items": items, "next": following},
                "required": ["items", "next"],
                "additionalProperties": False,
            },
        )
    yield (
        "Problem",
        {
            "type": "object",
            "description": "RFC 9457.",
            "properties": {
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "field": {"type": "string"},
            },
            "required": ["title", "status", "detail"],
        },
    )


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": {PROBLEM: {"schema": schemas.reference("Problem")}}}


def _operation(one: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "tags": [one.tag],
        "description": f"Needs the scope `{one.scope}`.",
        "parameters": list(_parameters(one)),
        "responses": {str(one.status): _answer(one), **_errors(one)},
    }
    if one.body is not None:
        content = {"application/json": {"schema": one.body_schema}}
        found["requestBody"] = {"required": bool(one.needs), "content": content}
    return found


def _errors(one: Operation) -> Mapping[str, Any]:
    never = set() if one.body is not None else {"413", "415"}
    if not one.changes:
        never |= {"409", "412"}
    return {status: {"$ref": f"#/components/responses/{status}"} for status in _ERRORS if status not in never}


def _parameters(one: Operation) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)\}", one.path):
        schema = {"type": "string", "minLength": 1, "maxLength": 320, **(_SLOTS if name == "slot" else {})}
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    for name, of in one.parameters.items():
        yield {"name": name, "in": "query", "schema": dict(of)}
    if one.versioned:
        tag = {"type": "string", "pattern": r'^"[1-9][0-9]{0,17}"$'}
        yield {"name": "If-Match", "in": "header", "schema": tag}


def _answer(one: Operation) -> dict[str, Any]:
    if one.returns is None:
        return {"description": "Done."}
    name = f"{one.returns}Page" if one.lists else one.returns
    return {"description": "Done.", "content": {"application/json": {"schema": schemas.reference(name)}}}
