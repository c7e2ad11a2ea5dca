"""graphql: an action of a route. Its schema says which calls answer which fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from filters.graphql.settings import GraphqlLimits
from filters.language import DataSource, Mistake, Shorthand, Size, option


@dataclass(frozen=True, slots=True, kw_only=True)
class SdlFile(DataSource):
    """A document in the schema definition language of GraphQL."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a file")

    @classmethod
    def short(cls, value: str) -> SdlFile:
        """The document in a file."""
        return cls(file=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationsFile(DataSource):
    """Operations that clients name by the SHA-256 of their text: a `.graphql` file, or a manifest in JSON.

    ``FOLDER/*.graphql`` stands for all such files of a folder.
    """

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a file, or FOLDER/*.graphql")

    @classmethod
    def short(cls, value: str) -> OperationsFile:
        """The operations in a file."""
        return cls(file=value)

    @property
    def pattern(self) -> bool:
        """True for several files of a folder."""
        return "*" in (self.file or "")

    def referenced(self, content: bytes) -> Iterable[OperationsFile]:
        """The files of a pattern."""
        if not self.pattern:
            return ()
        return [OperationsFile(file=path) for path in content.decode("utf-8", "surrogateescape").split("\n")]


@dataclass(frozen=True, slots=True, kw_only=True)
class FromOpenApi(DataSource):
    """An OpenAPI document whose operations become fields: GET a query, every other method a mutation."""

    base_path: str | None = option(
        "The path before all paths of the document. Default: that of its first server.",
        default=None,
        pattern=r"(/[^?#\s]*)?",
        shape="a path such as /v1",
    )
    upstream: str = option("The upstream that has the operations.", refers="upstreams")
    prefix: str = option(
        "The beginning of the names of its types and operations, for several documents with the same names.",
        default="",
        pattern=r"([A-Za-z][A-Za-z0-9]*)?",
        shape="letters and digits",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Persisted:
    """Documents that clients name by their hash, instead of sending them."""

    files: tuple[OperationsFile, ...] = option(
        "`.graphql` files, each with one document exactly as clients would send it, and manifests (JSON, as Apollo and Relay write them). "
        "`FOLDER/*.graphql` stands for all such files of a folder, except those that begin with `.` or `_`.",
        minimum_items=1,
    )
    only: bool = option("Whether no other document is executed.", default=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graphql:
    """Answer GraphQL over HTTP by calls to upstreams."""

    schema: SdlFile | tuple[SdlFile, ...] | None = option(
        "The schema: one document or several, whose [directives](graphql.md) bind fields to calls.",
        default=None,
    )
    from_openapi: tuple[FromOpenApi, ...] = option(
        "OpenAPI documents whose operations are part of the schema.", default=()
    )
    limits: GraphqlLimits = option("What operations may have.", default=GraphqlLimits())
    introspection: bool = option("Whether clients may ask for the schema.", default=False)
    suggestions: bool = option("Whether errors suggest names of the schema.", default=False)
    persisted: Persisted | None = option("Documents that clients name by their hash.", default=None)
    max_answer: Size = option(
        "The size of the largest answer of an upstream. The field of a larger one is null with an error.",
        default=Size(1 << 20),
        minimum=1,
        maximum=64 << 20,
    )

    @property
    def documents(self) -> tuple[SdlFile, ...]:
        """The documents of the schema."""
        return (
            self.schema if isinstance(self.schema, tuple) else () if self.schema is None else (self.schema,)
        )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake without a schema."""
        if not self.documents and not self.from_openapi:
            yield Mistake("there is no schema", "write schema: schema.graphql, or from_openapi")
