"""ext_authz: its settings, and Envoy's calls to the policy server for Python, or to an upstream over gRPC or HTTP."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import ClassVar, Literal

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import config_source_pb2, http_uri_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2 as pb
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from google.protobuf import duration_pb2, wrappers_pb2
from google.protobuf.message import Message

from filters import framing, unverified_certificates
from filters.ext_authz.modules import imported
from filters.ext_authz.names import FAILED, POLICY, PROBLEM, PolicySource
from filters.ext_authz.sources import fault, no_python
from filters.identity.authentication import without
from filters.language import DataSource, Mistake, Shorthand, Size, option
from filters.model.identity import NAMESPACE
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.policy_server import FILTER, LENIENT_FILTER, NARROW_FILTER, POLICY_SERVER, grpc_service
from filters.rate_limit import one_call
from filters.reasons import Reason, details
from filters.rules import Rule

_NO_CONTEXT: Mapping[str, str] = MappingProxyType({})
_LARGEST = 1 << 20
_OF_ENVOY = ("x-request-id", "x-envoy-external-address")
"""Headers in which Envoy sends the request's id and the client's address."""
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]*[A-Za-z0-9!#$%&'+.^_`|~-]")
_PATTERN = re.compile(r"[A-Za-z0-9!#$%&'+.^_`|~-]+\*?")
_EVERY = {
    "upstream_headers": "name the headers, or write how they begin: x-user-*",
    "client_headers": "leave client_headers out: the client sees all of them then",
}
"""The remedy for a * alone."""


_FUNCTION = "policies/hours.py:check"


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonFile(DataSource):
    """A Python file in the gateway's folder."""

    def referenced(self, content: bytes) -> Iterable[PythonFile]:
        """The files that it imports."""
        return (PythonFile(file=file) for file in imported(str(self.file), content))

    @staticmethod
    def split(value: str, what: str, example: str) -> tuple[str, str]:
        """The file and the name of ``FILE.py:NAME``. `what` is the kind of the name. Raises Mistake."""
        file, colon, name = value.rpartition(":")
        if not colon or not file.endswith(".py") or not name.isidentifier():
            raise Mistake(f"not a {what} of a file", f"write {example}")
        return file, name

    def not_a_file(self, what: str, example: str) -> Iterator[Mistake]:
        """Yield a mistake unless a file of Python is named. `what` needs the file."""
        if self.file is None or self.env is not None or self.inline is not None:
            yield Mistake(f"a {what} must be in a file", f"write {example}")
        elif not self.file.endswith(".py"):
            message, remedy = "a file of Python has a name that ends in .py", f"write {example}"
            yield Mistake(message, remedy, path=("file",), value=self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonFunction(PythonFile):
    """A function of a file in the gateway's folder."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand(
        (str,), "FILE.py:FUNCTION", {"type": "string", "pattern": r"^.+\.py:[A-Za-z_]\w*$"}
    )
    function: str = option("The function.", default="check")

    @classmethod
    def short(cls, value: str) -> PythonFunction:
        """The function of ``policies/hours.py:check``. Raises Mistake."""
        file, function = cls.split(value, "function", _FUNCTION)
        return cls(file=file, function=function)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless a file is named."""
        return self.not_a_file("policy", _FUNCTION)

    @property
    def rule_name(self) -> str:
        """The name of the rule that contains the function."""
        return f"{self.file}:{self.function}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpService:
    """A service that allows with 200 and denies with any other status (Traefik's forwardAuth, nginx's auth_request)."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "an upstream")
    upstream: str = option("The upstream that Envoy calls.", refers="upstreams")
    path: str = option(
        "A prefix of the request's path.", default="", pattern=r"(/\S*)?", shape="a path such as /auth"
    )
    upstream_headers: tuple[str, ...] = option(
        "Headers of its response that the upstream of the request gets, instead of the client's own of these names. "
        "A * after at least one character matches any rest, as in `x-user-*`.",
        default=(),
        narrows=True,
    )
    client_headers: tuple[str, ...] = option(
        "Headers of its denial that the client gets; a * as above. Default: all.", default=(), narrows=True
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each header that a response must not set."""
        for key in ("upstream_headers", "client_headers"):
            for number, name in enumerate(getattr(self, key)):
                if (framed := framing.check(name, (key, number))) is not None:
                    yield Mistake(framed.message, "remove it", path=framed.path, value=name)
                elif name == "*":
                    remedy = _EVERY[key]
                    yield Mistake("a * alone matches nothing", remedy, path=(key, number), value=name)
                elif not _PATTERN.fullmatch(name):
                    remedy = "write x-user, or x-user-* for every header that begins so"
                    yield Mistake("not a header's name", remedy, path=(key, number), value=name)

    @classmethod
    def short(cls, value: str) -> HttpService:
        """The service of an upstream's name."""
        return cls(upstream=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The part of the request's body that the policy or the service gets."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    max: Size = option("The size of the largest body.", default=Size(8192), minimum=1, maximum=_LARGEST)
    partial: bool = option("Send the beginning of a longer body instead of answering 413.", default=False)

    @classmethod
    def short(cls, value: bool) -> Body:
        """The settings that ``true`` stands for."""
        return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtAuthzSettings:
    """A policy or a service that decides, and the decision if it does not answer."""

    python: PythonFunction | None = option("A function: FILE.py:FUNCTION.", default=None)
    grpc: str | None = option(
        "An upstream that implements envoy.service.auth.v3.Authorization.", default=None, refers="upstreams"
    )
    http: HttpService | None = option("An upstream that allows with 200.", default=None)
    timeout: timedelta = option(
        "The time limit of a decision.", default=timedelta(milliseconds=200), minimum=0.001, maximum=60
    )
    on_error: Literal["deny", "allow"] = option(
        "The decision if no response comes in time: `deny` answers 503, `allow` lets the request pass. "
        "A policy in Python that raises an error never lets a request pass.",
        default="deny",
    )
    body: Body | None = option("Send the request's body.", default=None)
    headers: tuple[str, ...] | None = option(
        "The only headers that a function in Python gets. Fewer headers take less time. Default: all.",
        default=None,
    )
    context: Mapping[str, str] = option("Context extensions for a gRPC service.", default=_NO_CONTEXT)

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of keys that do not go together."""
        if sum(one is not None for one in (self.python, self.grpc, self.http)) != 1:
            yield Mistake(
                "exactly one of 'python', 'grpc' and 'http' is needed", "write {python: policies/x.py:check}"
            )
        if self.headers is not None and self.python is None:
            yield Mistake("'headers' is for a function in Python", "remove it", path=("headers",))
        for name in self.headers or ():
            if not _HEADER.fullmatch(name):
                yield Mistake(f"'{name}' is not a header's name", "write a name", path=("headers",))
        if self.context and self.grpc is None:
            yield Mistake("'context' is for a gRPC service", "remove it", path=("context",))


def _duration(value: timedelta) -> duration_pb2.Duration:
    result = duration_pb2.Duration()
    result.FromTimedelta(value)
    return result


def _listed(names: Iterable[str]) -> string_pb2.ListStringMatcher:
    patterns = [
        string_pb2.StringMatcher(prefix=name[:-1].lower())
        if name.endswith("*")
        else string_pb2.StringMatcher(exact=name.lower())
        for name in names
    ]
    return string_pb2.ListStringMatcher(patterns=patterns)


def _http(service: HttpService, timeout: timedelta) -> pb.HttpService:
    uri = http_uri_pb2.HttpUri(
        uri=f"http://{service.upstream}", cluster=service.upstream, timeout=_duration(timeout)
    )
    result = pb.HttpService(server_uri=uri, path_prefix=service.path)
    answer = result.authorization_response
    if service.upstream_headers:
        answer.allowed_upstream_headers.CopyFrom(_listed(service.upstream_headers))
    if service.client_headers:
        answer.allowed_client_headers.CopyFrom(_listed(service.client_headers))
    return result


_RULES = mutation_rules_pb2.HeaderMutationRules(
    allow_envoy=wrappers_pb2.BoolValue(value=True),
    disallow_system=wrappers_pb2.BoolValue(value=True),
    disallow_expression=regex_pb2.RegexMatcher(regex="|".join(sorted(framing.HEADERS))),
)
"""Headers of a request that a response may change: none that frame the message, and no pseudo headers like :path."""


def _filter(name: str, *, lenient: bool) -> HttpFilter:
    config = pb.ExtAuthz(
        grpc_service=grpc_service(timedelta(milliseconds=200)),
        transport_api_version=config_source_pb2.V3,
        failure_mode_allow=lenient,
        metadata_context_namespaces=[NAMESPACE, unverified_certificates.FILTER],
        include_peer_certificate=True,
        validate_mutations=True,
        decoder_header_mutation_rules=_RULES,
        stat_prefix="on_error_allow" if lenient else "on_error_deny",
    )
    config.status_on_error.code = 503  # type: ignore[assignment] # Service Unavailable
    return HttpFilter(name=name, config=config)


_OF_RESPONSES = framing.HEADERS - {"connection", "proxy-connection", "transfer-encoding", "upgrade"}
"""Framing headers that a service could add to a response.

Envoy removes the others itself, and an upgrade needs them.
"""


def _without(settings: ExtAuthzSettings) -> Mapping[str, Message]:
    """The filter configuration of a route, so that no service adds headers that frame a message.

    Envoy does not filter the headers that a service adds to responses. A service over gRPC may add a content-length to
    responses of the upstream, so content-length is removed from them.
    """
    if settings.python is not None:
        return {}
    if settings.http is None:
        return without((), responses=_OF_RESPONSES)
    return without(settings.http.upstream_headers, responses=_OF_RESPONSES - {"content-length"})


def _narrow(used: Iterable[ExtAuthzSettings]) -> HttpFilter:
    """The filter that sends the headers that any policy declares. The policy server gives each policy only its own."""
    one = _filter(NARROW_FILTER, lenient=False)
    names = {*_OF_ENVOY, *(name for settings in used for name in settings.headers or ())}
    assert isinstance(one.config, pb.ExtAuthz)
    one.config.allowed_headers.CopyFrom(_listed(sorted(names)))
    return dataclasses.replace(one, dynamic=True)


def _written(key: str) -> str:
    """The policy server's metadata of a denial. Envoy writes it under this namespace for filters of all names."""
    return f"metadata.filter_metadata['envoy.filters.http.ext_authz']['{key}'] == true"


def _modules(function: PythonFunction, context: Context) -> tuple[tuple[str, bytes], ...]:
    """The files that a policy imports, those that these import, and so on; sorted."""
    files: dict[PythonFile, bytes] = {}
    waiting: list[PythonFile] = [function]
    for one in waiting:
        for other in one.referenced(context.contents[one]):
            if other in context.contents and other not in files:
                files[other] = context.contents[other]
                waiting.append(other)
    return tuple(sorted((str(one.file), content) for one, content in files.items()))


class ExtAuthz(Policy[ExtAuthzSettings]):
    """Compiled into Envoy's ext_authz filter.

    A second one is for `on_error: allow`, which applies to a whole filter.
    """

    key = "ext_authz"
    stage = Stage.AUTHORIZE
    settings = ExtAuthzSettings
    enforced_by = "policy server, or an upstream"
    rule_types = (POLICY,)
    reasons = (
        *one_call.REASONS,
        Reason(
            name="ext_authz_failed",
            title="The authorization service failed",
            status=503,
            when=f"{details('ext_authz_denied')} && {_written(FAILED)}",
        ),
        Reason(
            name="ext_authz_denied",
            title="Access is denied",
            when=f"{details('ext_authz_denied')} && {_written(PROBLEM)}",
        ),
        # The body of a service's own response is never replaced.
        Reason(
            name="ext_authz_denied",
            title="Access is denied",
            when=details("ext_authz_denied"),
            own_body=True,
        ),
        Reason(
            name="ext_authz_unavailable",
            title="The authorization service did not answer",
            status=503,
            when=details("ext_authz_error"),
        ),
        Reason(
            name="ext_authz_invalid",
            title="The response of the authorization service is invalid",
            status=500,
            when=details("ext_authz_invalid"),
        ),
    )

    def check(self, settings: ExtAuthzSettings, context: Context) -> Iterator[Mistake]:
        """Yield a mistake if the source cannot be a policy."""
        function = settings.python
        content = context.contents.get(function) if function is not None else None
        if function is not None and content is not None:
            why = fault(content, str(function.file), function.function) or next(
                filter(None, (no_python(source, file) for file, source in _modules(function, context))), None
            )
            if why is not None:
                yield Mistake(why, "correct the policy", path=("python",), value=function.rule_name)

    def http_filters(self, used: Iterable[ExtAuthzSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (_narrow(used), _filter(FILTER, lenient=False), _filter(LENIENT_FILTER, lenient=True))

    def on_route(self, settings: ExtAuthzSettings, context: Context) -> RoutePart:
        checks = pb.CheckSettings(context_extensions=self._extensions(settings, context))
        if settings.http is not None:
            checks.http_service.CopyFrom(_http(settings.http, settings.timeout))
        else:
            time = settings.timeout + (one_call.TIME if one_call.policy_decides(context) else timedelta())
            checks.grpc_service.CopyFrom(grpc_service(time, settings.grpc or POLICY_SERVER))
        if settings.body is not None:
            checks.with_request_body.CopyFrom(
                pb.BufferSettings(
                    max_request_bytes=settings.body.max,
                    allow_partial_message=settings.body.partial,
                    pack_as_bytes=settings.http is None,
                )
            )
        name = LENIENT_FILTER if settings.on_error == "allow" else FILTER
        if name == FILTER and settings.headers is not None and not one_call.policy_decides(context):
            name = NARROW_FILTER  # limits that are decided here may count by any header
        own = {name: pb.ExtAuthzPerRoute(check_settings=checks)}
        return RoutePart(filter_configs={**own, **_without(settings)})

    def _extensions(self, settings: ExtAuthzSettings, context: Context) -> Mapping[str, str]:
        if settings.python is None:
            return {**settings.context, "route": context.route} if settings.grpc is not None else {}
        extensions = {
            "policy": settings.python.rule_name,
            "route": context.route,
            "timeout": f"{settings.timeout.total_seconds():g}",
        }
        if context.path_regex:
            extensions["path"] = context.path_regex
        if settings.body is not None:
            extensions["body"] = "true"
        if settings.headers is not None:
            extensions["headers"] = ",".join(name.lower() for name in settings.headers)
        if one_call.policy_decides(context):
            extensions |= one_call.extensions(context)
        return extensions

    def rules(self, used: Iterable[ExtAuthzSettings], context: Context) -> Iterator[Rule]:
        functions = {
            settings.python.rule_name: settings.python for settings in used if settings.python is not None
        }
        for name, function in sorted(functions.items()):
            content = context.contents[function]
            source = PolicySource(str(function.file), function.function, content, _modules(function, context))
            yield Rule(type=POLICY, name=name, value=source)

    def explain(self, settings: ExtAuthzSettings, context: Context) -> str:
        if settings.python is not None:
            return f"policy server ({settings.python.rule_name}), called by Envoy"
        return (
            f"upstream {settings.grpc or (settings.http.upstream if settings.http else '')}, called by Envoy"
        )
