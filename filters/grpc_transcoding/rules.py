"""The methods of a route: each binding of an HTTP request to a gRPC method, checked against the descriptors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from google.api import http_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from filters.grpc_transcoding import descriptors, templates
from filters.grpc_transcoding.descriptors import HTTP_BODY, Linked
from filters.grpc_transcoding.names import MethodsSource
from filters.grpc_transcoding.settings import VERBS, Binding, Bindings, TranscodingSettings
from filters.grpc_transcoding.templates import Template
from filters.language import DataSource, Mistake, Path
from filters.language.problems import did_you_mean
from filters.policy import Context

_ANNOTATE = (
    "annotate methods with google.api.http, or write methods: {package.Service/Method: {get: /v1/{name}}}"
)


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One HTTP request that calls a method.

    `name` is ``package.Service/Method``. `bound` has for each bound field the names of each part of its path.
    `json_body` is true if the HTTP body is JSON and the gateway can read it as a whole. `raw` is true if the response is
    an HttpBody.
    """

    name: str
    method: MethodDescriptor
    verb: str
    template: Template
    rule: http_pb2.HttpRule
    bound: tuple[tuple[tuple[str, ...], ...], ...]
    json_body: bool
    raw: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of a route, the services that they belong to, and the mistakes found on the way."""

    linked: Linked
    services: tuple[str, ...]
    rules: tuple[Rule, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def annotations(self) -> Mapping[str, http_pb2.HttpRule]:
        """The annotation of each method, with all its bindings."""
        found: dict[str, http_pb2.HttpRule] = {}
        for rule in self.rules:
            if rule.name in found:
                found[rule.name].additional_bindings.append(rule.rule)
            else:
                found[rule.name] = http_pb2.HttpRule()
                found[rule.name].CopyFrom(rule.rule)
        return found


def source_key(settings: Bindings) -> str:
    """The key that names the descriptors."""
    return "descriptors" if settings.descriptors is not None else "protos"


def of(settings: Bindings, contents: Mapping[DataSource, bytes]) -> Rules | None:
    """Return the rules of a route, or None if a file could not be read or compiled. Raises Mistake for the files."""
    sources = [settings.descriptors] if settings.descriptors else [one.compiled for one in settings.protos]
    if not all(source in contents for source in sources):
        return None
    linked = descriptors.linked(tuple(contents[source] for source in sources if source is not None))
    mistakes = list(_unknown(settings, linked))
    found: list[Rule] = []
    for name, method in _methods(settings, linked):
        for path, binding in _bindings(name, method, settings):
            try:
                found.append(_rule(name, method, binding, settings.prefix))
            except Mistake as mistake:
                given = name in settings.methods
                message = mistake.message if given else f"{name}: {mistake.message}"
                value = mistake.value if mistake.value is not ... else _template(binding)
                mistakes.append(Mistake(message, mistake.remedy, path=path, value=value))
    mistakes += _twice(found, settings)
    services = tuple(dict.fromkeys(rule.name.partition("/")[0] for rule in found))
    if not found and not mistakes:
        mistakes.append(Mistake("no method can be called", _ANNOTATE, path=(source_key(settings),)))
    return Rules(linked, services, tuple(found), tuple(mistakes))


def check(settings: Bindings, context: Context) -> Iterator[Mistake]:
    """Yield the mistakes of the files and of the rules."""
    try:
        found = of(settings, context.contents)
    except Mistake as mistake:
        yield Mistake(mistake.message, mistake.remedy, path=(source_key(settings),))
    else:
        yield from found.mistakes if found is not None else ()


def found(settings: Bindings, context: Context) -> Rules | None:
    """Return the rules of a route, or None if there is a mistake."""
    try:
        result = of(settings, context.contents)
    except Mistake:
        return None
    return None if result is None or result.mistakes else result


def methods_of(settings: TranscodingSettings, context: Context) -> MethodsSource | None:
    """The rule for the policy server, or None if there is a mistake."""
    known = found(settings, context)
    if known is None:
        return None
    described = descriptors.with_rules(known.linked, known.annotations)
    lax = settings.unknown_fields == "ignore"
    return MethodsSource(described, settings.colons_in_ids, tuple(sorted(set(settings.ignore_query))), lax)


def _unknown(settings: Bindings, linked: Linked) -> Iterator[Mistake]:
    for number, service in enumerate(settings.services):
        if service not in linked.services:
            remedy = did_you_mean(service, linked.services)
            message = "the descriptors have no such service"
            yield Mistake(message, remedy, path=("services", number), value=service)
    for name in settings.methods:
        if name.count("/") == 1 and linked.method(name) is None:
            known = [f"{one}/{method}" for one in linked.services for method in _of_service(linked, one)]
            message, remedy = "the descriptors have no such method", did_you_mean(name, known)
            yield Mistake(message, remedy, path=("methods", name), value=name)


def _of_service(linked: Linked, service: str) -> Mapping[str, MethodDescriptor]:
    found: Mapping[str, MethodDescriptor] = linked.pool.FindServiceByName(service).methods_by_name
    return found


def _methods(settings: Bindings, linked: Linked) -> Iterator[tuple[str, MethodDescriptor]]:
    for service in linked.services:
        if not settings.services or service in settings.services:
            for name, method in _of_service(linked, service).items():
                yield f"{service}/{name}", method


def _bindings(
    name: str, method: MethodDescriptor, settings: Bindings
) -> Iterator[tuple[Path, http_pb2.HttpRule]]:
    """Yield the rules of a method, each with the path of its mistakes."""
    given = settings.methods.get(name)
    if given is not None:
        several = given if isinstance(given, tuple) else (given,)
        for number, one in enumerate(several):
            yield ("methods", name, *([number] if isinstance(given, tuple) else [])), _as_rule(one)
    elif (annotated := descriptors.annotation(method)) is not None:
        for rule in (annotated, *annotated.additional_bindings):
            single = http_pb2.HttpRule()
            single.CopyFrom(rule)
            single.ClearField("additional_bindings")
            single.ClearField("selector")
            yield (source_key(settings),), single
    if isinstance(settings, TranscodingSettings) and settings.rpc_paths:
        yield ("rpc_paths",), http_pb2.HttpRule(post=f"/{name}", body="*")


def _as_rule(binding: Binding) -> http_pb2.HttpRule:
    result = http_pb2.HttpRule(body=binding.body, response_body=binding.response_body)
    setattr(result, binding.verb, binding.template)
    return result


def _template(rule: http_pb2.HttpRule) -> str:
    return str(next((getattr(rule, verb) for verb in VERBS if getattr(rule, verb)), rule.custom.path))


def _rule(name: str, method: MethodDescriptor, rule: http_pb2.HttpRule, prefix: str) -> Rule:
    """Return a checked rule. Raises Mistake."""
    pattern = rule.WhichOneof("pattern")
    if pattern is None:
        raise Mistake("the rule has no path", "write one of get, put, post, delete and patch", value=name)
    verb = rule.custom.kind if pattern == "custom" else pattern.upper()
    if verb not in ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"):
        raise Mistake("not an HTTP method", "write one of get, put, post, delete and patch", value=verb)
    template = templates.parse(prefix + _template(rule))
    request: Descriptor = method.input_type
    bound = tuple(descriptors.field_names(request, field) for field in template.fields)
    json_body = bool(rule.body) and not method.client_streaming
    if rule.body and verb in ("GET", "HEAD"):
        raise Mistake(f"a {verb} request has no body", "remove 'body'", value=_template(rule))
    if rule.body == "*":
        json_body = json_body and request.full_name != HTTP_BODY
    elif rule.body:
        body = descriptors.field_of(request, rule.body)
        raw = body.message_type is not None and body.message_type.full_name == HTTP_BODY
        json_body = json_body and not raw
    result = http_pb2.HttpRule()
    result.CopyFrom(rule)
    if pattern == "custom":
        result.custom.path = template.text
    else:
        setattr(result, pattern, template.text)
    raw = _raw(method.output_type, rule.response_body)
    return Rule(name, method, verb, template, result, bound, json_body, raw)


def _raw(response: Descriptor, field: str) -> bool:
    """True if the HTTP response is a google.api.HttpBody. Raises Mistake for a field that Envoy cannot send alone."""
    if not field:
        return response.full_name == HTTP_BODY
    body = descriptors.field_of(response, field).message_type
    if body is None or body.full_name != HTTP_BODY:
        message = f"Envoy cannot send the field '{field}' alone, because it is not a {HTTP_BODY}"
        raise Mistake(message, "remove 'response_body', so that the whole message is sent", value=field)
    return True


def _twice(rules: list[Rule], settings: Bindings) -> Iterator[Mistake]:
    seen: dict[tuple[str, tuple[str, ...], str], Rule] = {}
    for rule in rules:
        key = (rule.verb, rule.template.segments, rule.template.verb)
        other = seen.setdefault(key, rule)
        if other is not rule:
            message = f"{rule.name} and {other.name} have the same requests: {rule.verb} {rule.template.text}"
            path: Path = ("methods", rule.name) if rule.name in settings.methods else (source_key(settings),)
            yield Mistake(message, "change one path", path=path, value=rule.template.text)
