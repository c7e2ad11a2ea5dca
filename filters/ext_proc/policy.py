"""ext_proc: its settings, and the one ext_proc filter of all policies with processors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import ClassVar, Literal

from filters.ext_authz.settings import PythonFile
from filters.ext_proc.names import PROCESSOR, ProcessorSource
from filters.ext_proc.written import UnclearError, phases
from filters.language import Mistake, Shorthand, Size, option
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.processing import envoy
from filters.processing.exchange import TOO_LARGE, TOO_LARGE_RESPONSE
from filters.processing.phases import BUFFERED, Phase
from filters.processing.processor import Use
from filters.processing.responses import RESPONDED, TITLES
from filters.reasons import Reason, details, details_begin
from filters.rules import Rule

LARGEST = 3 << 20
"""Bytes of the largest body: a message to the policy server has at most 4 MiB."""
DEFAULT_LIMIT = timedelta(milliseconds=200)
_OWN = timedelta(seconds=1)
"""The time limit of processors of other policies."""


_CLASS = "policies/rename.py:Rename"


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonClass(PythonFile):
    """A class of a file in the gateway's folder."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand(
        (str,), "FILE.py:CLASS", {"type": "string", "pattern": r"^.+\.py:[A-Za-z_]\w*$"}
    )
    name: str = option("The class.", key="class")

    @classmethod
    def short(cls, value: str) -> PythonClass:
        """The class of ``policies/rename.py:Rename``. Raises Mistake."""
        file, name = cls.split(value, "class", _CLASS)
        return cls(file=file, name=name)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless a file is named."""
        return self.not_a_file("processor", _CLASS)

    @property
    def rule_name(self) -> str:
        """The name of the rule that contains the class."""
        return f"{self.file}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtProcSettings:
    """A class in Python that processes requests and responses."""

    python: PythonClass = option("A class: FILE.py:CLASS.")
    timeout: timedelta = option(
        "The time limit of each call of a method.", default=DEFAULT_LIMIT, minimum=0.001, maximum=60
    )
    on_error: Literal["deny", "allow"] = option(
        "What happens if a call takes longer, or the policy server is not available: `deny` answers with an error, "
        "`allow` lets the message pass unchanged. A class that raises an error never lets a message pass.",
        default="deny",
    )
    max_body: Size = option(
        "The largest body that a method for whole bodies gets or returns, without its content coding. A larger request "
        "is rejected with 413, a larger response becomes a 500.",
        default=Size(1 << 20),
        minimum=1,
        maximum=LARGEST,
    )

    def uses(self, context: Context) -> tuple[Use, ...]:
        """The one processor. It has no phases if the source is faulty, which is a mistake of its own."""
        try:
            found = _phases(self.python, context)
        except UnclearError:
            found = frozenset()
        use = Use(
            type=PROCESSOR,
            rule=self.python.rule_name,
            phases=found,
            timeout=self.timeout,
            max_body=self.max_body,
            lenient=self.on_error == "allow",
        )
        return (use,)


def _modules(python: PythonClass, context: Context) -> Mapping[str, bytes]:
    """The files that the class needs: its own first, then those that it imports."""
    found, waiting = {str(python.file): context.contents[python]}, [python]
    for one in waiting:
        for other in one.referenced(context.contents[one]):
            if other in context.contents and str(other.file) not in found:
                found[str(other.file)] = context.contents[other]
                waiting.append(other)  # type: ignore[arg-type]
    return found


def _phases(python: PythonClass, context: Context) -> frozenset[Phase]:
    """The phases of a class. Raises UnclearError."""
    return _read(str(python.file), python.name, tuple(_modules(python, context).items()))


@lru_cache(maxsize=1024)
def _read(file: str, name: str, sources: tuple[tuple[str, bytes], ...]) -> frozenset[Phase]:
    return phases(file, name, dict(sources))


def _own(name: str, status: int) -> Reason:
    """The reason of a response whose body the policy server has written."""
    return Reason(name=name, title=TITLES[name], status=status, when=details(name), own_body=True)


class ExtProc(Policy[ExtProcSettings]):
    """Compiled into Envoy's ext_proc filter, which calls the policy server.

    A route has this one filter for the processors of all its policies.
    """

    key = "ext_proc"
    stage = Stage.TRANSFORM
    settings = ExtProcSettings
    enforced_by = "policy server"
    rule_types = (PROCESSOR,)
    reasons = (
        *(
            _own(name, 500)
            for name in ("processor_failed", "processor_timeout", "processor_missing", TOO_LARGE_RESPONSE)
        ),
        *(
            Reason(name=name, title=TITLES[name], when=details(name), own_body=True)
            for name in ("processor_stream", "unsupported_content_coding", "malformed_content_coding")
        ),
        _own(TOO_LARGE, 413),
        Reason(
            name="processor_rejected", title="A processor rejected this", when=details("processor_rejected")
        ),
        Reason(
            name="processor_rejected",
            title="A processor rejected this",
            when=details(RESPONDED),
            own_body=True,
        ),
        Reason(
            name=TOO_LARGE_RESPONSE,
            title=TITLES[TOO_LARGE_RESPONSE],
            status=500,
            when=details_begin("response_payload_too_large"),
        ),
        Reason(
            name="processor_unavailable",
            title="The policy server did not answer",
            status=503,
            when=details_begin("ext_proc"),
        ),
    )

    def check(self, settings: ExtProcSettings, context: Context) -> Iterator[Mistake]:
        """Yield a mistake if the source does not tell what the class processes."""
        python = settings.python
        if python not in context.contents:
            return
        try:
            _phases(python, context)
        except UnclearError as error:
            remedy = "correct the class"
            yield Mistake(str(error), remedy, path=("python",), value=python.rule_name)

    def check_streams(self, settings: ExtProcSettings, context: Context) -> Iterator[Mistake]:
        """Yield a mistake for methods for whole bodies on a route whose messages may be streams."""
        whole = sorted(BUFFERED.intersection(*(use.phases for use in settings.uses(context))))
        if whole:
            message = f"'{whole[0]}' needs whole bodies, and upgrades and gRPC calls are streams"
            remedy = f"use {whole[0].replace('body', 'chunk')}, or write ext_proc: off for this route"
            yield Mistake(message, remedy, path=("python",), value=settings.python.rule_name)

    def http_filters(self, used: Iterable[ExtProcSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (envoy.http_filter(max((one.timeout for one in used), default=_OWN)),)

    def on_route(self, settings: ExtProcSettings, context: Context) -> RoutePart:
        return envoy.on_route(context)

    def off_route(self, context: Context) -> RoutePart:
        return envoy.on_route(context)

    def rules(self, used: Iterable[ExtProcSettings], context: Context) -> Iterator[Rule]:
        classes = {one.python.rule_name: one.python for one in used}
        for name, python in sorted(classes.items()):
            own, *others = _modules(python, context).items()
            source = ProcessorSource(own[0], python.name, own[1], tuple(sorted(others)))
            yield Rule(type=PROCESSOR, name=name, value=source)

    def for_local_answers(self, settings: ExtProcSettings) -> None:
        """Answers of the gateway itself are not processed."""

    def explain(self, settings: ExtProcSettings, context: Context) -> str:
        (use,) = settings.uses(context)
        return f"policy server ({use.rule}: {', '.join(sorted(use.phases))}), called by Envoy"
