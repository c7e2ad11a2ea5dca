"""ext_authz: Envoy's calls to the policy server for Python, or to an upstream over gRPC or HTTP."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import config_source_pb2, http_uri_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2 as pb
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from google.protobuf import duration_pb2, wrappers_pb2
from google.protobuf.message import Message

from filters import framing, unverified_certificates
from filters.ext_authz.names import FAILED, POLICY, PROBLEM, PolicySource
from filters.ext_authz.settings import ExtAuthzSettings, HttpService, PythonFile, PythonFunction
from filters.ext_authz.sources import fault, no_python
from filters.grpc_transcoding import names as grpc_names
from filters.grpc_transcoding import rules as grpc_rules
from filters.grpc_transcoding.settings import TranscodingSettings
from filters.identity.authentication import without
from filters.language import Mistake
from filters.model.identity import NAMESPACE
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.policy_server import (
    BODY_FILTER,
    FILTER,
    LENIENT_BODY_FILTER,
    LENIENT_FILTER,
    NARROW_FILTER,
    POLICY_SERVER,
    grpc_service,
)
from filters.rate_limit import one_call
from filters.reasons import Reason, details
from filters.rules import Rule

_OF_ENVOY = ("x-request-id", "x-envoy-external-address")
"""Headers in which Envoy sends the request's id and the client's address."""


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


def _filter(name: str, *, lenient: bool, with_bytes: bool = False) -> HttpFilter:
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
    if with_bytes:  # each route has its own size
        config.with_request_body.CopyFrom(pb.BufferSettings(max_request_bytes=1, pack_as_bytes=True))
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
    one = _filter(NARROW_FILTER, lenient=False, with_bytes=True)
    found = tuple(used)
    names = {*_OF_ENVOY, *(name for settings in found for name in settings.headers or ())}
    if any(settings.body is not None for settings in found):
        names.add("content-type")  # it tells the calls of gRPC clients from those of REST clients
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


def _filter_of(settings: ExtAuthzSettings, context: Context) -> str:
    """The filter of a route."""
    with_bytes = settings.body is not None and settings.http is None
    if settings.on_error == "allow":
        return LENIENT_BODY_FILTER if with_bytes else LENIENT_FILTER
    if settings.headers is not None and not one_call.policy_decides(context):
        return NARROW_FILTER  # limits that are decided here may count by any header
    return BODY_FILTER if with_bytes else FILTER


def _for_policies(context: Context) -> TranscodingSettings | None:
    """The transcoding of the route, if policies get its messages."""
    settings: TranscodingSettings | None = context.effective.get("grpc_transcoding")
    return settings if settings is not None and settings.for_policies else None


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
        """Yield a mistake if the source cannot be a policy, or cannot get the messages that it should."""
        function = settings.python
        whole = settings.body is not None and not settings.body.partial
        if function is not None and _for_policies(context) is not None and not whole:
            message = (
                "the policy needs the whole body, because the route's grpc_transcoding has 'for_policies'"
            )
            yield Mistake(message, "write body: true", path=() if settings.body is None else ("body",))
        content = context.contents.get(function) if function is not None else None
        if function is not None and content is not None:
            why = fault(content, str(function.file), function.function) or next(
                filter(None, (no_python(source, file) for file, source in _modules(function, context))), None
            )
            if why is not None:
                yield Mistake(why, "correct the policy", path=("python",), value=function.rule_name)

    def http_filters(self, used: Iterable[ExtAuthzSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (
            _narrow(used),
            _filter(FILTER, lenient=False),
            _filter(LENIENT_FILTER, lenient=True),
            _filter(BODY_FILTER, lenient=False, with_bytes=True),
            _filter(LENIENT_BODY_FILTER, lenient=True, with_bytes=True),
        )

    def on_route(self, settings: ExtAuthzSettings, context: Context) -> RoutePart:
        checks = pb.CheckSettings(context_extensions=self._extensions(settings, context))
        if settings.http is not None:
            checks.http_service.CopyFrom(_http(settings.http, settings.timeout))
        else:
            time = settings.timeout + (one_call.TIME if one_call.policy_decides(context) else timedelta())
            checks.grpc_service.CopyFrom(grpc_service(time, settings.grpc or POLICY_SERVER))
        if settings.body is not None:
            checks.with_request_body.max_request_bytes = settings.body.max
            checks.with_request_body.allow_partial_message = settings.body.partial
        name = _filter_of(settings, context)
        checks.disable_request_body_buffering = name == NARROW_FILTER and settings.body is None
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
        if (transcoding := _for_policies(context)) is not None:
            methods = grpc_rules.methods_of(transcoding, context)
            assert methods is not None, "mistakes are errors of the gateway"
            extensions[grpc_names.EXTENSION] = methods.name
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
