"""JSON Schemas, compiled by jsonschema-rs. Regular expressions need linear time, and nothing is ever fetched."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import jiter
import jsonschema_rs

from filters.validation.documents import DocumentError
from filters.validation.faults import MOST_FAULTS, Fault, Place, pointer

_LINEAR = jsonschema_rs.RegexOptions()
MASK = "the value"
"""Stands for values in details, because they may be secrets, or long."""


class MalformedError(ValueError):
    """A text is not JSON, or an object in it has a name twice."""


def parsed(body: bytes) -> Any:
    """The value of a JSON text (RFC 8259) with exact numbers. Raises MalformedError."""
    try:
        return jiter.from_json(
            body, allow_inf_nan=False, catch_duplicate_keys=True, float_mode="decimal", cache_mode="keys"
        )
    except ValueError as error:
        raise MalformedError(str(error)) from None


class Schema:
    """A schema that messages can be compared with."""

    def __init__(self, validator: Any) -> None:
        self._validator = validator

    def accepts(self, value: Any) -> bool:
        """True if a value is valid. Raises ValueError for one that is nested too deeply."""
        return bool(self._validator.is_valid(value))

    def faults(self, value: Any, place: Place = "body", name: str = "") -> Iterator[Fault]:
        """Yield the faults of a value, at most MOST_FAULTS."""
        if self._validator.is_valid(value):
            return
        for error in islice(self._validator.iter_errors(value), MOST_FAULTS):
            yield Fault(str(error.message), place, name, pointer(error.instance_path))


def registry(resources: dict[str, Any]) -> jsonschema_rs.Registry:
    """Documents that schemas may refer to, by their URIs. Raises DocumentError."""
    try:
        return jsonschema_rs.Registry(list(resources.items()))
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        raise DocumentError(_why(error)) from None


def compiled(schema: Any, *, formats: bool, known: jsonschema_rs.Registry | None = None) -> Schema:
    """Compile a schema of any draft; without `$schema` it is of 2020-12. Raises DocumentError.

    If `formats` is true, `format` is asserted and not only an annotation.
    """
    if not isinstance(schema, dict | bool):
        raise DocumentError("a schema is a mapping")
    try:
        validator = jsonschema_rs.validator_for(
            schema,
            validate_formats=formats,
            pattern_options=_LINEAR,
            registry=known,
            offline=True,
            mask=MASK,
        )
    except jsonschema_rs.ValidationError as error:
        raise DocumentError(_of_schema(error)) from None
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        raise DocumentError(_why(error)) from None
    return Schema(validator)


def _of_schema(error: jsonschema_rs.ValidationError) -> str:
    where = pointer(error.instance_path)
    if "regex" in error.message:
        why = "is no regular expression that linear time suffices for; lookaround and backreferences are not supported"
        return f"the pattern at {where} {why}"
    if "Retriev" in error.message and " is not present" in error.message:
        return f"{error.message.partition(' is not present')[0]} is not part of the document, and nothing is fetched"
    return f"{where or 'it'} is not valid in a schema: {error.message}"


def _why(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
