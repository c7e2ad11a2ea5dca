"""Results of tests for people, for programs (JSON) and for pipelines (JUnit's XML). Does no IO."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

from filters.language import Place, Problem, printable
from xds_server.testing.comparison import Difference, Outcome, Received, messages_of, shown
from xds_server.testing.messages import Types
from xds_server.testing.reader import Exchange
from xds_server.testing.results import Failure, Result, Results, without_variables
from xds_server.translate.explanation_lines import lines

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not have (section 2.2)."""


def as_text(results: Results) -> Iterator[str]:
    """Yield the lines about failed tests for people, and a last line with the numbers."""
    for result in results.tests:
        if result.failure is not None:
            yield from failed_test(result)
            yield ""
    if results.failed and results.warnings:
        yield "the policy server says:"
        yield from (f"  {printable(line)}" for line in results.warnings)
        yield ""
    passed = len(results.tests) - results.failed
    yield f"{passed} passed, {results.failed} failed in {results.seconds:.1f} s"


def failed_test(result: Result) -> Iterator[str]:
    """Yield the lines about one failed test for people."""
    assert result.failure is not None
    yield f"{_place(result)}: FAILED: {printable(result.test.name)}"
    yield from (f"  {without_variables(result.variables, line)}" for line in _failure(result, result.failure))


def as_json(results: Results) -> dict[str, Any]:
    """Return the results for programs."""
    return {
        "passed": len(results.tests) - results.failed,
        "failed": results.failed,
        "seconds": round(results.seconds, 3),
        "tests": [
            {
                "name": one.test.name,
                "place": _fields(_place(one)),
                "passed": one.failure is None,
                "seconds": round(one.seconds, 3),
                **(
                    {}
                    if one.failure is None
                    else {"failure": without_variables(one.variables, _failure_fields(one, one.failure))}
                ),
            }
            for one in results.tests
        ],
        "warnings": list(results.warnings),
    }


def as_junit(results: Results) -> str:
    """Return the results as XML for pipelines.

    https://github.com/testmoapp/junitxml
    """
    return junit(suites(results))


def problems_as_junit(problems: Sequence[Problem]) -> str:
    """Return XML for pipelines if the tests cannot be run: an error for each problem."""
    return junit([problem_suite("gateway", problems)])


def suites(results: Results) -> Iterator[ElementTree.Element]:
    """Yield a suite of JUnit for each file of tests."""
    for file, some in groupby(results.tests, lambda one: one.test.file):
        members = tuple(some)
        suite = ElementTree.Element("testsuite", _in_xml({"name": file, **_counts(members)}))
        for one in members:
            attributes = {"name": one.test.name, "classname": file, "time": f"{one.seconds:.3f}"}
            place = _place(one)
            attributes |= {"file": place.file, "line": str(place.line)}
            case = ElementTree.SubElement(suite, "testcase", _in_xml(attributes))
            if one.failure is not None:
                found = one.failure.differences[0]
                message = f"{_name(found)}: expected {found.expected}, found {found.found}"
                message = without_variables(one.variables, message)
                node = ElementTree.SubElement(case, "failure", _in_xml({"message": message}))
                text = without_variables(one.variables, "\n".join(_failure(one, one.failure)))
                node.text = _NOT_XML.sub("\ufffd", text)
        if results.failed and results.warnings:
            node = ElementTree.SubElement(suite, "system-err")
            node.text = _NOT_XML.sub("\ufffd", "\n".join(results.warnings))
        yield suite


def problem_suite(name: str, problems: Sequence[Problem]) -> ElementTree.Element:
    """Return a suite of JUnit with an error for each problem, or with one case that passed."""
    number = str(len(problems))
    suite = ElementTree.Element(
        "testsuite", {"name": name, "tests": str(len(problems) or 1), "failures": "0", "errors": number}
    )
    if not problems:
        ElementTree.SubElement(suite, "testcase", {"name": name, "classname": name})
    for one in problems:
        where = {"file": one.place.file, "line": str(one.place.line)} if one.place else {}
        case = str(one.place) if one.place else name
        node = ElementTree.SubElement(suite, "testcase", _in_xml({"name": case, "classname": name, **where}))
        ElementTree.SubElement(node, "error", _in_xml({"message": str(one)}))
    return suite


def junit(parts: Iterable[ElementTree.Element]) -> str:
    """Return suites of JUnit as one document."""
    root = ElementTree.Element("testsuites")
    root.extend(parts)
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in root):.3f}")
    return _document(root)


