"""Output that several commands share: problems for people and for programs, JSON and YAML."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from filters.language import Place, Problem

RED, YELLOW, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"


def data(value: Any, form: str) -> None:
    """Print a value as JSON or YAML, its keys in the given order."""
    if form == "yaml":
        import yaml

        yaml.dump(value, sys.stdout, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
    else:
        print(json.dumps(value, indent=2, ensure_ascii=False))


def problem_fields(problem: Problem) -> dict[str, Any]:
    """Return a problem as data."""
    return {
        "severity": problem.severity,
        "place": _place(problem.place),
        "path": problem.where,
        "message": problem.message,
        "value": problem.value,
        "remedy": problem.remedy,
        "also": _place(problem.also),
    }


def _place(place: Place | None) -> dict[str, Any] | None:
    return {"file": place.file, "line": place.line, "column": place.column} if place else None


def problems(found: Iterable[Problem], output: str = "text") -> None:
    """Print problems, as JSON or YAML to standard output or as lines to standard error."""
    listed = tuple(found)
    if output != "text":
        data({"problems": [problem_fields(problem) for problem in listed]}, output)
        return
    colour = sys.stderr.isatty()
    for problem in listed:
        print(_line(problem, colour=colour), file=sys.stderr)
    print(_summary(listed), file=sys.stderr)


def _line(problem: Problem, *, colour: bool) -> str:
    text = str(problem)
    also = f"\n    see also: {problem.also}" if problem.also else ""
    if colour:
        shade = RED if problem.severity == "error" else YELLOW
        text = text.replace(f"{problem.severity}:", f"{shade}{problem.severity}:{PLAIN}", 1)
    return text + also


def _summary(listed: tuple[Problem, ...]) -> str:
    errors = sum(problem.severity == "error" for problem in listed)
    return f"{counted(errors, 'error')}, {counted(len(listed) - errors, 'warning')}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 route``, ``2 routes``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
