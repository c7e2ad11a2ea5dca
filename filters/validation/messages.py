"""Requests and responses compared with a schema of bodies or with an OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from filters.validation import parameters
from filters.validation.faults import MOST_FAULTS, Fault
from filters.validation.openapi import FORM, Body, OpenApi, Operation, best, is_json, status_of
from filters.validation.parameters import ABSENT, Parameter
from filters.validation.schemas import MalformedError, Schema, parsed

WITH_BODY = ("PATCH", "POST", "PUT", "QUERY")
"""Methods whose requests need a body if a schema of bodies is all that is known of them."""
BODYLESS = (204, 205, 304)
CHARSET = re.compile(r'charset\s*=\s*"?([^";,\s]*)', re.IGNORECASE)
UTF8 = ("utf-8", "utf8", "us-ascii")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a message is invalid. `reason` is the named reason. `headers` belong to the response, such as Allow."""

    status: int
    reason: str
    detail: str
    faults: tuple[Fault, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


INVALID, INVALID_RESPONSE = "invalid_request", "invalid_response"


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request: `path` is normalized and still escaped, `body` is true if a body follows."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bool


class BodySchema:
    """A schema for the bodies of a route, of requests and of responses with a status of 2xx. None accepts everything."""

    def __init__(self, request: Schema | None, response: Schema | None) -> None:
        self._request, self._response = request, response

    def head(self, head: Head) -> Rejection | None:
        """Why a request is rejected before its body arrives, or None."""
        if self._request is None:
            return None
        if not head.body:
            if head.method not in WITH_BODY:
                return None
            return _invalid([Fault("a body is required")])
        kind = head.headers.get("content-type", "")
        return _charset(kind) if is_json(kind) else _media_type(kind, ("application/json",))

    def compares_body(self, head: Head) -> bool:
        """True if the body of a request has a schema."""
        return self._request is not None

    def body(self, head: Head, body: bytes) -> Rejection | None:
        """Why a request is rejected for its body, or None."""
        return None if self._request is None else _body(self._request, body)

    def compares_response_body(self, head: Head, status: int, headers: Mapping[str, str]) -> bool:
        """True if the body of a response has a schema."""
        return self._response is not None and 200 <= status < 300

    def response(
        self, head: Head, status: int, headers: Mapping[str, str], body: bytes | None
    ) -> Rejection | None:
        """Why a response is invalid, or None. `body` is None if it has none."""
        if self._response is None or not 200 <= status < 300 or body is None or head.method == "HEAD":
            return None
        if not is_json(headers.get("content-type", "")):
            return _invalid_response(
                [Fault(f"the media type is {_shown(headers.get('content-type', ''))} and not JSON")]
            )
        return _of_response(_charset(headers.get("content-type", "")) or _body(self._response, body))


class Described:
    """An OpenAPI document for the requests and responses of a route."""

    def __init__(self, document: OpenApi) -> None:
        self._document = document

    def head(self, head: Head) -> Rejection | None:
        """Why a request is rejected before its body arrives, or None."""
        found = self._document.find(head.method, head.path)
        if found is None:
            return Rejection(404, "not_found", "The API has no such path.")
        if not isinstance(found[0], Operation):
            allow = ", ".join(str(one) for one in found)
            detail = "The API has no such method for this path."
            return Rejection(405, "method_not_allowed", detail, headers=(("allow", allow),))
        operation, values = found
        faults = list(islice(_parameters(operation, values, head), MOST_FAULTS))
        if operation.body is not None:
            if not head.body and operation.body.required:
                faults.append(Fault("a body is required"))
            elif head.body and operation.body.schemas:
                kind = head.headers.get("content-type", "")
                if best(operation.body.schemas, kind) is None and not faults:
                    return _media_type(kind, tuple(operation.body.schemas))
        if faults:
            return _invalid(faults)
        compared = head.body and _has_schema(operation.body, head.headers)
        return _charset(head.headers.get("content-type", "")) if compared else None

    def compares_body(self, head: Head) -> bool:
        """True if the body of a request has a schema."""
        operation = self._operation(head)
        return operation is not None and _has_schema(operation.body, head.headers)

    def compares_response_body(self, head: Head, status: int, headers: Mapping[str, str]) -> bool:
        """True if the body of a response has a schema."""
        operation = self._operation(head)
        key = None if operation is None else status_of(operation.responses, status)
        return operation is not None and key is not None and _has_schema(operation.responses[key][0], headers)

    def body(self, head: Head, body: bytes) -> Rejection | None:
        """Why a request is rejected for its body, or None."""
        operation = self._operation(head)
        if operation is None or operation.body is None:
            return None
        return _described(operation.body, head.headers.get("content-type", ""), body)

    def response(
        self, head: Head, status: int, headers: Mapping[str, str], body: bytes | None
    ) -> Rejection | None:
        """Why a response is invalid, or None. `body` is None if it has none."""
        operation = self._operation(head)
        if operation is None or not operation.responses:
            return None
        key = status_of(operation.responses, status)
        if key is None:
            return _invalid_response([Fault(f"the status {status} is not described")])
        described, declared = operation.responses[key]
        faults = [
            fault
            for one in declared
            for fault in one.faults(parameters.in_header(one, headers.get(one.name.lower())))
        ]
        if faults:
            return _invalid_response(faults[:MOST_FAULTS])
        if not described.schemas or body is None or head.method == "HEAD" or status in BODYLESS:
            return None
        kind = headers.get("content-type", "")
        if best(described.schemas, kind) is None:
            return _invalid_response([Fault(f"the media type {_shown(kind)} is not described")])
        wrong = _charset(kind) if _has_schema(described, headers) else None
        return _of_response(wrong or _described(described, kind, body))

    def _operation(self, head: Head) -> Operation | None:
        found = self._document.find(head.method, head.path)
        return found[0] if found is not None and isinstance(found[0], Operation) else None


Validator = BodySchema | Described


def _has_schema(body: Body | None, headers: Mapping[str, str]) -> bool:
    name = None if body is None else best(body.schemas, headers.get("content-type", ""))
    return body is not None and name is not None and body.schemas[name] is not None


def _parameters(operation: Operation, values: Mapping[str, str], head: Head) -> Iterator[Fault]:
    pairs = parameters.query_pairs(head.query)
    cookies = parameters.cookie_pairs(head.headers.get("cookie", ""))
    for one in operation.parameters:
        yield from one.faults(_written(one, values, head, pairs, cookies))


def _written(
    one: Parameter,
    values: Mapping[str, str],
    head: Head,
    pairs: Sequence[tuple[str, str]],
    cookies: Sequence[tuple[str, str]],
) -> Any:
    if one.where == "path":
        return parameters.in_path(one, values[one.name]) if one.name in values else ABSENT
    if one.where == "query":
        return parameters.in_query(one, pairs)
    if one.where == "querystring":
        return parameters.in_querystring(one, head.query)
    if one.where == "cookie":
        return parameters.in_cookie(one, cookies)
    return parameters.in_header(one, head.headers.get(one.name.lower()))


def _described(described: Body, kind: str, body: bytes) -> Rejection | None:
    name = best(described.schemas, kind)
    schema = described.schemas[name] if name is not None else None
    if schema is None:
        return None
    if is_json(kind):
        return _body(schema, body)
    if name == FORM:
        return _form(schema, described.forms.get(FORM, ()), body)
    if kind.partition("/")[0].strip().lower() == "text":
        return _compared(schema, body.decode("utf-8", "replace"))
    return None


def _form(schema: Schema, members: Sequence[Parameter], body: bytes) -> Rejection | None:
    pairs = parameters.query_pairs(body.decode("utf-8", "replace"))
    found = {one.name: parameters.in_query(one, pairs) for one in members}
    value = {name: parameters.likely(one) for name, one in found.items() if one is not ABSENT}
    for name, text in parameters.decoded(pairs):
        if name not in found:
            value.setdefault(name, text)
    return _compared(schema, value)


def _body(schema: Schema, body: bytes) -> Rejection | None:
    try:
        value = parsed(body)
    except MalformedError as error:
        return Rejection(400, "malformed_body", f"The body is not JSON: {error}.")
    return _compared(schema, value)


def _compared(schema: Schema, value: Any) -> Rejection | None:
    try:
        faults = list(schema.faults(value))
    except (ValueError, RecursionError):
        return Rejection(400, "malformed_body", "The body is nested too deeply.")
    return _invalid(faults) if faults else None


def _invalid(faults: Sequence[Fault]) -> Rejection:
    return Rejection(400, INVALID, "The request does not match the schema of this route.", tuple(faults))


def _invalid_response(faults: Sequence[Fault]) -> Rejection:
    detail = "The upstream's response does not match the schema of this route."
    return Rejection(500, INVALID_RESPONSE, detail, tuple(faults))


def _of_response(found: Rejection | None) -> Rejection | None:
    if found is None:
        return None
    return _invalid_response(found.faults or [Fault(found.detail)])


def _charset(kind: str) -> Rejection | None:
    """Why a text in this charset is not compared, or None: all are read as UTF-8 here, and elsewhere they may be read otherwise."""
    for charset in CHARSET.findall(kind):
        if charset.lower() not in UTF8:
            return Rejection(415, "unsupported_charset", f"The charset is {_shown(charset)} and not utf-8.")
    return None


def _media_type(kind: str, known: Sequence[str]) -> Rejection:
    named = f"The media type {_shown(kind)}" if kind else "The media type is missing. It"
    detail = (
        f"{named} is not one of {', '.join(known)}."
        if kind
        else f"{named} must be one of {', '.join(known)}."
    )
    return Rejection(415, "unsupported_media_type", detail, headers=(("accept", ", ".join(known)),))


def _shown(kind: str) -> str:
    return repr(kind[:80])
