"""One report of everything that a pipeline checks of a gateway: text, JSON, JUnit's XML and Markdown. Does no IO."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from xml.etree import ElementTree

from filters.language import Problem
from xds_server.testing import report
from xds_server.testing.results import Results
from xds_server.translate import diff_report

_MOST = 20
"""Problems, and failed tests, in Markdown."""
_LINES = 40
"""Lines of a failed test in Markdown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found. `left_out` says why a step was not done, by its name: envoy, tests or diff.

    `problems` are those of the gateway and of its tests, `rejected` those that Envoy found. `against` is the name of the
    other gateway of the diff.
    """

    folder: str
    problems: tuple[Problem, ...] = ()
    rejected: tuple[Problem, ...] = ()
    results: Results | None = None
    against: str = ""
    diff: diff_report.Report | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems because of which the gateway cannot be served, or its tests not be read."""
        return tuple(one for one in self.problems if one.severity == "error")

    @property
    def passed(self) -> bool:
        """True if nothing is wrong with the gateway."""
        return not self.errors and not self.rejected and not (self.results and self.results.failed)


def _steps(checked: Checked) -> Iterator[tuple[str, bool, str]]:
    """Yield each step with whether nothing is wrong, and a few words about it."""
    warnings = len(checked.problems) - len(checked.errors)
    words = f"{_counted(len(checked.errors), 'error')}, {_counted(warnings, 'warning')}"
    yield "check", not checked.errors, words
    rejected = "accepted" if not checked.rejected else f"{_counted(len(checked.rejected), 'object')} rejected"
    yield "envoy", not checked.rejected, _or_why(checked, "envoy", rejected)
    failed = checked.results.failed if checked.results else 0
    total = len(checked.results.tests) if checked.results else 0
    yield "tests", not failed, _or_why(checked, "tests", f"{total - failed} passed, {failed} failed")
    changes = (
        f"{_counted(len(checked.diff.objects) if checked.diff else 0, 'change')} against {checked.against}"
    )
    yield "diff", True, _or_why(checked, "diff", changes)


def _or_why(checked: Checked, step: str, words: str) -> str:
    return f"left out: {checked.left_out[step]}" if step in checked.left_out else words


def as_text(checked: Checked) -> Iterator[str]:
    """Yield lines for people: problems first, and each step with its result last."""
    yield from map(str, (*checked.problems, *checked.rejected))
    if checked.results is not None:
        yield from report.as_text(checked.results)
    if checked.diff is not None:
        yield from diff_report.as_text(checked.diff, resources=False)
    yield ""
    for name, fine, words in _steps(checked):
        yield f"{name}: {words}" if fine else f"{name}: FAILED: {words}"
    yield f"{checked.folder}: {'passed' if checked.passed else 'FAILED'}"


def as_json(checked: Checked) -> dict[str, Any]:
    """Return the report for programs."""
    return {
        "passed": checked.passed,
        "folder": checked.folder,
        "steps": [
            {"name": name, "passed": fine, "left_out": name in checked.left_out, "result": words}
            for name, fine, words in _steps(checked)
        ],
        "problems": [_fields(one) for one in checked.problems],
        "rejected_by_envoy": [_fields(one) for one in checked.rejected],
        "tests": report.as_json(checked.results) if checked.results is not None else None,
        "diff": diff_report.as_json(checked.diff) if checked.diff is not None else None,
    }


def as_junit(checked: Checked) -> str:
    """Return XML for pipelines: a suite for the check, one for Envoy, and one for each file of tests."""
    parts = [report.problem_suite("check", checked.errors)]
    if "envoy" not in checked.left_out:
        parts.append(report.problem_suite("envoy", checked.rejected))
    if checked.results is not None:
        parts += report.suites(checked.results)
    else:
        parts += _skipped(checked)
    return report.junit(parts)


def _skipped(checked: Checked) -> Iterator[ElementTree.Element]:
    suite = ElementTree.Element("testsuite", {"name": "tests", "tests": "1", "failures": "0", "errors": "0"})
    case = ElementTree.SubElement(suite, "testcase", {"name": "tests", "classname": "tests"})
    ElementTree.SubElement(case, "skipped", {"message": checked.left_out.get("tests", "")})
    yield suite


def as_markdown(checked: Checked) -> Iterator[str]:
    """Yield lines of a comment on a merge request: it depends on what was found only, and no value is taken for markup."""
    escaped = diff_report.escaped
    yield f"### Gateway {escaped(checked.folder)}: {'passed' if checked.passed else 'failed'}"
    yield from ("", "| step | result |", "|---|---|")
    for name, fine, words in _steps(checked):
        yield f"| {name} | {'' if fine else '**failed**: '}{escaped(words)} |"
    found: Sequence[Problem] = (*checked.errors, *checked.rejected)
    if found:
        yield ""
        yield from (f"- {escaped(str(one))}" for one in found[:_MOST])
        yield from _more(len(found))
    failed = [one for one in checked.results.tests if one.failure is not None] if checked.results else []
    for one in failed[:_MOST]:
        yield from ("", *_fenced(list(islice(report.failed_test(one), _LINES))))
    yield from _more(len(failed))
    if checked.diff is not None:
        yield ""
        yield from diff_report.as_markdown(checked.diff, resources=False)


def _fenced(lines: Sequence[str]) -> Iterator[str]:
    """Yield lines as code. The fence has more backticks than any line (CommonMark 0.31 section 4.5)."""
    longest = max((len(one) for line in lines for one in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    yield from (f"{fence}text", *lines, fence)


def _more(number: int) -> Iterator[str]:
    if number > _MOST:
        yield from ("", f"and {number - _MOST} more")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _fields(problem: Problem) -> dict[str, Any]:
    place = problem.place
    return {
        "severity": problem.severity,
        "place": {"file": place.file, "line": place.line, "column": place.column} if place else None,
        "message": str(problem),
    }
