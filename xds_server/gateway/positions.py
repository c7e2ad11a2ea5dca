"""The place of every problem, and of every path that a caller needs later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from filters.language import Path, Place, Problem
from filters.language.problems import short_repr
from xds_server.gateway.document import Positions
from xds_server.gateway.files import File

_NOWHERE = Place("", 0, 0)
_TELLING = 6
"""A text with fewer characters may be in a message by chance, without being the variable's value."""


def placed(
    problems: Iterable[Problem], parsed: Mapping[str, File], contents: Mapping[str, bytes]
) -> Iterator[Problem]:
    """Yield problems in the order of the files, errors first, each with its place."""
    positions = {name: Positions(name, contents[name]) for name in parsed}
    result = []
    for problem in problems:
        file = problem.place.file if problem.place else owner(parsed, problem.path)
        if file is not None and (problem.place is None or problem.place.line == 0):
            place = positions[file].of(problem.path, at_key=problem.at_key)
            problem = replace(problem, place=place)
        if problem.also_path and (other := owner(parsed, problem.also_path)) is not None:
            problem = replace(problem, also=positions[other].of(problem.also_path, at_key=True))
        elif problem.also is not None and problem.also.line == 0:
            also = positions[problem.also.file].of(problem.path, at_key=True)
            problem = replace(problem, also=also)
        owned = parsed.get(file or "")  # a place may be in a file that the gateway refers to
        result.append(problem if owned is None else redact_environment(problem, owned.read))
    yield from sorted(
        result, key=lambda problem: (problem.severity, problem.place or _NOWHERE, problem.message)
    )


def redact_environment(problem: Problem, read: Mapping[Path, tuple[str, str]]) -> Problem:
    """Return the problem without values of environment variables, which may be secret: ``${NAME}`` replaces them."""
    for path, (text, written) in read.items():
        if path == problem.path and problem.value is not None:
            problem = replace(problem, value=short_repr(written))
        if len(text) >= _TELLING:
            problem = replace(problem, message=_without(problem.message, text, written))
    return problem


def _without(message: str, text: str, written: str) -> str:
    for shown in (short_repr(text), text):
        message = message.replace(shown, written)
    return message


def finder(parsed: Mapping[str, File], contents: Mapping[str, bytes]) -> Callable[[Path], Place | None]:
    """Return a function from a path to its place, to attribute errors after reading. It composes a file once."""
    positions: dict[str, Positions] = {}

    def place(path: Path) -> Place | None:
        file = owner(parsed, path)
        if file is None:
            return None
        if file not in positions:
            positions[file] = Positions(file, contents[file])
        return positions[file].of(path, at_key=True)

    return place


def owner(parsed: Mapping[str, File], path: Path) -> str | None:
    """Return the file that contains the object of a path, or None."""
    for name, file in parsed.items():
        if path[:2] in file.names or (len(path) == 1 and path[0] in file.sections):
            return name
    return None
