"""Files of tests to tests: decoded, compared with the gateway, and with the place of every value. Does no IO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.descriptor import MethodDescriptor

from filters.grpc_transcoding.sources import CompiledProto, DescriptorFile
from filters.language import INVALID, DataSource, Mistake, Path, Place, Problem, Problems, decoder_for
from filters.language.problems import did_you_mean, short_repr
from xds_server.gateway import document
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.model.ports import ports
from xds_server.gateway.positions import redact_environment
from xds_server.gateway.reader import CompileProtos, Load, load_sources, no_compiler
from xds_server.testing.language import Answer, Asked, Case, Sent, Step, Suite, listed
from xds_server.testing.messages import Types, encoded, expected
from xds_server.translate.explain import Explanation, Request, explain

_SOURCES = (CompiledProto, DescriptorFile)
_BRIDGES = ("grpc_reverse_bridge", "grpc_reverse_transcoding")
"""Policies with which an upstream needs no HTTP/2 for gRPC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StubAnswer:
    """An answer of a stub. `messages` are those of gRPC."""

    answer: Answer
    messages: tuple[bytes, ...] = ()


Answers = Mapping[str, tuple[StubAnswer, ...]]
"""The answers of the stubs by upstream, in the order in which they are tried."""


Variables = tuple[tuple[str, str], ...]
"""Texts with the value of an environment variable, and how they are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A step of a test with its complete URL, and what the gateway will do. `path` is that of the step in the file.

    `messages` are those of a gRPC call.
    """

    path: Path
    step: Step
    url: str
    explanation: Explanation = field(repr=False)
    messages: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayTest:
    """A test. `answers` has the test's own ones first. `types` are those of gRPC messages.

    `variables` are texts that contain the value of an environment variable, which may be secret, and how they are written.
    """

    file: str
    name: str
    exchanges: tuple[Exchange, ...]
    answers: Answers
    types: Types = field(default_factory=Types, repr=False, compare=False)
    variables: Variables = field(default=(), repr=False)
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


def no_files(path: str) -> bytes:
    """Read nothing: there are no files beside those of the tests. Raises FileNotFoundError."""
    raise FileNotFoundError(2, "there is no such file", path)


def read(
    files: Mapping[str, bytes],
    environment: Mapping[str, str],
    gateway: Gateway,
    load: Load = no_files,
    compile_protos: CompileProtos = no_compiler,
) -> Reading:
    """Read files of tests of a gateway. Never raises for errors of the user.

    `load` returns a file in the gateway's folder, and `compile_protos` a descriptor set.
    """
    tests: list[GatewayTest] = []
    problems: list[Problem] = []
    for name, content in sorted(files.items()):
        found = Problems()
        parsed = document.parse(name, content, environment, what="a file of tests", first="tests:")
        positions = document.Positions(name, content)
        if parsed.whole:
            # keys that begin with x- are for anchors
            written = {key: value for key, value in parsed.values.items() if not key.startswith("x-")}
            suite = decoder_for(Suite)(written, (), found)
            found.extend(_unknown(found, gateway))
            sources, missing = load_sources(found.references, load, environment, compile_protos)
            found.extend(missing)
            if suite is not INVALID:
                types = _types({**gateway.contents, **sources}, found)
                variables = tuple(set(parsed.read.values()))
                tests += _tests(name, suite, positions, _Checks(gateway, types, found), variables)
        problems += [
            redact_environment(
                one if one.place else replace(one, place=positions.of(one.path, at_key=one.at_key)),
                parsed.read,
            )
            for one in (*parsed.problems, *found)
        ]
    return Reading(tuple(tests), tuple(problems))


@dataclass(frozen=True, slots=True)
class _Checks:
    """What the tests of a file are compared with, and the problems of the file so far."""

    gateway: Gateway
    types: Types
    problems: Problems

    def report(self, mistake: Mistake, path: Path) -> None:
        """Add a mistake below a path to the problems."""
        value = None if mistake.value is ... else short_repr(mistake.value)
        self.problems.append(
            Problem(path=(*path, *mistake.path), message=mistake.message, remedy=mistake.remedy, value=value)
        )


def _types(contents: Mapping[DataSource, bytes], problems: Problems) -> Types:
    """Return the types of all descriptor sets. One that is not valid is a problem of the gateway, or of this file."""
    try:
        return Types(content for source, content in contents.items() if isinstance(source, _SOURCES))
    except Mistake as mistake:
        problems.append(Problem(path=("descriptors",), message=mistake.message, remedy=mistake.remedy))
        return Types()


