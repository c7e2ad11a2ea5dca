"""Values of calls: the sources of a request, its caller and earlier answers, and the calls that are made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from xds_server.composer.aggregate_plan import PlannedCall
from xds_server.composer.json_values import MISSING, Json, encode, filled, text
from xds_server.composer.messages import Request

_NOT_IN_HEADERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class NoValue(Exception):  # noqa: N818 - an outcome of a call, as data
    """A call cannot be made. `of_request` is true if the request lacks the value, and not an answer."""

    def __init__(self, what: str, *, of_request: bool) -> None:
        super().__init__(f"no value for {what}")
        self.of_request = of_request


class Values:
    """The values of one request. `answers` grows while calls end; `body` is None if no source needs it."""

    __slots__ = ("_query", "_request", "answers", "body")

    def __init__(self, request: Request, body: Json | None) -> None:
        self._request = request
        self._query: Mapping[str, str] | None = None
        self.answers: dict[str, Json] = {}
        self.body = body

    def __call__(self, source: Mapping[str, Any]) -> Any:
        """Return the value of a source, MISSING if there is none: a text, or what Json.find returns."""
        request = self._request
        match source["kind"]:
            case "call":
                answer = self.answers.get(source["call"])
                return MISSING if answer is None else answer.find(source["steps"])
            case "path":
                return self._segment(source["segment"])
            case "query":
                return self._parameters().get(source["name"], MISSING)
            case "body":
                return MISSING if self.body is None else self.body.find(source["steps"])
            case "claim":
                return self._claim(source["paths"])
            case "header":
                return _utf8(request.headers.get(source["name"]))
            case "consumer" | "plan" as kind:
                return request.caller.get(kind, MISSING)
            case "ip":
                return request.client_address or MISSING
            case "host":
                return _utf8(request.headers.get("host"))
            case "request_id":
                return request.id or MISSING
            case "method":
                return request.method
            case _:
                return source["name"]

    def _segment(self, number: int) -> str:
        segments = self._request.path.partition("?")[0].split("/")
        return _decoded(segments[number]) if number < len(segments) else ""

    def _parameters(self) -> Mapping[str, str]:
        if self._query is None:
            found: dict[str, str] = {}
            for one in self._request.path.partition("?")[2].split("&"):
                name, _, value = one.partition("=")
                found.setdefault(_decoded(name.replace("+", " ")), _decoded(value.replace("+", " ")))
            self._query = found
        return self._query

    def _claim(self, paths: list[list[str]]) -> Any:
        claims = self._request.caller.get("claims")
        for path in paths:
            value: Any = claims
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if value is not None:
                return value
        return MISSING


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.encode("latin-1")).decode("utf-8", "replace")


def _utf8(header: str | None) -> Any:
    return MISSING if header is None else header.encode("latin-1").decode("utf-8", "replace")


def path_of(call: PlannedCall, values: Values) -> str:
    """Return the path and query of a call. Raises NoValue.

    No value changes which path that is: slashes are escaped, and a value that would make a segment of dots, or none, has
    no use.
    """
    path = "".join(
        part if isinstance(part, str) else quote(_needed(part, values), safe="") for part in call.path
    )
    before, mark, query = path.partition("?")
    if len(call.path) > 1:
        written = "".join(part if isinstance(part, str) else "x" for part in call.path).partition("?")[0]
        for segment, intended in zip(before.split("/"), written.split("/"), strict=True):
            if segment in (".", "..") or (segment == "" and intended != ""):
                raise NoValue("a segment of the path", of_request=True)
    parameters = [query] if query else []
    for name, template in call.query:
        value = filled(template, values)
        if value is None:
            continue
        if (shown := text(value)) is None:
            raise NoValue(f"the parameter {name}", of_request=_of_request(template))
        parameters.append(f"{quote(name, safe='')}={quote(shown, safe='')}")
    joined = "&".join(parameters)
    return f"{before}?{joined}" if joined or mark else before


def headers_of(call: PlannedCall, values: Values) -> dict[str, str]:
    """Return the call's own headers. Raises NoValue."""
    found = {}
    for name, template in call.headers:
        value = filled(template, values)
        if value is None:
            continue
        written = text(value)
        if written is None or _NOT_IN_HEADERS.search(written):
            raise NoValue(f"the header {name}", of_request=_of_request(template))
        found[name] = written.encode().decode("latin-1")
    return found


def body_of(call: PlannedCall, values: Values) -> bytes:
    """Return the body of a call. Raises NoValue."""
    if call.body is None:
        return b""
    value = filled(call.body, values)
    if value is MISSING:
        raise NoValue("the body", of_request=_of_request(call.body))
    return encode(value)


def _needed(source: Mapping[str, Any], values: Values) -> str:
    found = text(values(source))
    if found is None:
        raise NoValue(_name(source), of_request=source["kind"] != "call")
    return found


def _of_request(template: Mapping[str, Any]) -> bool:
    source: Mapping[str, Any] = template.get("from", {})
    return source.get("kind") != "call"


def _name(source: Mapping[str, Any]) -> str:
    steps = ".".join("[]" if one is None else one for one in source.get("steps", ()))
    name = source.get("name") or ".".join(filter(None, (source.get("call", ""), steps)))
    return f"{source['kind']}:{name}" if name else str(source["kind"])
