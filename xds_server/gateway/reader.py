"""Files to a gateway: each file is parsed and decoded once for its content, then all are joined and checked.

No code here does IO: the bytes of the files are arguments, and `load` reads the files that they refer to.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from operator import is_
from types import MappingProxyType
from typing import Any

from filters.grpc_transcoding.sources import ProtoErrors, ProtoFault, ProtoFile
from filters.language import DataSource, Path, Place, Problem
from filters.language.datasource import SecretSource
from filters.language.problems import short_repr
from filters.model.geoip import Geoip
from filters.policy import Context
from xds_server.gateway import (
    certificates,
    checks,
    files,
    geo_databases,
    lifecycle,
    mocks,
    positions,
    unused,
)
from xds_server.gateway.catalog_documents import DocumentProblems
from xds_server.gateway.effective_policies import EffectivePolicies
from xds_server.gateway.files import File
from xds_server.gateway.graphql_schemas import GraphqlSchemas
from xds_server.gateway.model.gateway import Gateway, Sections
from xds_server.gateway.model.policies import Policies
from xds_server.gateway.model.portal import Portal
from xds_server.gateway.model.rollout import Rollout
from xds_server.gateway.model.telemetry import Telemetry

Load = Callable[[str], bytes]
"""Reads a file that the gateway refers to. Raises OSError."""
Names = Callable[[str], Collection[str]]
"""Returns the names of the files in a folder that the gateway refers to. Raises OSError."""
CompileProtos = Callable[[Mapping[str, bytes]], bytes]
"""Compiles the first .proto file, with its imports by their names, to a descriptor set. Raises ProtoErrors."""


def no_compiler(files: Mapping[str, bytes]) -> bytes:
    """Compile nothing. Raises ProtoErrors."""
    message = "this program does not compile .proto files"
    raise ProtoErrors((ProtoFault(next(iter(files)), 1, 1, message),))


def no_folders(folder: str) -> Collection[str]:
    """Raise OSError, because there are no folders."""
    raise FileNotFoundError(2, "there is no such folder", folder)


_PUBLISHED = frozenset(("catalog", "products", "portal", "geoip"))
"""Sections whose files no policy needs, so that a changed page or database translates no route again."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The result: a gateway, or None if there is an error. Warnings are among the problems."""

    gateway: Gateway | None
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep the gateway from being served."""
        return tuple(problem for problem in self.problems if problem.severity == "error")


class Reader:
    """Reads successive states of a gateway. Unchanged parts are not parsed, decoded or checked again."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, File]] = {}
        self._checked = checks.CheckCache()
        self._joined: Sections | None = None
        self._joined_of: dict[str, tuple[Mapping[str, Any], ...]] = {}
        """The parts of each section, by its name."""
        self._policies = EffectivePolicies()
        self._documents = DocumentProblems()
        self._graphql = GraphqlSchemas()
        self._context: Context | None = None

    def read(
        self,
        contents: Mapping[str, bytes],
        load: Load,
        environment: Mapping[str, str],
        now: datetime | None = None,
        compile_protos: CompileProtos = no_compiler,
        names_in: Names = no_folders,
    ) -> Reading:
        """Read all files as one document. Never raises for errors of the user.

        The dates of certificates are compared with `now` (UTC); without it they are not checked.
        """
        parsed = _without_sources(self._parse(contents, environment))
        problems = [problem for file in parsed.values() for problem in file.problems]
        names = frozenset[Path]().union(*(file.names for file in parsed.values()))
        problems += _collisions(parsed, names)
        sections = self._join(parsed)
        references = [one for file in parsed.values() for one in file.references]
        served = [one for one in references if one[0][0] not in _PUBLISHED]
        published = [one for one in references if one[0][0] in _PUBLISHED]
        sources, missing = load_sources(served, load, environment, compile_protos, names_in)
        documents, missing_documents = load_sources(published, load, environment, compile_protos)
        problems += (*missing, *missing_documents)
        context = self._in_context(sections, sources)
        routes = self._policies.of(parsed, sections, context.apis)
        policies = _union(file.policies for file in routes)
        ranked = _union(file.ranked for file in routes)
        if all(file.whole for file in parsed.values()):
            problems += (problem for file in parsed.values() for problem in checks.references(file, names))
        problems += checks.check(sections, routes, ranked, parsed.values(), context, self._checked)
        problems += certificates.check(sections, context.contents, now)
        problems += geo_databases.check(sections, documents)
        documents = geo_databases.without_databases(documents, sections.geoip)
        problems += self._documents.of(sections.catalog, documents)
        problems += mocks.check(sections, context)
        problems += self._graphql.problems(sections, context.contents, policies)
        if not any(problem.severity == "error" for problem in problems):
            called = self._graphql.upstreams
            problems += unused.unused(sections, routes, parsed.values(), self._checked, called)
        placed = tuple(positions.placed(problems, parsed, contents))
        if any(problem.severity == "error" for problem in placed):
            return Reading(None, placed)
        gateway = Gateway(
            sections=sections,
            policies=policies,
            ranked=ranked,
            files=routes,
            contents={**context.contents, **documents} if documents else context.contents,
            context=context,
            variables=tuple(pair for file in parsed.values() for pair in file.read.values()),
            place=positions.finder(parsed, dict(contents)),
        )
        return Reading(gateway, placed)

    def _parse(self, contents: Mapping[str, bytes], environment: Mapping[str, str]) -> dict[str, File]:
        kept: dict[str, tuple[bytes, File]] = {}
        for name in sorted(contents):
            content = contents[name]
            known = self._files.get(name)
            if (
                known is None
                or known[0] != content
                or any(environment.get(name) != value for name, value in known[1].variables.items())
            ):
                before = None if known is None else known[1]
                known = (content, files.decode(name, content, environment, before))
            kept[name] = known
        self._files = kept
        return {name: file for name, (_, file) in kept.items()}

    def _join(self, parsed: Mapping[str, File]) -> Sections:
        """Return all files as one document. A section without changes stays the same object."""
        joined: dict[str, Any] = {}
        for name in files.HINTS:
            parts = tuple([file.sections[name] for file in parsed.values() if name in file.sections])
            old = getattr(self._joined, name) if self._joined else None
            if old is not None and _same(self._joined_of[name], parts):
                joined[name] = old
                continue
            self._joined_of[name] = parts
            merged = _union(parts)
            if old is not None and len(old) == len(merged) and _same(map(old.get, merged), merged.values()):
                joined[name] = old
            elif files.HINTS[name] is Policies:
                joined[name] = Policies(merged)
            elif files.HINTS[name] in (Telemetry, Rollout, Portal, Geoip):
                joined[name] = files.HINTS[name](**merged)
            else:
                joined[name] = MappingProxyType({key: merged[key] for key in sorted(merged)})
        self._joined = Sections(**joined)
        return self._joined

    def _in_context(self, sections: Sections, sources: Mapping[DataSource, bytes]) -> Context:
        """Return the objects that policies may refer to. It is the same object as before if none changed."""
        old = self._context
        kept: dict[str, Any] = {  # what is the same object as before if nothing in it changed
            "providers": sections.identity,
            "consumers": sections.consumers,
            "plans": sections.plans,
            "errors": sections.errors,
            "geoip": sections.geoip,
        }
        made: dict[str, Any] = {  # what is made again each time
            "upstreams": frozenset(sections.upstreams),
            "http2": frozenset(
                name for name, one in sections.upstreams.items() if one.protocol in ("http2", "grpc")
            ),
            "contents": sources,
            "trailers": any(one.receives_trailers for one in sections.upstreams.values()),
            "series_until": _series_until(sections),
            "subscribers": sections.portal.declared,
            "apis": {route: name for name, api in sections.catalog.items() for route in api.routes},
            "lifecycles": lifecycle.headers(sections.catalog, sections.portal),
            "mocks": mocks.by_route(sections),
            "graphql_costs": {
                name: one.graphql.limits.most_cost
                for name, one in sections.routes.items()
                if one.graphql is not None
            },
        }
        if old is not None:
            made = {
                name: before if (before := getattr(old, name)) == value else value
                for name, value in made.items()
            }
        found = {**kept, **made}
        if old is None or any(getattr(old, name) is not value for name, value in found.items()):
            self._context = Context(**found)
        assert self._context is not None, "made above if there was none"
        return self._context


