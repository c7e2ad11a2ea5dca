"""The schemas of `graphql` routes: their documents, and the faults of these as problems with a place in the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from filters.api_documents import openapi
from filters.api_documents.faults import DocumentFaults
from filters.language import DataSource, Path, Place, Problem
from filters.language.problems import short_repr
from xds_server.gateway import graphql_auth
from xds_server.gateway.caller_uses import CallerUse
from xds_server.gateway.catalog_documents import problems_of
from xds_server.gateway.graphql_auth import AuthUse
from xds_server.gateway.model.gateway import Sections
from xds_server.gateway.model.graphql import FromOpenApi, Graphql, OperationsFile
from xds_server.gateway.model.upstreams import Upstream

if TYPE_CHECKING:
    from filters.graphql.openapi_sdl import GeneratedSdl

Contents = Mapping[DataSource, bytes]
SdlText = tuple[str, str]
"""The name of a document for people, and its text."""
_Inputs = tuple[object, ...]
GENERATED = "from_openapi"
"""The beginning of the names of documents that no file has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The problems of one schema, the upstreams that it calls, and its `@auth`."""

    problems: tuple[Problem, ...]
    upstreams: frozenset[str] = frozenset()
    auths: tuple[AuthUse, ...] = ()
    templates: tuple[CallerUse, ...] = ()
    """What is known of the caller in templates of calls."""
    has_streams: bool = False
    """True if the schema has subscriptions."""


def sdl_texts(graphql: Graphql, contents: Contents) -> tuple[SdlText, ...]:
    """The documents of a schema: those that are written, and those made of OpenAPI. Raises DocumentFaults."""
    written = [
        (one.file or "", contents[one].decode("utf-8-sig", "replace"))
        for one in graphql.documents
        if one in contents
    ]
    made = [
        (f"{GENERATED}[{number}]", _generated(contents[one], one).text)
        for number, one in enumerate(graphql.from_openapi)
        if one in contents
    ]
    return (*written, *made)


@lru_cache(maxsize=64)
def _generated(content: bytes, source: FromOpenApi) -> GeneratedSdl:
    from filters.graphql import openapi_sdl  # imports a large library, which most gateways need not

    reference = openapi.read(content, source.base_path)
    return openapi_sdl.generate(reference, source.upstream, source.prefix)


def left_out(path: Path, graphql: Graphql, contents: Contents) -> Iterator[Problem]:
    """Yield a warning for each operation of an OpenAPI document for which there is no field."""
    for number, one in enumerate(graphql.from_openapi):
        faults = _generated(contents[one], one).left_out
        for problem in problems_of((*path, "from_openapi", number), faults, one, contents):
            yield replace(problem, severity="warning")


def persisted_texts(graphql: Graphql, contents: Contents) -> tuple[str, ...]:
    """The persisted documents. Raises ValueError for a manifest that cannot be read."""
    files = persisted_files(graphql, contents)
    return tuple(dict.fromkeys(text for one, _ in files for text in persisted_of(one, contents)))


def persisted_files(graphql: Graphql, contents: Contents) -> Iterator[tuple[OperationsFile, int]]:
    """Yield the files with persisted documents, those of a pattern too, with the number of their place in the list."""
    for number, one in enumerate(graphql.persisted.files if graphql.persisted is not None else ()):
        if one.pattern and one in contents:
            yield from ((file, number) for file in one.referenced(contents[one]))
        else:
            yield one, number


def persisted_of(source: OperationsFile, contents: Contents) -> Iterator[str]:
    """Yield the documents of one file. Raises ValueError for a manifest that cannot be read."""
    if source not in contents:
        return
    text = contents[source].decode("utf-8-sig", "replace")
    if (source.file or "").endswith(".json"):
        yield from _manifest(text)
    else:
        yield from dict.fromkeys((text, text.strip()))  # clients send no line end behind it


def _manifest(text: str) -> Iterator[str]:
    """The texts of a manifest: a map from names to texts, or Apollo's list of operations with bodies."""
    value = json.loads(text)
    operations = value.get("operations") if isinstance(value, dict) else None
    if isinstance(operations, list):
        texts = [one.get("body") if isinstance(one, dict) else None for one in operations]
    else:
        texts = list(value.values()) if isinstance(value, dict) else [None]
    for one in texts:
        if not isinstance(one, str):
            raise ValueError("a manifest is a map from hashes to texts, or {operations: [{body: …}]}")
        yield one


class GraphqlSchemas:
    """The schemas of all routes. One that did not change is not read again. `upstreams` are those that they call."""

    def __init__(self) -> None:
        self.upstreams: frozenset[str] = frozenset()
        self._kept: dict[str, tuple[_Inputs, Found]] = {}

    def problems(
        self, sections: Sections, contents: Contents, policies: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[Problem]:
        """Yield the problems of the schemas of all routes. `policies` are the effective ones of each route.

        What is wrong with a file that several routes use is reported once.
        """
        kept: dict[str, tuple[_Inputs, Found]] = {}
        for name, route in sections.routes.items():
            if route.graphql is None:
                continue
            sources = (contents.get(one) for one in _sources(route.graphql, contents))
            inputs = (route.graphql, sections.upstreams, *sources)
            known = self._kept.get(name)
            if known is None or known[0] != inputs:
                path = ("routes", name, "graphql")
                known = (inputs, _found(path, route.graphql, sections.upstreams, contents))
            kept[name] = known
        self._kept = kept
        self.upstreams = frozenset[str]().union(*(found.upstreams for _, found in kept.values()))
        told: set[tuple[Place, str]] = set()
        for name, (_, found) in kept.items():
            for one in found.problems:
                if one.place is None or (one.place, one.message) not in told:
                    yield one
                if one.place is not None:
                    told.add((one.place, one.message))
            route = sections.routes[name]
            if found.has_streams and route.time_limit(grpc=False):
                yield Problem(
                    path=("routes", name),
                    message="the schema has subscriptions, and the route ends them when its timeout is up",
                    remedy="write timeout: 0",
                    severity="warning",
                )
            yield from graphql_auth.problems(
                name, found.auths, found.templates, policies.get(name, {}), sections
            )


def _sources(graphql: Graphql, contents: Contents) -> tuple[DataSource, ...]:
    persisted = (one for one, _ in persisted_files(graphql, contents))
    return (*graphql.documents, *graphql.from_openapi, *persisted)


def _found(path: Path, graphql: Graphql, upstreams: Mapping[str, Upstream], contents: Contents) -> Found:
    if any(one not in contents for one in _sources(graphql, contents)):
        # other files that cannot be read are told where they are read
        return Found(problems=tuple(_unread(path, graphql, contents)))
    for number, one in enumerate(graphql.from_openapi):
        try:
            openapi.read(contents[one], one.base_path)
        except DocumentFaults as faults:
            problems = problems_of((*path, "from_openapi", number), faults.faults, one, contents)
            return Found(problems=tuple(problems))
    from xds_server.gateway import graphql_faults  # imports a large library, which most gateways need not

    return graphql_faults.found(path, graphql, upstreams, contents)


def _unread(path: Path, graphql: Graphql, contents: Contents) -> Iterator[Problem]:
    """Yield a problem for each file of a pattern that could not be read."""
    written = graphql.persisted.files if graphql.persisted is not None else ()
    for one, number in persisted_files(graphql, contents):
        if one not in contents and one is not written[number]:
            yield Problem(
                path=(*path, "persisted", "files", number),
                message=f"the file {one.file} cannot be read",
                remedy="make it readable, or begin its name with _",
                value=short_repr(written[number].file),
            )
