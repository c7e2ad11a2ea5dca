"""The faults of the schema and of the persisted documents of one `graphql` route. It imports graphql-core, which takes time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from filters.graphql.directives import Auth
from filters.graphql.errors import Refused
from filters.graphql.faults import SchemaFault, SchemaFaults, at
from filters.graphql.operations import Operations
from filters.graphql.schema import BoundSchema, SdlDocument, read
from filters.language import Path, Place, Problem
from filters.language.problems import short_repr
from xds_server.gateway.aggregate_checks import why_not
from xds_server.gateway.caller_uses import OF_CALLER, CallerUse
from xds_server.gateway.graphql_auth import AuthUse
from xds_server.gateway.graphql_schemas import (
    GENERATED,
    Contents,
    Found,
    left_out,
    persisted_files,
    persisted_of,
    sdl_texts,
)
from xds_server.gateway.model.graphql import Graphql
from xds_server.gateway.model.upstreams import Upstream


def found(path: Path, graphql: Graphql, upstreams: Mapping[str, Upstream], contents: Contents) -> Found:
    """The problems of a route's key at `path`. All its sources are in `contents`."""
    documents = [SdlDocument(name=name, text=text) for name, text in sdl_texts(graphql, contents)]
    try:
        # that the upstream of an OpenAPI document exists is checked where it is written
        schema = read(documents, {*upstreams, *(one.upstream for one in graphql.from_openapi)})
    except SchemaFaults as faults:
        return Found(problems=tuple(_problem(path, one) for one in faults.faults))
    problems = (
        *_uncallable(path, schema, upstreams),
        *_persisted(path, graphql, schema, contents),
        *left_out(path, graphql, contents),
    )
    called = frozenset(one.upstream for one in schema.upstream_calls)
    return Found(
        problems=problems,
        upstreams=called,
        auths=tuple(map(_use, schema.auths)),
        templates=tuple(_templates(path, schema)),
        has_streams=bool(schema.streams),
    )


def _templates(path: Path, schema: BoundSchema) -> Iterator[CallerUse]:
    for call in schema.upstream_calls:
        for source in call.all_sources:
            if source.kind in OF_CALLER:
                yield CallerUse(str(source), "the answer of this call", path, _place(at(call.node, "", "")))


def _use(auth: Auth) -> AuthUse:
    scopes = ("claim:scope",) if auth.scopes else ()
    return AuthUse(
        place=_place(at(auth.node, "", "")),
        plans=auth.plans,
        consumers=auth.consumers,
        sources=(
            *(("plan",) if auth.plans else ()),
            *(("consumer",) if auth.consumers else ()),
            *scopes,
            *(f"claim:{name}" for name, _ in auth.claims),
        ),
    )


def _place(fault: SchemaFault) -> Place | None:
    """The place in a file, None if no file has it."""
    written = bool(fault.file) and not fault.file.startswith(GENERATED)
    return Place(fault.file, fault.line, fault.column) if written else None


def _problem(path: Path, fault: SchemaFault) -> Problem:
    place = _place(fault)
    value = None if fault.value is None else short_repr(fault.value)
    message = fault.message if place is not None else f"line {fault.line}: {fault.message}"
    return Problem(path=path, message=message, remedy=fault.remedy, value=value, place=place)


def _uncallable(path: Path, schema: BoundSchema, upstreams: Mapping[str, Upstream]) -> Iterator[Problem]:
    for call in schema.upstream_calls:
        upstream = upstreams.get(call.upstream)
        if upstream is not None and (reason := why_not(upstream)) is not None:
            message, remedy = reason
            yield _problem(path, at(call.node, f"the upstream '{call.upstream}' {message}", remedy))


def _persisted(path: Path, graphql: Graphql, schema: BoundSchema, contents: Contents) -> Iterator[Problem]:
    operations = Operations(schema, graphql.limits, introspection=graphql.introspection)
    for source, number in persisted_files(graphql, contents):
        where = (*path, "persisted", "files", number)
        try:
            for text in persisted_of(source, contents):
                operations.check(text)
        except ValueError as error:
            yield Problem(
                path=where,
                message="the manifest cannot be read",
                remedy=str(error),
                value=short_repr(source.file),
            )
        except Refused as refused:
            yield _refusal(where, refused, source.file or "")


def _refusal(path: Path, refused: Refused, file: str) -> Problem:
    error = refused.errors[0]
    place = error.locations[0] if error.locations and not file.endswith(".json") else None
    return Problem(
        path=path,
        message=error.message.rstrip("."),
        remedy="correct the document, or raise the limit",
        place=Place(file, place.line, place.column) if place is not None else None,
    )
