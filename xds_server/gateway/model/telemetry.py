"""Telemetry: access logs, traces and metrics of the whole gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from filters.language import Mistake, Path, Percent, Shorthand, option
from filters.language.problems import did_you_mean
from filters.log_fields import BY_NAME, DEFAULT_FIELDS, LogConditions
from xds_server.gateway.model.logged_texts import check_logged_text

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTarget:
    """The receiver of a log."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "`stdout` or `stderr`", {"enum": ["stdout", "stderr"]})
    stream: Literal["stdout", "stderr"] | None = option("A stream of Envoy's process.", default=None)
    file: str | None = option(
        "The path of a file on Envoy's machine. Envoy appends to it, and opens it again if it was moved and Envoy got "
        "`POST /reopen_logs`.",
        default=None,
        pattern=r"/.+",
        shape="an absolute path such as /var/log/gateway/access.log",
    )
    otlp: str | None = option(
        "An upstream that receives OTLP logs over gRPC.", default=None, refers="upstreams"
    )

    @classmethod
    def short(cls, value: str) -> LogTarget:
        """The target that a word stands for. Raises Mistake."""
        if value == "stdout":
            return cls(stream="stdout")
        if value == "stderr":
            return cls(stream="stderr")
        raise Mistake(
            "expected stdout, stderr or a mapping", "write stdout, {file: PATH} or {otlp: UPSTREAM}"
        )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless exactly one receiver is named."""
        if sum(one is not None for one in (self.stream, self.file, self.otlp)) != 1:
            yield Mistake("exactly one of 'stream', 'file' and 'otlp' is needed", "write {file: PATH}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessLog:
    """One access log: a line for each request."""

    to: LogTarget = option("Where the lines go.", default=LogTarget(stream="stdout"))
    format: Literal["json", "text"] = option(
        "`json` is one object in each line. `text` is the same values with spaces between them, and `-` for none.",
        default="json",
    )
    fields: tuple[str, ...] = option(
        "Names of [fields](access-log.md), in the order of `text`. Default: those marked there.",
        default=(),
        narrows=True,
    )
    extra: Mapping[str, str] = option(
        "More fields: names with text that may contain Envoy's command operators, such as `%REQ(X-TENANT)%`.",
        default=_EMPTY,
    )
    query: tuple[str, ...] = option(
        "Names of query parameters that are logged, in the field `query`. Others may contain secrets. Not with "
        "`format: text`, because Envoy decodes them, so a client could write a line end.",
        default=(),
    )
    when: LogConditions | None = option(
        "Which requests are logged. Default: all.", default=None, narrows=True
    )
    text: str | None = option(
        "The whole line with `format: text`, with Envoy's command operators and without the line end.",
        default=None,
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its fields."""
        return self.fields or DEFAULT_FIELDS

    @property
    def has_version(self) -> bool:
        """True if it contains the version of the gateway, or its commit."""
        return self.text is None and any(one in self.names for one in ("version", "commit"))

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of fields, of operators, and of values that may contain secrets."""
        for number, name in enumerate(self.fields):
            if name not in BY_NAME:
                remedy = did_you_mean(name, BY_NAME) or "write a field of the reference, or use 'extra'"
                yield Mistake(f"there is no field '{name}'", remedy, path=("fields", number), value=name)
            elif name in self.fields[:number]:
                yield Mistake("the field is named twice", "remove one", path=("fields", number), value=name)
        for name, value in self.extra.items():
            if not _FIELD.fullmatch(name):
                yield Mistake(
                    "not a field's name", "write a name such as tenant", path=("extra", name), value=name
                )
            elif name in self.names or name == "query":
                yield Mistake(f"the log has a field '{name}'", "choose another name", path=("extra", name))
            yield from check_logged_text(value, ("extra", name))
        yield from self._check_line()
        if self.format == "text":
            yield from self._check_text_format()
        for number, name in enumerate(self.query):
            if not re.fullmatch(r"[A-Za-z0-9_.~-]+", name):
                yield Mistake(
                    "not a usable name of a parameter", "use letters, digits, - _ . ~", path=("query", number)
                )
        if self.when is not None and not self.when.any:
            yield Mistake("no condition", "write {statuses: [5xx]}, or remove 'when'", path=("when",))

    def _check_text_format(self) -> Iterator[Mistake]:
        remedy = "use format: json, which escapes it"
        message = "Envoy decodes query parameters, so a client could write line ends into a text"
        if self.query:
            yield Mistake(message, remedy, path=("query",))
        for path, text in (
            (("text",), self.text or ""),
            *((("extra", key), one) for key, one in self.extra.items()),
        ):
            if "%QUERY_PARAM(" in text:
                yield Mistake(message, remedy, path=path, value=text)

    def _check_line(self) -> Iterator[Mistake]:
        if self.text is None:
            return
        if self.format != "text":
            yield Mistake("'text' needs format: text", "add format: text", path=("text",))
        if self.fields or self.extra or self.query:
            yield Mistake("'text' is the whole line", "remove fields, extra and query", path=("text",))
        yield from check_logged_text(self.text, ("text",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """Traces with OpenTelemetry: a span for each traced request and each call of an upstream."""

    upstream: str = option("The upstream that receives the spans by OTLP.", refers="upstreams")
    protocol: Literal["grpc", "http"] = option(
        "OTLP over gRPC, or binary Protobuf over HTTP.", default="grpc"
    )
    path: str = option(
        "The path for OTLP over HTTP.",
        default="/v1/traces",
        pattern=r"/[!-~]*",
        shape="a path such as /v1/traces",
    )
    sample: Percent = option(
        "Share of the requests that begin a trace. A request that continues a trace follows its caller's decision.",
        default=Percent(1),
    )
    trust_context: bool = option(
        "Whether a `traceparent` that the client sent is continued (W3C Trace Context). Otherwise each request is the "
        "beginning of a trace.",
        default=True,
    )
    service_name: str = option("`service.name` of the spans.", default="gateway")
    resource: Mapping[str, str] = option(
        "More attributes of the resource, such as `deployment.environment.name`.", default=_EMPTY
    )
    attributes: Mapping[str, str] = option(
        "More attributes of each span: text that may contain Envoy's command operators.", default=_EMPTY
    )

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of attributes."""
        for name, value in self.attributes.items():
            yield from check_logged_text(value, ("attributes", name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Metrics that Envoy counts for each route and consumer."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    consumers: int = option(
        "The number of consumers with series of their own, in the order of their names; the others are summed as "
        "`other`.",
        default=100,
        minimum=0,
        maximum=10_000,
    )

    @classmethod
    def short(cls, value: Any) -> Metrics:
        """The settings that ``true`` stands for."""
        return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The count of requests for billing."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    flush: timedelta = option(
        "How long Envoy collects entries before it sends them. If it is killed, these entries are lost.",
        default=timedelta(seconds=1),
        minimum=0.1,
        maximum=60,
    )

    @classmethod
    def short(cls, value: Any) -> Usage:
        """The settings that ``true`` stands for."""
        return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry(Mapping[str, Any]):
    """What the gateway reports of its requests. As a mapping it has the keys that a user wrote."""

    access_logs: Mapping[str, AccessLog] | None = option(
        "Access logs by name. Every listener writes them unless it says `access_log: false`.", default=None
    )
    tracing: Tracing | None = option("Traces.", default=None)
    metrics: Metrics | None = option("Metrics for each route and consumer.", default=None)
    usage: Usage | None = option("Counts of requests for billing, in a [database](usage.md).", default=None)
    problem_version: bool = option(
        "Problems (the gateway's own error responses) have the fields `version` and, if the gateway is in git, `commit`.",
        default=False,
    )

    def texts(self) -> Iterator[tuple[Path, str]]:
        """Yield the texts with Envoy's command operators, with their paths in this section."""
        for name, log in (self.access_logs or {}).items():
            yield from ((("access_logs", name, "extra", key), text) for key, text in log.extra.items())
            if log.text is not None:
                yield ("access_logs", name, "text"), log.text
        if self.tracing is not None:
            for key, text in self.tracing.attributes.items():
                yield ("tracing", "attributes", key), text

    def _written(self, key: str) -> bool:
        return getattr(self, key) not in (None, False)

    def __getitem__(self, key: str) -> Any:
        if key not in KEYS or not self._written(key):
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return filter(self._written, KEYS)

    def __len__(self) -> int:
        return sum(1 for _ in self)


KEYS = tuple(field.name for field in fields(Telemetry))
NO_TELEMETRY = Telemetry()
