"""The request of a sample call: examples of the document as path, query, headers and body."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from filters.api_documents.example_values import of_parameter, of_schema
from filters.api_documents.reference import ABSENT, ApiReference, MediaType, Operation, Parameter, Schema
from xds_server.catalog.credentials import Credential

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
_UNRESERVED = "-._~"
_SEPARATORS = {"spaceDelimited": "%20", "pipeDelimited": "|"}
_SCALARS = {
    "integer": "Int",
    "number": "Float",
    "string": "String",
    "boolean": "Boolean",
    "string (ID)": "ID",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """A request. `headers` are in order, with that of the credential. `body` is a value for JSON and forms, else a text.

    `content_type` is "" without a body. The query is a part of `url`, which never has a credential.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = ""
    body: Any = ABSENT

    @property
    def is_json(self) -> bool:
        """True if the body is a value of JSON."""
        return self.content_type == JSON or self.content_type.endswith("+json")


def sample_request(
    operation: Operation, reference: ApiReference, base_url: str, credential: Credential | None
) -> SampleRequest:
    """Return a sample request of an operation of OpenAPI or GraphQL."""
    if reference.kind == "graphql":
        return _graphql(operation, reference, base_url, credential)
    secret = {
        (one.where, one.parameter.lower()) for one in reference.security.values() if one.kind == "apiKey"
    }
    own = credential.header if credential is not None else ""
    wanted = [
        one
        for one in operation.parameters
        if (one.where, one.name.lower()) not in secret
        and not (one.where == "header" and one.name.lower() == own)
        and (one.required or any(example.value is not ABSENT for example in one.examples))
    ]
    values = [(one, of_parameter(one, reference)) for one in wanted]
    values = [(one, value) for one, value in values if value is not ABSENT]
    path = operation.path
    for one, value in values:
        if one.where == "path":
            path = path.replace(f"{{{one.name}}}", _in_path(one, value))
    query = "&".join(
        text
        for one, value in values
        if one.where in ("query", "querystring")
        for text in _in_query(one, value)
    )
    content_type, body = _body(operation, reference)
    headers = [*_credential(credential)]
    headers += [(one.name.lower(), _in_header(one, value)) for one, value in values if one.where == "header"]
    cookies = [f"{one.name}={quote(_text(value))}" for one, value in values if one.where == "cookie"]
    if credential is not None and credential.cookie:
        cookies.insert(0, f"{credential.cookie}={credential.value}")
    if cookies:
        headers.append(("cookie", "; ".join(cookies)))
    if content_type and content_type != MULTIPART:
        headers.append(("content-type", content_type))
    accept = _accept(operation)
    if accept:
        headers.append(("accept", accept))
    return SampleRequest(
        method=operation.method,
        url=f"{base_url}{_escaped(path)}{'?' + query if query else ''}",
        headers=tuple((name, _one_line(value)) for name, value in headers),
        content_type=content_type,
        body=body,
    )


def _credential(credential: Credential | None) -> Iterator[tuple[str, str]]:
    if credential is not None and credential.header:
        yield credential.header, credential.value


def _accept(operation: Operation) -> str:
    """Return the media type of the first successful response, unless it is JSON, which servers prefer anyway."""
    for one in operation.responses:
        if one.status.startswith("2") and one.content:
            kinds = [media.name for media in one.content]
            return "" if JSON in kinds or "*" in kinds[0] else kinds[0]
    return ""


# The written form of parameters (OpenAPI 3.2, section 4.12.2) -----------------------------------------------------


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _quoted(value: Any) -> str:
    return quote(_text(value), safe=_UNRESERVED)


def _one_line(value: str) -> str:
    return " ".join(value.split())


