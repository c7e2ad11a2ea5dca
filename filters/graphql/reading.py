"""The values of the directives of one field, from what is written to what is used. Every function raises Mistake."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from graphql import Node

from filters.framing import OF_ENVOY
from filters.graphql import selection
from filters.graphql.directives import SAFE, Auth, Batch, Discriminator, FieldName, ListSize, Rest
from filters.graphql.selection import Pick
from filters.graphql.templates import IDS, BodyTemplate, PathTemplate, Source, TextTemplate, parse
from filters.language import Mistake, scalars
from filters.language.tokens import TOKEN
from filters.model import claims
from filters.transform import paths

Arguments = Mapping[str, Any]
LARGEST_BATCH = 1000
_METHOD = re.compile(r"[A-Z]+")
_Result = TypeVar("_Result")


def rest(arguments: Arguments, node: Node, field: FieldName) -> Rest:
    """The call of a field."""
    path = _at("path", lambda: PathTemplate.parse(arguments["path"]))
    batch = arguments.get("batch")
    found = Rest(
        field=field,
        upstream=arguments["upstream"],
        method=_method(arguments),
        path=path,
        headers=_at("headers", lambda: tuple(map(_header, arguments["headers"]))),
        body=_body(arguments),
        select=_at("select", lambda: selection.select(arguments["select"]))
        if arguments.get("select") is not None
        else selection.whole,
        batch=_at("batch", lambda: _batch(batch, arguments)) if batch else None,
        key=_key(path) if batch else None,
        timeout=_at("timeout", lambda: _timeout(arguments.get("timeout"))),
        node=node,
    )
    names = {one.name for one in found.all_sources if one.kind == "header"}
    return replace(found, request_headers=tuple(sorted(names)))


def sse(arguments: Arguments, node: Node, field: FieldName) -> Rest:
    """The stream of a field of a subscription."""
    return rest({**arguments, "method": "GET"}, node, field)


def _at(key: str, make: Callable[[], _Result]) -> _Result:
    try:
        return make()
    except Mistake as mistake:
        raise Mistake(
            mistake.message, mistake.remedy, path=(key, *mistake.path), value=mistake.value
        ) from None


def _method(arguments: Arguments) -> str:
    method: str = arguments["method"]
    if not _METHOD.fullmatch(method) or method in ("CONNECT", "TRACE"):
        raise Mistake("not a method of a call", "write GET or POST", path=("method",), value=method)
    if arguments.get("body") is not None and method in SAFE:
        remedy = 'write method: "POST", or put the values into the query'
        raise Mistake(f"a call with {method} has no body", remedy, path=("body",))
    return method


def _body(arguments: Arguments, *, batch: bool = False) -> BodyTemplate | None:
    body = arguments.get("body")
    return None if body is None else _at("body", lambda: BodyTemplate.parse(body, batch=batch))


_FORBIDDEN = ("host", "content-length", "transfer-encoding", "connection", "content-type")


def _header(written: Arguments) -> tuple[str, TextTemplate]:
    name = written["name"].lower()
    if not is_header_of_call(name):
        raise Mistake("not a header that a call can have", "use another name", value=name)
    return name, TextTemplate(parse(written["value"]))


def is_header_of_call(name: str) -> bool:
    """True if a schema may set this header of a call: it is none of HTTP itself, and none that Envoy acts on."""
    lower = name.lower()
    return (
        re.fullmatch(TOKEN, lower) is not None and lower not in _FORBIDDEN and not lower.startswith(OF_ENVOY)
    )


def _timeout(written: str | None) -> float | None:
    if written is None:
        return None
    try:
        found = scalars.duration(written).total_seconds()
    except ValueError as error:
        raise Mistake("not a duration", str(error), value=written) from None
    if found <= 0:
        raise Mistake("a call needs time", "write 300ms", value=written)
    return found


def _key(path: PathTemplate) -> Source:
    """The one source of a path whose values the calls of a batch differ in."""
    varying = [one for one in path.sources if one.kind in ("arg", "parent")]
    if len(varying) != 1:
        message = "the path of a batched call has exactly one value of arguments or of the parent"
        raise Mistake(message, "write /users/{parent:user_id}", path=("path",), value=path.text)
    return varying[0]


def _batch(written: Arguments, call: Arguments) -> Batch:
    if (
        call["method"] not in SAFE
        or call.get("body") is not None
        or (call["headers"] != [] and _varies(call["headers"]))
    ):
        raise Mistake("only safe calls without a body of their own are batched", "remove 'batch'")
    path = _at("path", lambda: PathTemplate.parse(written["path"], batch=True))
    body = _body(written, batch=True)
    found = (*path.sources, *(body.sources if body is not None else ()))
    if not any(one.kind == IDS for one in found):
        raise Mistake("the call has no keys", "write /users?ids={ids}", path=("path",), value=path.text)
    if other := next((one for one in found if one.kind in ("arg", "parent")), None):
        message = "the calls of a batch share no arguments and no parent"
        raise Mistake(message, "use {ids}, claims, headers or the consumer", value=str(other))
    if not 1 <= written["size"] <= LARGEST_BATCH:
        raise Mistake(f"from 1 to {LARGEST_BATCH} keys", "write 100", path=("size",), value=written["size"])
    if not _METHOD.fullmatch(written["method"]) or (body is not None and written["method"] in SAFE):
        raise Mistake("a body needs another method", 'write method: "POST"', path=("method",))
    by = _at("by", lambda: selection.path(written["by"]))
    return Batch(path=path, method=written["method"], body=body, by=by, size=written["size"])


def _varies(headers: Any) -> bool:
    found = [one for header in headers for one in parse(header["value"]) if isinstance(one, Source)]
    return any(one.kind in ("arg", "parent") for one in found)


def value(arguments: Arguments, _node: Node) -> Pick:
    """What takes the value of a field from its parent."""
    return _at("from", lambda: selection.path(arguments["from"]))


def member(arguments: Arguments, _node: Node) -> str:
    """The name of the member that an input field becomes."""
    steps = _at("from", lambda: paths.names(arguments["from"]))
    if len(steps) != 1:
        raise Mistake("an input field becomes one member", "write one name", value=arguments["from"])
    return paths.name_of(steps[0])


def weight(arguments: Arguments, _node: Node) -> int:
    """The cost of a field."""
    found: int = arguments["weight"]
    if found < 0:
        raise Mistake("a weight is not below 0", "write 1", path=("weight",), value=found)
    return found


def list_size(arguments: Arguments, _node: Node) -> ListSize:
    """The assumed size of a list."""
    assumed = arguments.get("assumedSize")
    if assumed is not None and assumed < 0:
        raise Mistake("a size is not below 0", "write 10", path=("assumedSize",), value=assumed)
    return ListSize(assumed=assumed, arguments=tuple(arguments["slicingArguments"]))


def auth(arguments: Arguments, node: Node) -> Auth:
    """Who gets a field."""
    for key in ("plans", "scopes", "consumers", "claims"):
        if arguments.get(key) == []:
            raise Mistake("an empty list would allow everybody", "name one, or remove the key", path=(key,))
    if not any(arguments.get(key) for key in ("plans", "scopes", "consumers", "claims")):
        raise Mistake("it allows everybody", "write plans, scopes, consumers or claims")
    for one in arguments.get("claims") or ():
        if (fault := claims.check(one["name"])) is not None:
            raise Mistake(fault.message, fault.remedy, path=("claims",), value=one["name"])
        if not one["values"]:
            raise Mistake("no claim could be equal to this", "write a value", path=("claims",))
    return Auth(
        plans=tuple(arguments.get("plans") or ()),
        scopes=frozenset(arguments.get("scopes") or ()),
        consumers=tuple(arguments.get("consumers") or ()),
        claims=tuple((one["name"], tuple(one["values"])) for one in arguments.get("claims") or ()),
        node=node,
    )


def discriminator(arguments: Arguments, _node: Node) -> Discriminator:
    """What tells the type of an object."""
    mapping = tuple((one["value"], one["type"]) for one in arguments["mapping"])
    return Discriminator(property=arguments["property"], mapping=mapping)
