"""What several commands print: problems for people and for machines, and JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

from filters.language import Place, Problem

RED, YELLOW, BOLD, DIM, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[2m", "\x1b[0m"


def add_output(parser: argparse.ArgumentParser) -> None:
    """The option --output, the same for every command."""
    parser.add_argument("--output", choices=("text", "json"), default="text", help="for people or machines")


def as_json(value: Any) -> None:
    """Print a value as JSON, keys in the order given."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def problem_fields(problem: Problem) -> dict[str, Any]:
    """A problem for machines."""
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
    """Print problems: as JSON to standard output, or as lines to standard error."""
    listed = tuple(found)
    if output == "json":
        as_json({"problems": [problem_fields(one) for one in listed]})
        return
    colour = sys.stderr.isatty()
    for one in listed:
        print(_line(one, colour=colour), file=sys.stderr)
    print(_summary(listed), file=sys.stderr)


def _line(problem: Problem, *, colour: bool) -> str:
    text = str(problem)
    also = f"\n    the other one: {problem.also}" if problem.also else ""
    if colour:
        shade = RED if problem.severity == "error" else YELLOW
        text = text.replace(f"{problem.severity}:", f"{shade}{problem.severity}:{PLAIN}", 1)
    return text + also


def _summary(listed: tuple[Problem, ...]) -> str:
    errors = sum(one.severity == "error" for one in listed)
    return f"{counted(errors, 'error')}, {counted(len(listed) - errors, 'warning')}"


def counted(number: int, noun: str) -> str:
    """``1 route``, ``2 routes``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
