"""Files to a gateway: every file is parsed and decoded once for its content, then all are joined and checked.

Nothing here does IO: the bytes of the files come in, and what they refer to is asked for through `load`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, get_type_hints

from filters.language import (
    INVALID,
    DataSource,
    Decoder,
    Path,
    Place,
    Problem,
    Problems,
    decoder_for,
)
from filters.language.datasource import SecretSource
from filters.language.problems import did_you_mean, shown
from filters.policy import Context
from xds_server.gateway import checks, document
from xds_server.gateway.model.attached import Policies, merge
from xds_server.gateway.model.gateway import Gateway, Sections

Load = Callable[[str], bytes]
"""Reads a file that the gateway refers to. Raises OSError."""

RESERVED = ("catalog", "products", "portal", "graphql", "aggregate", "sources", "rollout")
HINTS = get_type_hints(Sections)


@dataclass(frozen=True, slots=True)
class Reading:
    """The result: a gateway, or None when there is an error. Warnings are among the problems."""

    gateway: Gateway | None
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep the gateway from being served."""
        return tuple(problem for problem in self.problems if problem.severity == "error")


@dataclass(frozen=True, slots=True)
class _File:
    """One file, decoded. `variables` are what it read from the environment."""

    sections: Mapping[str, Mapping[str, Any]]
    names: frozenset[Path]
    problems: tuple[Problem, ...]
    references: tuple[tuple[Path, DataSource], ...]
    refers: tuple[tuple[Path, str, str], ...]
    variables: Mapping[str, str | None]


