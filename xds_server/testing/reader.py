"""Files of tests to tests: decoded, compared with the gateway, and with the place of every value. Does no IO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from filters.language import INVALID, Path, Place, Problem, Problems, decoder_for
from filters.language.problems import did_you_mean, short_repr
from xds_server.gateway import document
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.model.ports import ports
from xds_server.gateway.positions import redact_environment
from xds_server.testing.language import Answer, Case, Sent, Step, Suite, listed
from xds_server.translate.explain import Explanation, Request, explain

Answers = Mapping[str, tuple[Answer, ...]]
"""The answers of the stubs by upstream, in the order in which they are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A step of a test with its complete URL, and what the gateway will do. `path` is that of the step in the file."""

    path: Path
    step: Step
    url: str
    explanation: Explanation = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayTest:
    """A test. `answers` has the test's own ones first.

    `variables` are texts that contain the value of an environment variable, which may be secret, and how they are written.
    """

    file: str
    name: str
    exchanges: tuple[Exchange, ...]
    answers: Answers
    variables: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    positions: document.Positions = field(repr=False, compare=False)

    @property
    def path(self) -> Path:
        """The path of the test in its file."""
        return ("tests", self.name)

    @property
    def moves_clock(self) -> bool:
        """True if the test moves the clock, which all tests share."""
        return any(one.step.after for one in self.exchanges)

    def place(self, path: Path) -> Place:
        """Return the place of a path in the file: of the key, if it is that of this test."""
        return self.positions.of(path, at_key=path == self.path)


@dataclass(frozen=True, slots=True)
class Reading:
    """The tests of all files, and the problems that keep them from being run."""

    tests: tuple[GatewayTest, ...]
    problems: tuple[Problem, ...]


def read(files: Mapping[str, bytes], environment: Mapping[str, str], gateway: Gateway) -> Reading:
    """Read files of tests of a gateway. Never raises for errors of the user."""
    tests: list[GatewayTest] = []
    problems: list[Problem] = []
    for name, content in sorted(files.items()):
        found = Problems()
        parsed = document.parse(name, content, environment, what="a file of tests", first="tests:")
        positions = document.Positions(name, content)
        if parsed.whole:
            tests += _tests(name, parsed, positions, gateway, found)
        problems += [
            redact_environment(
                one if one.place else replace(one, place=positions.of(one.path, at_key=one.at_key)),
                parsed.read,
            )
            for one in (*parsed.problems, *found)
        ]
    return Reading(tuple(tests), tuple(problems))


def _tests(
    file: str,
    parsed: document.Document,
    positions: document.Positions,
    gateway: Gateway,
    problems: Problems,
) -> Iterator[GatewayTest]:
    """Yield the tests of a file. Keys that begin with ``x-`` are for anchors."""
    written = {key: value for key, value in parsed.values.items() if not key.startswith("x-")}
    suite = decoder_for(Suite)(written, (), problems)
    problems += list(_unknown(problems, gateway))
    if suite is INVALID:
        return
    for name, case in suite.tests.items():
        yield GatewayTest(
            file=file,
            name=name,
            exchanges=tuple(_exchanges(("tests", name), case, gateway, problems)),
            answers=_answers(case, suite),
            variables=tuple(set(parsed.read.values())),
            positions=positions,
        )


def _unknown(problems: Problems, gateway: Gateway) -> Iterator[Problem]:
    """Yield a problem for each name that the gateway does not have."""
    for path, section, name in problems.names:
        known = getattr(gateway.sections, section)
        if name not in known:
            remedy = did_you_mean(name, known) or f"add it to the gateway, under '{section}:'"
            at_key = path[-1:] == (name,)
            message = f"the gateway has no '{name}' in {section}"
            yield Problem(path=path, message=message, value=short_repr(name), remedy=remedy, at_key=at_key)


def _answers(case: Case, suite: Suite) -> Answers:
    found: dict[str, tuple[Answer, ...]] = {}
    for one in (case.upstreams, suite.upstreams):
        for upstream, answers in one.items():
            found[upstream] = (*found.get(upstream, ()), *listed(answers))
    return found


def _exchanges(path: Path, case: Case, gateway: Gateway, problems: Problems) -> Iterator[Exchange]:
    for below, step in case.all_steps:
        sent, where = step.request, (*path, *below, "request")
        url = sent.url if not sent.url.startswith("/") else _origin(gateway, sent) + sent.url
        headers = sent.all_headers
        request = Request(method=sent.method, url=url, headers=headers)
        try:
            explanation = explain(gateway, request, sent.listener)
        except ValueError as error:
            remedy = "write a URL of a listener, or 'listener'"
            problems.append(
                Problem(path=where, message=str(error), value=short_repr(sent.url), remedy=remedy)
            )
            continue
        listener = gateway.sections.listeners[explanation.listener]
        if not listener.bind or listener.protocol == "udp":
            message = (
                f"the listener '{explanation.listener}' opens no TCP port, so no request can be sent to it"
            )
            problems.append(Problem(path=where, message=message, remedy="write a URL of another listener"))
        else:
            yield Exchange(path=(*path, *below), step=step, url=url, explanation=explanation)


def _origin(gateway: Gateway, sent: Sent) -> str:
    """Return scheme, host and port for a path: those of the request's listener, or of the first one."""
    for port in ports(gateway.sections):
        for name, listener in port.http.items():
            if sent.listener == name or (sent.listener is None and port.transport == "tcp" and listener.bind):
                host = next((one for one in port.own(name) if not one.startswith("*")), "localhost")
                scheme, usual = ("http", 80) if listener.tls is None else ("https", 443)
                return f"{scheme}://{host}" + ("" if port.number == usual else f":{port.number}")
    return "http://localhost"