def _pairs(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return ((quote(name, safe=_UNRESERVED), _quoted(one)) for name, one in value.items())


def _in_path(one: Parameter, value: Any) -> str:
    first, separator = {"label": (".", "."), "matrix": (";", ";")}.get(one.style, ("", ","))
    if one.json:
        return _quoted(value)
    if isinstance(value, dict):
        pairs = list(_pairs(value))
        if one.explode:
            parts = [f"{name}={text}" for name, text in pairs]
            return first + separator.join(parts)
        flat = ",".join(text for pair in pairs for text in pair)
        return f";{one.name}={flat}" if one.style == "matrix" else first + flat
    items = [_quoted(item) for item in value] if isinstance(value, list) else [_quoted(value)]
    if one.style == "matrix":
        if one.explode:
            return "".join(f";{one.name}={item}" for item in items)
        return f";{one.name}={','.join(items)}"
    return first + (separator if one.explode else ",").join(items)


def _in_query(one: Parameter, value: Any) -> Iterator[str]:
    name = quote(one.name, safe=_UNRESERVED)
    if one.where == "querystring":
        yield (
            "&".join(f"{key}={text}" for key, text in _pairs(value))
            if isinstance(value, dict)
            else _quoted(value)
        )
    elif one.json:
        yield f"{name}={_quoted(value)}"
    elif isinstance(value, dict):
        if one.style == "deepObject":
            yield from (f"{name}%5B{key}%5D={text}" for key, text in _pairs(value))
        elif one.explode:
            yield from (f"{key}={text}" for key, text in _pairs(value))
        else:
            yield f"{name}={','.join(text for pair in _pairs(value) for text in pair)}"
    elif isinstance(value, list):
        items = [_quoted(item) for item in value]
        if one.explode:
            yield from (f"{name}={item}" for item in items)
        else:
            separator = _SEPARATORS.get(one.style, ",")
            yield f"{name}={quote(separator, safe=',%').join(items)}"
    else:
        yield f"{name}={_quoted(value)}"


def _in_header(one: Parameter, value: Any) -> str:
    if one.json or not isinstance(value, dict | list):
        return _text(value)
    if isinstance(value, list):
        return ",".join(map(_text, value))
    parts = (
        f"{name}={_text(item)}" if one.explode else f"{name},{_text(item)}" for name, item in value.items()
    )
    return ",".join(parts)


def _escaped(path: str) -> str:
    """Return a path in which nothing ends it early: templates without a value, and characters that no URL has."""
    return quote(path, safe="/%:@!$&'()*+,;=" + _UNRESERVED)


# Bodies --------------------------------------------------------------------------------------------------------------


def _body(operation: Operation, reference: ApiReference) -> tuple[str, Any]:
    """Return the content type and the value of the body, or "" and ABSENT."""
    content = operation.body.content if operation.body is not None else ()
    if not content:
        return "", ABSENT
    media = min(content, key=lambda one: _preference(one.name))
    kind = media.name.partition(";")[0].strip().lower()
    value = example_of(media, reference)
    if kind == JSON or kind.endswith("+json") or (kind in (FORM, MULTIPART) and isinstance(value, dict)):
        return kind, None if value is ABSENT else value
    return kind, "" if value is ABSENT else _text(value)


def _preference(kind: str) -> int:
    name = kind.lower()
    order = (name.startswith(JSON), name.endswith("+json"), name.startswith(FORM), name.startswith(MULTIPART))
    return next((at for at, found in enumerate(order) if found), len(order))


def example_of(media: MediaType, reference: ApiReference) -> Any:
    """Return the first example of a body of a request, or one that fits its schema."""
    for one in media.examples:
        if one.value is not ABSENT:
            return one.value
    return of_schema(media.schema, reference, "request")


# GraphQL -------------------------------------------------------------------------------------------------------------


def _graphql(
    operation: Operation, reference: ApiReference, base_url: str, credential: Credential | None
) -> SampleRequest:
    """Return a POST with the operation (https://graphql.github.io/graphql-over-http/draft/)."""
    wanted = [one for one in operation.parameters if one.required]
    variables = {one.name: of_parameter(one, reference) for one in wanted}
    declared = ", ".join(f"${one.name}: {_sdl_type(one.schema)}" for one in wanted)
    passed = ", ".join(f"{one.name}: ${one.name}" for one in wanted)
    schema = operation.responses[0].content[0].schema
    query = (
        f"{operation.method} {operation.path[:1].upper()}{operation.path[1:]}{f'({declared})' if declared else ''} {{\n"
        f"  {operation.path}{f'({passed})' if passed else ''}{_selection(schema, reference, 1)}\n}}"
    )
    body: dict[str, Any] = {"query": query}
    if variables:
        body["variables"] = {name: None if one is ABSENT else one for name, one in variables.items()}
    headers = (*_credential(credential), ("content-type", JSON))
    url = base_url or operation.path
    return SampleRequest(method="POST", url=url, headers=headers, content_type=JSON, body=body)


def _sdl_type(schema: Schema) -> str:
    required = "" if "null" in schema.types else "!"
    if schema.ref:
        return f"{schema.ref}{required}"
    if "array" in schema.types and schema.items is not None:
        return f"[{_sdl_type(schema.items)}]{required}"
    kinds = [one for one in schema.types if one != "null"]
    return f"{_SCALARS.get(kinds[0] if kinds else '', 'String')}{required}"


def _selection(schema: Schema, reference: ApiReference, depth: int) -> str:
    """Return the fields of a type that need no arguments, and at most two levels of types within."""
    while schema.items is not None and not schema.ref:
        schema = schema.items
    kind = reference.resolved(schema)
    if kind.one_of:
        return " {\n" + "  " * (depth + 1) + "__typename\n" + "  " * depth + "}"
    if "object" not in kind.types:
        return ""
    lines = []
    for one in kind.properties:
        if any(argument.required for argument in one.arguments):
            continue
        inner = one.schema
        while inner.items is not None and not inner.ref:
            inner = inner.items
        composed = reference.resolved(inner)
        if composed.one_of or "object" in composed.types:
            if depth < 2:
                lines.append(f"{one.name}{_selection(one.schema, reference, depth + 1)}")
        else:
            lines.append(one.name)
    indent = "  " * (depth + 1)
    body = "".join(f"{indent}{line}\n" for line in lines or ["__typename"])
    return " {\n" + body + "  " * depth + "}"


def host_of(base_url: str) -> tuple[str, bool]:
    """Return host and port of an address, as clients of gRPC take them, and True if it has no TLS."""
    parts = urlsplit(base_url)
    plain = parts.scheme == "http"
    default = 80 if plain else 443
    return f"{parts.hostname or 'api.example.com'}:{parts.port or default}", plain
