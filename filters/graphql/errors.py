"""Errors of requests and of fields, with codes. No text comes from the body of an upstream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graphql import GraphQLError, Node

PARSE_FAILED = "GRAPHQL_PARSE_FAILED"
VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED"
BAD_USER_INPUT = "BAD_USER_INPUT"
NO_OPERATION = "OPERATION_RESOLUTION_FAILURE"
INTROSPECTION_DISABLED = "INTROSPECTION_DISABLED"
DOCUMENT_TOO_LARGE = "DOCUMENT_TOO_LARGE"
TOO_MANY_TOKENS = "TOO_MANY_TOKENS"
TOO_DEEP = "TOO_DEEP"
TOO_MANY_ALIASES = "TOO_MANY_ALIASES"
TOO_MANY_OPERATIONS = "TOO_MANY_OPERATIONS"
COST_TOO_HIGH = "COST_TOO_HIGH"
NOT_SUBSCRIBED = "SUBSCRIPTION_NOT_ACCEPTED"
NOT_INCREMENTAL = "INCREMENTAL_NOT_ACCEPTED"
NOT_PERSISTED = "PERSISTED_QUERY_NOT_FOUND"
ONLY_PERSISTED = "PERSISTED_QUERY_ONLY"
FORBIDDEN = "FORBIDDEN"
TOO_MANY_CALLS = "TOO_MANY_CALLS"
UPSTREAM_ERROR = "UPSTREAM_ERROR"
UPSTREAM_TIMEOUT = "UPSTREAM_TIMEOUT"
UPSTREAM_UNREACHABLE = "UPSTREAM_UNREACHABLE"
UPSTREAM_TOO_LARGE = "UPSTREAM_RESPONSE_TOO_LARGE"
UPSTREAM_INVALID = "UPSTREAM_INVALID_RESPONSE"
NULL_VALUE = "NULL_FOR_NON_NULL"
_NULL = "Cannot return null for non-nullable field"
_UNFIT = "The upstream's answer does not fit the type of this field."


class Refused(Exception):  # noqa: N818 - carries the errors of a request, as data
    """A request that is not executed."""

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__("; ".join(one.message for one in errors))
        self.errors = tuple(errors)


class FieldError(Exception):
    """An error of one field, with a text for clients. `more` are further extensions."""

    def __init__(self, code: str, text: str, **more: Any) -> None:
        super().__init__(text)
        self.code = code
        self.more = more


def request_error(code: str, text: str, nodes: Iterable[Node] = (), **more: Any) -> GraphQLError:
    """An error because of which a request is not executed."""
    return GraphQLError(text, nodes=[*nodes] or None, extensions={"code": code, **more})


def refused(code: str, text: str, nodes: Iterable[Node] = (), **more: Any) -> Refused:
    """A refusal with one error."""
    return Refused([request_error(code, text, nodes, **more)])


def coded(errors: Iterable[GraphQLError], code: str) -> Refused:
    """A refusal with errors of graphql-core, which have no code yet."""
    return Refused(
        [
            GraphQLError(
                one.message,
                nodes=one.nodes,
                source=one.source,
                positions=one.positions,
                extensions={"code": code},
            )
            for one in errors
        ]
    )


def formatted(error: GraphQLError) -> dict[str, Any]:
    """An error as clients get it. Texts of graphql-core that could show a value of an upstream are replaced."""
    text, extensions = _told(error)
    result: dict[str, Any] = {"message": text}
    if error.locations:
        result["locations"] = [{"line": one.line, "column": one.column} for one in error.locations]
    if error.path is not None:
        result["path"] = error.path
    result["extensions"] = extensions
    return result


def _told(error: GraphQLError) -> tuple[str, dict[str, Any]]:
    original = error.original_error
    if isinstance(original, FieldError):
        return str(original), {"code": original.code, **original.more}
    if error.extensions and "code" in error.extensions:
        return error.message, dict(error.extensions)
    if error.path is None:
        return error.message, {"code": BAD_USER_INPUT}
    if error.message.startswith(_NULL):
        return error.message, {"code": NULL_VALUE}
    if error.message.startswith("Argument '"):
        return error.message, {"code": BAD_USER_INPUT}
    return _UNFIT, {"code": UPSTREAM_INVALID}