def _series_until(sections: Sections) -> str | None:
    """Return the last consumer with metrics of its own, or None if Envoy counts no consumers."""
    metrics = sections.telemetry.metrics
    if metrics is None or not metrics.consumers:
        return None
    names = sorted(sections.consumers)[: metrics.consumers]
    return names[-1] if names else ""


def _same(some: Iterable[object], others: Iterable[object]) -> bool:
    """True if both are the same objects in the same order."""
    some, others = tuple(some), tuple(others)
    return len(some) == len(others) and all(map(is_, some, others))


def _union(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in parts:
        merged.update(part)
    return merged


def _collisions(parsed: Mapping[str, File], names: frozenset[Path]) -> list[Problem]:
    """Return a problem for each name that two files have."""
    if sum(len(file.names) for file in parsed.values()) == len(names):
        return []
    first: dict[Path, str] = {}
    problems = []
    for file, content in parsed.items():
        for path in sorted(content.names, key=str):
            if path in first:
                message = f"'{path[1]}' is given twice"
                where = Place(file, 0, 0)
                also = Place(first[path], 0, 0)
                problems.append(
                    Problem(
                        path=path,
                        message=message,
                        remedy="rename one of them",
                        place=where,
                        also=also,
                        at_key=True,
                    )
                )
            first.setdefault(path, file)
    return problems


def _without_sources(parsed: dict[str, File]) -> dict[str, File]:
    """The files without those that another one refers to, such as an OpenAPI document: they describe no gateway.

    While a file has errors it is not known to which documents it refers, so no OpenAPI document counts as a part of the gateway.
    """
    sources = {
        posixpath.normpath(one.file)
        for name, file in parsed.items()
        for _, one in file.references
        if one.file is not None and posixpath.normpath(one.file) != name
    }
    documents = {name for name, file in parsed.items() if _describes_an_api(file)}
    if any(one.severity == "error" for name in parsed.keys() - documents for one in parsed[name].problems):
        sources |= documents
    return {name: file for name, file in parsed.items() if name not in sources} if sources else parsed


def _describes_an_api(file: File) -> bool:
    return any(problem.path in (("openapi",), ("swagger",)) for problem in file.problems)


def load_sources(
    references: Sequence[tuple[Path, DataSource]],
    load: Load,
    environment: Mapping[str, str],
    compile_protos: CompileProtos,
    names_in: Names = no_folders,
) -> tuple[dict[DataSource, bytes], list[Problem]]:
    """Return the content of each source, with what is compiled from it, and problems. `references` have the paths too.

    The content of a pattern such as ``queries/*.graphql`` is the names of its files.
    """
    contents: dict[DataSource, bytes] = {}
    problems: list[Problem] = []
    for path, source in references:
        if source in contents:
            continue
        if source.env is not None:
            if source.env not in environment:
                message, remedy = f"the environment variable {source.env} is not set", "set it"
                problems.append(Problem(path=(*path, "env"), message=message, remedy=remedy))
            else:
                contents[source] = environment[source.env].encode()
        elif source.file is not None:
            try:
                contents[source] = _matching(source, names_in) if source.pattern else load(source.file)
                _follow(source, contents, load)
            except OSError as error:
                reason = error.strerror or type(error).__name__
                message, remedy = f"the file cannot be read: {reason}", source.missing
                problems.append(
                    Problem(
                        path=(*path, "file"),
                        message=message,
                        remedy=remedy,
                        value=short_repr(source.file),
                    )
                )
        elif source.inline is not None and not isinstance(source, SecretSource):
            contents[source] = source.inline.encode()
    problems += dict.fromkeys(_compile(references, contents, compile_protos))
    return contents, problems


def _compile(
    references: Sequence[tuple[Path, DataSource]],
    contents: dict[DataSource, bytes],
    compile_protos: CompileProtos,
) -> Iterator[Problem]:
    """Add the descriptor sets of all .proto files to `contents`, and yield their errors."""
    for path, source in references:
        if isinstance(source, ProtoFile) and source in contents and source.compiled not in contents:
            yield from _compiled(path, source, contents, compile_protos)


def _compiled(
    path: Path, source: ProtoFile, contents: dict[DataSource, bytes], compile_protos: CompileProtos
) -> Iterator[Problem]:
    """Add the descriptor set of a .proto file to `contents`, or yield its errors."""
    files = source.sources(contents)
    try:
        contents[source.compiled] = compile_protos({name: content for name, (_, content) in files.items()})
    except ProtoErrors as errors:
        for fault in errors.faults:
            file, content = files[fault.file]
            lines = content.decode("utf-8", "replace").splitlines()
            text = lines[fault.line - 1].strip() if fault.line <= len(lines) else ""
            yield Problem(
                path=path,
                message=fault.message,
                value=short_repr(text) if text else None,
                remedy=_MISSING if "was not found" in fault.message else "mend the .proto file",
                place=Place(file, fault.line, fault.column),
            )


def _matching(source: DataSource, names_in: Names) -> bytes:
    """Return the paths of the files that a pattern stands for, one a line. Raises OSError if there are none."""
    folder, _, pattern = (source.file or "").rpartition("/")
    if "*" in folder:
        raise FileNotFoundError(2, "only the last part of a path may be a pattern", source.file)
    found = sorted(
        name for name in names_in(folder or ".") if name[0] not in "._" and fnmatchcase(name, pattern)
    )
    if not found:
        raise FileNotFoundError(2, "no file has such a name", source.file)
    return "\n".join(posixpath.join(folder, name) for name in found).encode("utf-8", "surrogateescape")


_MISSING = "add it to the gateway's folder, or write {file: FILE, import_path: FOLDER}"


def _follow(source: DataSource, contents: dict[DataSource, bytes], load: Load) -> None:
    """Read the files that a file refers to, and so on."""
    waiting = [source]
    for waiting_source in waiting:
        for other in waiting_source.referenced(contents[waiting_source]):
            if other not in contents and other.file is not None:
                with suppress(OSError):
                    contents[other] = load(other.file)
                    waiting.append(other)