def _tests(
    file: str, suite: Suite, positions: document.Positions, checks: _Checks, variables: Variables
) -> Iterator[GatewayTest]:
    shared = _answers((), suite.upstreams, checks)
    for name, case in suite.tests.items():
        path = ("tests", name)
        own = _answers(path, case.upstreams, checks)
        yield GatewayTest(
            file=file,
            name=name,
            exchanges=tuple(_exchanges(path, case, checks)),
            answers={one: (*own.get(one, ()), *shared.get(one, ())) for one in (*own, *shared)},
            types=checks.types,
            variables=variables,
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


def _answers(path: Path, written: Mapping[str, Any], checks: _Checks) -> Answers:
    found: dict[str, tuple[StubAnswer, ...]] = {}
    for upstream, answers in written.items():
        where = (*path, "upstreams", upstream)
        paths = (
            [(*where, number) for number in range(len(answers))] if isinstance(answers, tuple) else [where]
        )
        found[upstream] = tuple(
            _answer(below, upstream, one, checks) for below, one in zip(paths, listed(answers), strict=True)
        )
    return found


def _answer(path: Path, upstream: str, answer: Answer, checks: _Checks) -> StubAnswer:
    reply = answer.grpc
    if reply is None:
        return StubAnswer(answer=answer)
    if reply.status != "OK" and _speaks_http1(checks.gateway, upstream):
        message = f"the upstream '{upstream}' does not use HTTP/2, so it cannot send a gRPC status"
        remedy = f"write an HTTP status, or protocol: grpc in upstreams.{upstream}"
        checks.report(Mistake(message, remedy, value=reply.status), (*path, "grpc"))
    if reply.method is None:
        return StubAnswer(answer=answer, messages=(b"",) if reply.status == "OK" else ())
    method = _method(reply.method, (*path, "grpc"), checks)
    if method is None or (reply.message is None and reply.status != "OK"):
        return StubAnswer(answer=answer)
    try:
        messages = encoded(method.output_type, reply.message, streams=method.server_streaming)
    except Mistake as mistake:
        checks.report(mistake, (*path, "grpc", "message"))
        return StubAnswer(answer=answer)
    return StubAnswer(answer=answer, messages=messages)


def _speaks_http1(gateway: Gateway, upstream: str) -> bool:
    found = gateway.sections.upstreams.get(upstream)
    return found is not None and found.protocol in ("http1", "tcp")


def _method(name: str, path: Path, checks: _Checks) -> MethodDescriptor | None:
    try:
        return checks.types.required(name)
    except Mistake as mistake:
        checks.report(mistake, (*path, "method"))
        return None


def _call(path: Path, step: Step, explanation: Explanation, checks: _Checks) -> tuple[bytes, ...]:
    """Return the messages of a call, and report what is wrong with it and with what is expected."""
    called = step.request.grpc
    if called is None:
        if step.expect.grpc is not None and step.expect.grpc.message is not None:
            message = "the request is no gRPC call, so its response has no message"
            checks.report(Mistake(message, "write 'json' or 'body'"), (*path, "expect", "grpc"))
        return ()
    where = (*path, "request", "grpc")
    route = explanation.route
    if route is not None and not any(key in checks.gateway.policies.get(route, ()) for key in _BRIDGES):
        for target in checks.gateway.ranked[route].route.targets:
            if _speaks_http1(checks.gateway, target):
                message = (
                    f"the upstream '{target}' of the route '{route}' does not use HTTP/2, and gRPC needs it"
                )
                checks.report(Mistake(message, f"write protocol: grpc in upstreams.{target}"), where)
    method = _method(called.method, where, checks)
    if method is None:
        return ()
    if step.expect.grpc is not None and step.expect.grpc.message is not None:
        try:
            expected(method.output_type, step.expect.grpc.message, streams=method.server_streaming)
        except Mistake as mistake:
            checks.report(mistake, (*path, "expect", "grpc", "message"))
    try:
        return encoded(method.input_type, called.message, streams=method.client_streaming)
    except Mistake as mistake:
        checks.report(mistake, (*where, "message"))
        return ()


def _asked(path: Path, step: Step, checks: _Checks) -> None:
    """Report what is wrong with the gRPC call that an upstream is expected to get."""
    asked = step.expect.upstream
    if not isinstance(asked, Asked) or asked.grpc is None or asked.grpc.message is None:
        return
    where = (*path, "expect", "upstream", "grpc")
    method = _method(asked.grpc.method, where, checks)
    if method is not None:
        try:
            expected(method.input_type, asked.grpc.message, streams=method.client_streaming)
        except Mistake as mistake:
            checks.report(mistake, (*where, "message"))


def _exchanges(path: Path, case: Case, checks: _Checks) -> Iterator[Exchange]:
    gateway, problems = checks.gateway, checks.problems
    for below, step in case.all_steps:
        sent, where = step.request, (*path, *below, "request")
        url = sent.target if not sent.target.startswith("/") else _origin(gateway, sent) + sent.target
        headers = sent.all_headers
        request = Request(method=sent.verb, url=url, headers=headers)
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
            _asked((*path, *below), step, checks)
            messages = _call((*path, *below), step, explanation, checks)
            yield Exchange(
                path=(*path, *below), step=step, url=url, explanation=explanation, messages=messages
            )


def _origin(gateway: Gateway, sent: Sent) -> str:
    """Return scheme, host and port for a path: those of the request's listener, or of the first one."""
    for port in ports(gateway.sections):
        for name, listener in port.http.items():
            if sent.listener == name or (sent.listener is None and port.transport == "tcp" and listener.bind):
                host = next((one for one in port.own(name) if not one.startswith("*")), "localhost")
                scheme, usual = ("http", 80) if listener.tls is None else ("https", 443)
                return f"{scheme}://{host}" + ("" if port.number == usual else f":{port.number}")
    return "http://localhost"
