"""One file of a gateway: parsed and decoded once for its content, with the place of each of its own problems."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

from filters.language import INVALID, DataSource, Decoder, Path, Problem, Problems, decoder_for
from filters.language.problems import did_you_mean, short_repr
from filters.model.geoip import Geoip
from xds_server.gateway import document
from xds_server.gateway.model import precedence_rank
from xds_server.gateway.model.gateway import Sections
from xds_server.gateway.model.policies import Policies
from xds_server.gateway.model.portal import Portal
from xds_server.gateway.model.precedence_rank import Keys, Ranked
from xds_server.gateway.model.rollout import Rollout
from xds_server.gateway.model.telemetry import Telemetry

NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?")
RESERVED = ("sources",)
HINTS = get_type_hints(Sections)


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """One decoded file.

    `variables` and `read` are those of Document. `names` are (section, name) of everything in the file, also of
    objects with problems. `refers` has the path, section and name of every reference, and `targets` the same without
    the paths. A file that is not `whole` is not YAML, so its content is unknown.
    """

    sections: Mapping[str, Mapping[str, Any]]
    ranked: Mapping[str, Ranked]
    keys: Keys
    names: frozenset[Path]
    problems: tuple[Problem, ...]
    references: tuple[tuple[Path, DataSource], ...]
    refers: tuple[tuple[Path, str, str], ...]
    targets: frozenset[Path]
    variables: Mapping[str, str | None]
    read: Mapping[Path, tuple[str, str]]
    whole: bool


_WHOLE: dict[str, Decoder] = {
    "policies": Policies.decode_value,
    "telemetry": decoder_for(Telemetry),
    "rollout": decoder_for(Rollout),
    "portal": decoder_for(Portal),
    "geoip": decoder_for(Geoip),
}
"""Sections with fixed keys, which are decoded as a whole."""
_ITEMS: dict[str, Decoder] = {
    field.name: decoder_for(HINTS[field.name].__args__[1])
    for field in fields(Sections)
    if field.name not in _WHOLE
}


def decode(file: str, content: bytes, environment: Mapping[str, str], before: File | None = None) -> File:
    """Return one decoded file. Never raises for errors of the user.

    Objects that were the same in the file `before` stay the same objects, so that nothing is made from them again.
    """
    parsed = document.parse(file, content, environment)
    problems = Problems()
    names: set[Path] = set()
    sections: dict[str, Mapping[str, Any]] = {}
    for section, value in parsed.values.items():
        if section.startswith("x-"):
            continue  # for anchors, as in compose files
        if section not in HINTS:
            problems.append(_unknown_section(section))
        elif value is None:
            continue
        elif not isinstance(value, dict):
            message = "expected a mapping from name to object"
            problems.append(
                Problem(path=(section,), message=message, value=short_repr(value), remedy="write NAME: {…}")
            )
        else:
            names |= {(section, name) for name in value}
            known = before.sections.get(section, {}) if before is not None else {}
            items = _section(section, value, problems)
            sections[section] = {name: _kept(known.get(name), item) for name, item in items.items()}
    ranked = precedence_rank.ranked(sections.get("routes", {}))
    if before is not None:
        old = before.ranked
        ranked |= {
            name: old[name] for name, one in ranked.items() if name in old and old[name].route is one.route
        }
    return File(
        sections=sections,
        ranked=ranked,
        keys=Keys.of(ranked.values()),
        names=frozenset(names),
        problems=tuple(_located([*parsed.problems, *problems], file, content)),
        references=tuple(problems.references),
        refers=tuple(problems.names),
        targets=frozenset((section, name) for _, section, name in problems.names),
        variables=parsed.variables,
        read=parsed.read,
        whole=parsed.whole,
    )


def _section(section: str, value: dict[str, Any], problems: Problems) -> dict[str, Any]:
    if section in _WHOLE:
        decoded = _WHOLE[section](value, (section,), problems)
        return {} if decoded is INVALID else dict(decoded)
    decode = _ITEMS[section]
    items: dict[str, Any] = {}
    for name, item in value.items():
        if not NAME.fullmatch(name):
            remedy = "use letters, digits, - _ and ., at most 128"
            problems.append(
                Problem(path=(section, name), message="not a usable name", remedy=remedy, at_key=True)
            )
            continue
        decoded = decode(item if item is not None else {}, (section, name), problems)
        if decoded is not INVALID:
            items[name] = decoded
    return items


def _kept(before: Any, item: Any) -> Any:
    """Return the object `before` if it is the same. Its text is compared too, because `==` ignores the order of keys."""
    return before if before == item and repr(before) == repr(item) else item


def _unknown_section(section: str) -> Problem:
    if section in RESERVED:
        message, remedy = f"'{section}' is reserved for a later version", "remove it"
    else:
        message, remedy = f"unknown section '{section}'", did_you_mean(section, HINTS)
    return Problem(path=(section,), message=message, remedy=remedy, at_key=True)


def _located(problems: Iterable[Problem], file: str, content: bytes) -> Iterator[Problem]:
    positions = document.Positions(file, content)
    for problem in problems:
        if problem.place is None:
            yield replace(problem, place=positions.of(problem.path, at_key=problem.at_key))
        else:
            yield problem