class Reader:
    """Reads a gateway again and again; what did not change is not parsed, decoded or checked again."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, bytes], _File] = {}
        self._checked = checks.Memo()
        self._joined: Sections | None = None
        self._effective: dict[str, tuple[tuple[Any, ...], Mapping[str, Any]]] = {}

    def read(self, files: Mapping[str, bytes], load: Load, environment: Mapping[str, str]) -> Reading:
        """Read all files as one document. Never raises for what a user wrote."""
        parsed = self._parse(files, environment)
        problems = [problem for file in parsed.values() for problem in file.problems]
        problems += _collisions(parsed)
        sections = self._join(parsed)
        contents, missing = _contents(parsed, load, environment)
        problems += missing
        context = Context(
            providers=sections.identity,
            consumers=sections.consumers,
            plans=sections.plans,
            upstreams=frozenset(sections.upstreams),
            contents=contents,
        )
        policies = self._merge(sections)
        names: set[Path] = {name for file in parsed.values() for name in file.names}
        for file in parsed.values():
            problems += checks.references(file.refers, names)
        problems += checks.check(sections, policies, context, self._checked)
        placed = tuple(_placed(problems, parsed, files))
        if any(problem.severity == "error" for problem in placed):
            return Reading(None, placed)
        place = _finder(parsed, dict(files))
        gateway = Gateway(
            sections=sections, policies=policies, contents=contents, context=context, place=place
        )
        return Reading(gateway, placed)

    def _parse(self, files: Mapping[str, bytes], environment: Mapping[str, str]) -> dict[str, _File]:
        parsed: dict[str, _File] = {}
        kept: dict[tuple[str, bytes], _File] = {}
        for name in sorted(files):
            key = (name, hashlib.blake2b(files[name], digest_size=16).digest())
            known = self._files.get(key)
            if known is None or any(
                environment.get(name) != value for name, value in known.variables.items()
            ):
                known = _decode(name, files[name], environment)
            parsed[name] = kept[key] = known
        self._files = kept
        return parsed

    def _join(self, parsed: Mapping[str, _File]) -> Sections:
        """All files as one document; a section in which nothing changed stays the same object."""
        joined: dict[str, Any] = {}
        for name in HINTS:
            merged: dict[str, Any] = {}
            for file in parsed.values():
                merged.update(file.sections.get(name, ()))
            old = getattr(self._joined, name) if self._joined else None
            if (
                old is not None
                and len(old) == len(merged)
                and all(old.get(key) is merged[key] for key in merged)
            ):
                joined[name] = old
            elif HINTS[name] is Policies:
                joined[name] = Policies(merged)
            else:
                joined[name] = MappingProxyType(dict(sorted(merged.items())))
        self._joined = Sections(**joined)
        return self._joined

    def _merge(self, sections: Sections) -> Mapping[str, Mapping[str, Any]]:
        """The effective policies of each route; the same object as before where no level changed."""
        effective: dict[str, tuple[tuple[Any, ...], Mapping[str, Any]]] = {}
        for name, route in sections.routes.items():
            sets = [sections.policy_sets[one] for one in route.use if one in sections.policy_sets]
            levels = (sections.policies, *sets, route)
            known = self._effective.get(name)
            if known is not None and len(known[0]) == len(levels) and all(map(_same, known[0], levels)):
                effective[name] = known
            else:
                own = dict(route.policies)
                own |= {
                    key: getattr(route, key)
                    for key in ("request_headers", "response_headers")
                    if getattr(route, key)
                }
                effective[name] = (levels, merge(sections.policies, *sets, own))
        self._effective = effective
        return {name: settings for name, (_, settings) in effective.items()}


def _same(one: object, other: object) -> bool:
    return one is other


_ITEMS: dict[str, Decoder] = {
    field.name: decoder_for(HINTS[field.name].__args__[1])
    for field in fields(Sections)
    if field.name != "policies"
}


def _decode(file: str, content: bytes, environment: Mapping[str, str]) -> _File:
    parsed = document.parse(file, content, environment)
    problems = Problems()
    names: set[Path] = set()
    sections: dict[str, Mapping[str, Any]] = {}
    for section, value in parsed.values.items():
        if section not in HINTS:
            problems.append(_unknown_section(section))
        elif value is None:
            continue
        elif not isinstance(value, dict):
            message = "expected a mapping from name to object"
            problems.append(
                Problem(path=(section,), message=message, value=shown(value), remedy="write NAME: {…}")
            )
        else:
            names |= {(section, name) for name in value}
            sections[section] = _section(section, value, problems)
    return _File(
        sections=sections,
        names=frozenset(names),
        problems=tuple(_located([*parsed.problems, *problems], file, content)),
        references=tuple(problems.references),
        refers=tuple(problems.names),
        variables=parsed.variables,
    )


def _section(section: str, value: dict[str, Any], problems: Problems) -> dict[str, Any]:
    if section == "policies":
        decoded = Policies.decode_value(value, (section,), problems)
        return {} if decoded is INVALID else dict(decoded)
    decode = _ITEMS[section]
    items: dict[str, Any] = {}
    for name, item in value.items():
        if not checks.NAME.fullmatch(name):
            remedy = "use letters, digits, - _ and ., at most 128"
            problems.append(
                Problem(path=(section, name), message="not a usable name", remedy=remedy, at_key=True)
            )
            continue
        decoded = decode(item if item is not None else {}, (section, name), problems)
        if decoded is not INVALID:
            items[name] = decoded
    return items


def _unknown_section(section: str) -> Problem:
    if section in RESERVED:
        message, remedy = f"'{section}' is reserved for a later version", "remove it"
    else:
        message, remedy = f"unknown section '{section}'", did_you_mean(section, HINTS)
    return Problem(path=(section,), message=message, remedy=remedy, at_key=True)


def _located(problems: Iterable[Problem], file: str, content: bytes) -> Iterator[Problem]:
    for problem in problems:
        if problem.place is None:
            place = document.locate(file, content, problem.path, at_key=problem.at_key)
            yield replace(problem, place=place)
        else:
            yield problem


def _collisions(parsed: Mapping[str, _File]) -> list[Problem]:
    """Names that two files give."""
    total = sum(len(file.names) for file in parsed.values())
    if total == len(frozenset().union(*(file.names for file in parsed.values()))):
        return []
    first: dict[Path, str] = {}
    problems = []
    for file, content in parsed.items():
        for path in sorted(content.names, key=str):
            if path in first:
                message = f"'{path[1]}' is given twice, the first time in {first[path]}"
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


def _contents(
    parsed: Mapping[str, _File], load: Load, environment: Mapping[str, str]
) -> tuple[dict[DataSource, bytes], list[Problem]]:
    contents: dict[DataSource, bytes] = {}
    problems = []
    for file in parsed.values():
        for path, source in file.references:
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
                    contents[source] = load(source.file)
                except OSError as error:
                    reason = error.strerror or type(error).__name__
                    message, remedy = (
                        f"the file cannot be read: {reason}",
                        "paths are relative to the gateway's folder",
                    )
                    problems.append(
                        Problem(
                            path=(*path, "file"), message=message, remedy=remedy, value=shown(source.file)
                        )
                    )
            elif source.inline is not None and not isinstance(source, SecretSource):
                contents[source] = source.inline.encode()
    return contents, problems


def _owner(parsed: Mapping[str, _File], path: Path) -> str | None:
    for name, file in parsed.items():
        if path[:2] in file.names or (len(path) == 1 and path[0] in file.sections):
            return name
    return None


def _placed(
    problems: Iterable[Problem], parsed: Mapping[str, _File], files: Mapping[str, bytes]
) -> Iterator[Problem]:
    """Problems in the order of the files, each with its place."""
    result = []
    for problem in problems:
        file = problem.place.file if problem.place else _owner(parsed, problem.path)
        if file is not None and (problem.place is None or problem.place.line == 0):
            place = document.locate(file, files[file], problem.path, at_key=problem.at_key)
            problem = replace(problem, place=place)
        if problem.also is not None and problem.also.line == 0:
            other = problem.also.file
            problem = replace(problem, also=document.locate(other, files[other], problem.path, at_key=True))
        result.append(problem)
    order = Place("", 0, 0)
    yield from sorted(result, key=lambda problem: (problem.severity, problem.place or order, problem.message))


def _finder(parsed: Mapping[str, _File], files: Mapping[str, bytes]) -> Callable[[Path], Place | None]:
    def place(path: Path) -> Place | None:
        file = _owner(parsed, path)
        return document.locate(file, files[file], path, at_key=True) if file is not None else None

    return place
