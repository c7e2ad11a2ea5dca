"""The scalar `BigInt`: a whole number of any size, written as a number or as a text of digits."""

from __future__ import annotations

import re
from typing import Any

from graphql import GraphQLError, GraphQLScalarType

NAME = "BigInt"
_DIGITS = re.compile(r"-?[0-9]{1,4000}")
"""Python converts no texts of more than 4300 digits, because that takes long."""


def bind(scalar: GraphQLScalarType) -> None:
    """Let a scalar take only whole numbers, from clients and from upstreams."""
    scalar.serialize = scalar.coerce_output_value = whole  # type: ignore[method-assign]
    scalar.parse_value = scalar.coerce_input_value = whole  # type: ignore[method-assign]


def whole(value: Any) -> int:
    """The number that a value is. Raises GraphQLError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    raise GraphQLError(f"{NAME} is a whole number.")
