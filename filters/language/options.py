"""Declare one key of the language: a dataclass field with its documentation and bounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NewType

from filters.language.problems import Path

Raw = NewType("Raw", Mapping[str, Any])
"""Envoy configuration as the user wrote it, merged into the generated configuration."""


class Off:
    """The value ``off``: it removes a policy of an outer level."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "off"


OFF: Final = Off()


class Mistake(ValueError):  # noqa: N818 - a mistake of the user, reported as data and never propagated
    """Raised, or yielded by ``check()``, if a value is well-formed but makes no sense.

    `path` is relative to the value that was being decoded.
    """

    def __init__(self, message: str, remedy: str = "", *, path: Path = (), value: object = ...) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.path = path
        self.value = value


@dataclass(frozen=True, slots=True)
class About:
    """The declaration of a key: documentation for people, bounds for the decoder.

    `minimum` and `maximum` bound numbers, sizes (bytes) and durations (seconds). `pattern` is a regular expression
    that the whole text must match, and `shape` describes it in words. `refers` names the section in which the value
    must be a name. `secret` hides the value everywhere. `multiline` allows line breaks and control characters in a
    text. `others` is for a mapping that takes all keys which the class does not declare. `narrows` means that the key selects some out of all: an empty value would select all, so it is an error.
    """

    doc: str
    key: str = ""
    minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None
    shape: str = ""
    refers: str | None = None
    secret: bool = False
    multiline: bool = False
    minimum_items: int = 0
    narrows: bool = False
    others: bool = False
    example: str = ""


def option(doc: str, *, default: Any = ..., key: str = "", **about: Any) -> Any:
    """A field of the language. Without `default` the key is required. `key` is the YAML key if the name differs."""
    metadata = {"about": About(doc, key=key, **about)}
    if default is ...:
        return dataclasses.field(metadata=metadata)
    if getattr(default, "__hash__", None) is None:
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Shorthand:
    """The short form of a dataclass of the language: its ``short(value)`` converts values of `types`.

    `what` describes the short form for people, `schema` is its JSON Schema.
    """

    types: tuple[type, ...]
    what: str
    schema: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"type": "string"})
