"""Scalars of a schema that take any JSON: `JSON`, and those of the user. What they have from an upstream has to be JSON for clients too."""

from __future__ import annotations

from math import isinf
from typing import Any

from graphql import GraphQLScalarType

from filters.graphql import errors
from filters.graphql.errors import FieldError


def bind(scalar: GraphQLScalarType) -> None:
    """Let a scalar reject numbers such as 1e999, which Python reads as infinite, and which no JSON text can have."""
    scalar.serialize = scalar.coerce_output_value = finite  # type: ignore[method-assign]


def finite(value: Any) -> Any:
    """The value. Raises FieldError if a number in it is not finite."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, float) and isinf(one):
            raise FieldError(errors.UPSTREAM_INVALID, "The upstream's answer has a number that is too large.")
    return value
