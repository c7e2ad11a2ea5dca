"""validate as a user writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, ClassVar, Literal

from filters.language import DataSource, Mistake, Shorthand, Size, option
from filters.language.tokens import TOKEN
from filters.policy import Context
from filters.processing.processor import Use
from filters.validation.documents import DocumentError, parsed
from filters.validation.names import VALIDATION, ValidationSource, phases
from filters.validation.openapi import OpenApi
from filters.validation.schemas import compiled

_MEDIA_TYPE = re.compile(rf"{TOKEN}/{TOKEN}")
DEFAULT_BODY, LARGEST_BODY = 1 << 20, 3 << 20
"""Bytes of the largest body that is compared with a schema: the default, and what a message to the policy server holds."""
TIMEOUT = timedelta(seconds=1)
Mode = Literal["enforce", "shadow", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchema(DataSource):
    """A JSON Schema of any draft, without `$schema` of 2020-12. References within it are followed, and nothing is fetched."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a file, JSON or YAML")
    schema: Mapping[str, Any] | None = option("The schema itself.", default=None)

    def __post_init__(self) -> None:
        """Keep a written schema as text, as the other sources have it."""
        if self.schema is not None and self.inline is None:
            text = json.dumps(dict(self.schema), ensure_ascii=False, default=str)
            object.__setattr__(self, "inline", text)
            object.__setattr__(self, "schema", None)

    @classmethod
    def short(cls, value: str) -> JsonSchema:
        """The schema in a file."""
        return cls(file=value)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless exactly one source is named."""
        if sum(one is not None for one in (self.file, self.env, self.inline, self.schema)) != 1:
            message = "exactly one of 'file', 'env', 'inline' and 'schema' is needed"
            yield Mistake(message, "write {file: PATH}, or {schema: {…}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApiFile(DataSource):
    """An OpenAPI document of version 3.0, 3.1 or 3.2. References within it are followed, and nothing is fetched."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a file, JSON or YAML")
    base_path: str | None = option(
        "The path before all paths of the document. Default: that of its first server.",
        default=None,
        pattern=r"(/[^?#\s]*)?",
        shape="a path such as /v1",
    )

    @classmethod
    def short(cls, value: str) -> OpenApiFile:
        """The document in a file."""
        return cls(file=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateSettings:
    """The requirements on requests and responses.

    Envoy itself requires headers, media types and the size, before it authenticates. The policy server compares with
    schemas, after all limits, so that nobody without permission makes it work.
    """

    required_headers: tuple[str, ...] = option(
        "Headers that must be present and not empty; 400.", default=(), narrows=True
    )
    content_types: tuple[str, ...] = option(
        "Media types of request bodies, such as `application/json`, `image/*` or `application/*+json`; 415.",
        default=(),
        narrows=True,
    )
    max_body: Size | None = option(
        "The size of the largest request body; 413 above it. Envoy buffers the body before it forwards the request. "
        "With a schema the default is 1 MiB.",
        default=None,
        minimum=1,
        maximum=2**32 - 1,
        narrows=True,
    )
    json_schema: JsonSchema | None = option("The schema of request bodies; 400.", default=None)
    response_schema: JsonSchema | None = option(
        "The schema of response bodies with a status of 2xx.", default=None
    )
    openapi: OpenApiFile | None = option(
        "The document that describes requests and responses: paths, methods, parameters, bodies.",
        default=None,
    )
    formats: bool = option("True if `format` of JSON Schema is asserted too.", default=False)
    requests: Mode = option(
        "What happens to a request that does not match: `enforce` rejects it, `shadow` only logs and counts it.",
        default="enforce",
    )
    responses: Mode | None = option(
        "The same for responses; `enforce` answers 500 instead. Default: `enforce` with `response_schema`, else `off`.",
        default=None,
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each invalid entry."""
        schemas = (self.json_schema, self.response_schema, self.openapi)
        if not (self.required_headers or self.content_types or self.max_body or any(schemas)):
            yield Mistake(
                "nothing to validate",
                "write required_headers, content_types, max_body, json_schema or openapi",
            )
        for number, name in enumerate(self.required_headers):
            if not re.fullmatch(TOKEN, name):
                path = ("required_headers", number)
                yield Mistake("not a header's name", "write x-tenant", path=path, value=name)
        for number, one in enumerate(self.content_types):
            if not _MEDIA_TYPE.fullmatch(one):
                path = ("content_types", number)
                yield Mistake("not a media type", "write application/json", path=path, value=one)
        if self.openapi is not None and (self.json_schema or self.response_schema):
            yield Mistake(
                "'openapi' describes the bodies already", "keep one or the other", path=("openapi",)
            )
        if any(schemas) and self.max_body is not None and self.max_body > LARGEST_BODY:
            yield Mistake(
                f"a body that is compared with a schema has at most {LARGEST_BODY >> 20} MiB",
                "write less, or leave out the schema",
                path=("max_body",),
                value=self.max_body,
            )
        if not any(schemas):
            for key in ("formats", "responses"):
                if getattr(self, key):
                    yield Mistake(
                        f"'{key}' needs a schema", "add json_schema or openapi, or remove it", path=(key,)
                    )
        if any(schemas) and self.modes() == ("off", "off"):
            yield Mistake(
                "nothing is compared with the schema",
                "write requests: or responses: enforce",
                path=("requests",),
            )

    def modes(self) -> tuple[Mode, Mode]:
        """What happens to requests and to responses that do not match."""
        requests: Mode = self.requests if self.json_schema or self.openapi else "off"
        return requests, self.responses or ("enforce" if self.response_schema else "off")

    def check_schemas(self, context: Context) -> Iterator[Mistake]:
        """Yield mistakes of the schemas and the document."""
        for key in ("json_schema", "response_schema"):
            source: JsonSchema | None = getattr(self, key)
            if source is not None and source in context.contents:
                try:
                    _compiled(context.contents[source], self.formats)
                except DocumentError as error:
                    yield Mistake(str(error), "correct the schema", path=(key,), value=source.file or ...)
        if self.openapi is not None and self.openapi in context.contents:
            faults = _faults(context.contents[self.openapi], self.openapi.base_path, self.formats)
            for fault in faults[:10]:
                yield Mistake(
                    fault, "correct the document", path=("openapi",), value=self.openapi.file or ...
                )

    def sources(self, context: Context) -> ValidationSource | None:
        """The rule for the policy server, or None if Envoy alone validates."""
        requests, responses = self.modes()
        if (requests, responses) == ("off", "off"):
            return None
        modes = (requests, responses)
        if self.openapi is not None:
            content = context.contents[self.openapi]
            return _of_document(content, self.openapi.base_path, self.formats, modes)
        schemas = [
            None if one is None else parsed(context.contents[one])
            for one in (self.json_schema, self.response_schema)
        ]
        return ValidationSource.of(request=schemas[0], response=schemas[1], formats=self.formats, modes=modes)

    def uses(self, context: Context) -> tuple[Use, ...]:
        """The processor of the policy server, if there is a schema. A faulty one is a mistake of its own."""
        try:
            source = self.sources(context)
        except (DocumentError, KeyError):
            return ()
        if source is None:
            return ()
        use = Use(
            type=VALIDATION,
            rule=source.name,
            phases=phases(*self.modes()),
            timeout=TIMEOUT,
            max_body=self.max_body or DEFAULT_BODY,
        )
        return (use,)


@lru_cache(maxsize=64)
def _of_document(content: bytes, base: str | None, formats: bool, modes: tuple[str, str]) -> ValidationSource:
    return ValidationSource.of(openapi=parsed(content), base=base, formats=formats, modes=modes)


@lru_cache(maxsize=256)
def _compiled(content: bytes, formats: bool) -> None:
    compiled(parsed(content), formats=formats)


@lru_cache(maxsize=64)
def _faults(content: bytes, base: str | None, formats: bool) -> tuple[str, ...]:
    try:
        return tuple(OpenApi(parsed(content), base=base, formats=formats).check())
    except DocumentError as error:
        return (str(error),)