def _document(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode")


def _in_xml(attributes: dict[str, str]) -> dict[str, str]:
    return {name: _NOT_XML.sub("\ufffd", value) for name, value in attributes.items()}


def _counts(results: Sequence[Result]) -> dict[str, str]:
    failed = sum(one.failure is not None for one in results)
    seconds = sum(one.seconds for one in results)
    return {"tests": str(len(results)), "failures": str(failed), "errors": "0", "time": f"{seconds:.3f}"}


def _failure(result: Result, failure: Failure) -> Iterator[str]:
    """Yield what was sent, what differs, what came instead, and what the gateway says of such a request."""
    exchange, times = failure.exchange, failure.exchange.step.times
    which = f" (number {failure.repetition + 1} of {times})" if times > 1 else ""
    sent = exchange.step.request
    kind = "HTTP/2 " if sent.http2 else ""
    if sent.grpc is not None:
        kind = "gRPC-Web " if sent.grpc.web else "gRPC "
    yield f"request: {kind}{sent.verb} {exchange.url}{which}"
    for difference in failure.differences:
        yield f"{_place_of(result, exchange, difference)}: {_name(difference)}"
        yield from (f"  - {line}" for line in _lines(difference.expected))
        yield from (f"  + {line}" for line in _lines(difference.found))
    yield from _outcome(failure.outcome, result.test.types)
    yield _command(exchange)
    yield from (f"  {printable(line)}" for line in lines(exchange.explanation))


def _outcome(outcome: Outcome, types: Types) -> Iterator[str]:
    if not outcome.error:
        details = f" ({outcome.details})" if outcome.details else ""
        yield f"response: {outcome.status}{details}"
        for name, value in outcome.headers:
            yield printable(f"  {name}: {value}")
        yield from (f"  {line}" for line in _lines(_body(outcome, types)) if line)
        for name, value in outcome.trailers:
            yield printable(f"  trailer {name}: {value}")
        if outcome.call is not None:
            text = f": {outcome.grpc_message}" if outcome.grpc_message else ""
            yield printable(f"gRPC status: {outcome.grpc_status or 'none'}{text}")
    for one in outcome.received:
        yield printable(f"upstream {one.upstream} got: {one.method} {one.path}")
        for name, value in one.headers:
            yield printable(f"  {name}: {value}")
        messages = _received_messages(one, types)
        if messages is not None:
            yield from (f"  {line}" for line in _lines(messages) if line)


def _body(outcome: Outcome, types: Types) -> str:
    found = None if outcome.call is None else messages_of(types, outcome.call, outcome.body, request=False)
    return shown(outcome.body) if found is None else found


def _received_messages(received: Received, types: Types) -> str | None:
    return messages_of(types, received.path.removeprefix("/"), received.frames, request=True)


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text, in which nothing controls a terminal."""
    yield from map(printable, text.split("\n"))


def _command(exchange: Exchange) -> str:
    sent = exchange.step.request
    words = ["xds", "explain", "FOLDER", sent.verb, exchange.url]
    if sent.listener is not None:
        words += ["--listener", sent.listener]
    for name, value in sent.all_headers.items():
        words += ["-H", f"{name}: {value}"]
    return printable(shlex.join(words))


def _failure_fields(result: Result, failure: Failure) -> dict[str, Any]:
    outcome, types = failure.outcome, result.test.types
    sent = failure.exchange.step.request
    return {
        "request": {
            "method": sent.verb,
            "url": failure.exchange.url,
            "http2": sent.http2 or sent.grpc is not None,
            "grpc": sent.grpc.method if sent.grpc is not None else None,
        },
        "differences": [
            {
                "place": _fields(_place_of(result, failure.exchange, one)),
                "what": _name(one),
                "expected": one.expected,
                "found": one.found,
            }
            for one in failure.differences
        ],
        "response": {
            "status": outcome.status or None,
            "error": outcome.error or None,
            "headers": [list(one) for one in outcome.headers],
            "body": _body(outcome, types),
            "trailers": [list(one) for one in outcome.trailers],
            "grpc_status": outcome.grpc_status,
            "grpc_message": outcome.grpc_message or None,
            "route": outcome.route,
            "reason": outcome.reason,
            "details": outcome.details,
        },
        "upstream_requests": [
            {
                "upstream": one.upstream,
                "method": one.method,
                "path": one.path,
                "headers": [list(pair) for pair in one.headers],
                "body": shown(one.body) if (found := _received_messages(one, types)) is None else found,
            }
            for one in outcome.received
        ],
        "explanation": list(lines(failure.exchange.explanation)),
    }


def _name(difference: Difference) -> str:
    return printable(".".join(map(str, difference.path))) or "response"


def _place(result: Result) -> Place:
    return result.test.place(result.test.path)


def _place_of(result: Result, exchange: Exchange, difference: Difference) -> Place:
    return result.test.place((*exchange.path, "expect", *difference.path))


def _fields(place: Place) -> dict[str, Any]:
    return {"file": place.file, "line": place.line, "column": place.column}
