"""What is wrong with a schema, with its place in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from graphql import GraphQLError, Node

MOST_FAULTS = 20
"""Faults that are reported of one schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaFault:
    """One fault. `file` is the name of the document; line and column count from 1."""

    message: str
    remedy: str = "correct the schema"
    file: str = ""
    line: int = 1
    column: int = 1
    value: str | None = None

    def __str__(self) -> str:
        found = f" (found {self.value!r})" if self.value is not None else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{found}; {self.remedy}"


class SchemaFaults(ValueError):  # noqa: N818 - carries the user's mistakes, as data
    """The faults because of which a schema cannot be served."""

    def __init__(self, faults: Iterable[SchemaFault]) -> None:
        self.faults = tuple(faults)[:MOST_FAULTS]
        super().__init__("\n".join(map(str, self.faults)))


def at(node: Node | None, message: str, remedy: str, value: str | None = None) -> SchemaFault:
    """A fault at a node of a document."""
    if node is None or node.loc is None:
        return SchemaFault(message=message, remedy=remedy, value=value)
    token = node.loc.start_token
    return SchemaFault(
        message=message,
        remedy=remedy,
        file=node.loc.source.name,
        line=token.line,
        column=token.column,
        value=value,
    )


def of_errors(errors: Iterable[GraphQLError]) -> Iterator[SchemaFault]:
    """The faults that graphql-core reports."""
    for error in errors:
        place = error.locations[0] if error.locations else None
        source = error.source or (error.nodes[0].loc.source if error.nodes and error.nodes[0].loc else None)
        yield SchemaFault(
            message=error.message.removeprefix("Syntax Error: ").rstrip("."),
            file=source.name if source is not None else "",
            line=place.line if place is not None else 1,
            column=place.column if place is not None else 1,
        )
