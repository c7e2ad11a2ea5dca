"""grpc_transcoding as Envoy gets it: its transcoder with the descriptors, and a script that writes errors.

Each request gets a route of its own kind before the transcoder: only the paths, methods and content types of the rules
reach it, so that unknown paths get 404 and other methods 405. Envoy's transcoder alone has no 405.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import re2
from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2
from envoy.extensions.filters.http.grpc_json_transcoder.v3 import transcoder_pb2
from envoy.extensions.filters.http.grpc_web.v3 import grpc_web_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.type.matcher.v3 import http_inputs_pb2
from google.protobuf import any_pb2, struct_pb2, wrappers_pb2
from google.protobuf.message import Message

from filters.framing import HEADERS
from filters.grpc_transcoding import bodies, descriptors, rules, templates
from filters.grpc_transcoding.names import METHODS
from filters.grpc_transcoding.rules import Rule, Rules
from filters.grpc_transcoding.settings import TranscodingSettings
from filters.language import Mistake
from filters.lua_literals import lua
from filters.policy import NOTHING, Context, HttpFilter, Policy, RoutePart, Stage, Variant, header
from filters.reasons import BAD_REQUEST, Reason, details_begin
from filters.rules import Rule as PolicyRule

FILTER, SCRIPT = "envoy.filters.http.grpc_json_transcoder", "xds.grpc_transcoding"
TRAILERS, STREAM_TYPES = "xds.grpc_transcoding.trailers", "xds.grpc_transcoding.stream_types"
CLEANER, ERRORS = "xds.grpc_transcoding.cleaner", "xds.grpc_transcoding.errors"
CONFLICT, INVALID = "parameter_conflict", "invalid_message"
NO_METHOD = "the requests of this route have the path of no method"
_LUA = resources.files(__package__).joinpath("transcoding.lua").read_text()
_LARGEST = 1500
"""Instructions of one expression. Envoy accepts 2,000; requests with longer ones are divided among several routes."""
_FAILED = details_begin("grpc_json_transcode_failure", "early_grpc_json_transcode_failure")
_GRPC = "application/grpc"
_ID = "x-gateway-request-id"
"""The response header in which the script gets the request's id. It removes the header."""
_QUERY = r"(?:\?.*)?"


@dataclass(frozen=True, slots=True)
class _Kind:
    """The requests that the script treats alike. `stream` is empty for unary responses."""

    verb: str
    stream: str
    json_body: bool

    @property
    def script(self) -> str:
        """The name of the script's entry."""
        return f"{self.stream or 'unary'}_{self.request}"

    @property
    def request(self) -> str:
        """What the script does with a request."""
        return "checked" if self.json_body else "unchecked"


class GrpcTranscoding(Policy[TranscodingSettings]):
    """Compiled into Envoy's transcoder and a script."""

    key = "grpc_transcoding"
    stage = Stage.TRANSCODE
    settings = TranscodingSettings
    enforced_by = "Envoy (grpc_json_transcoder, Lua)"
    rule_types = (METHODS,)
    reasons = (
        Reason(
            name=CONFLICT,
            title="A query parameter repeats a part of the path",
            status=400,
            when=f"xds.route_name.startsWith('{BAD_REQUEST}') && xds.route_name.endsWith('/{CONFLICT}') && "
            "response.code_details == 'direct_response'",
            detail="Write the value in the path only.",
        ),
        Reason(
            name=INVALID,
            title="The request does not fit the message of the method",
            status=400,
            when=f"response.code == 400 && ({_FAILED} || has(metadata.filter_metadata['{SCRIPT}'].fault))",
            detail_from_body=True,
        ),
        Reason(
            name="not_found",
            title="No route matches this request",
            status=404,
            when=f"response.code == 404 && ({_FAILED})",
        ),
        Reason(
            name="invalid_response",
            title="The upstream's response cannot be transcoded",
            status=502,
            when=f"response.code >= 500 && ({_FAILED})",
        ),
    )

    def http_filters(self, used: Iterable[TranscodingSettings], context: Context) -> tuple[HttpFilter, ...]:
        script = lua_pb2.Lua(clear_route_cache=wrappers_pb2.BoolValue(value=False))
        for name, text in _scripts().items():
            script.source_codes[name].inline_string = text
        return (
            HttpFilter(name=CLEANER, config=_cleaner()),
            HttpFilter(name=ERRORS, config=_errors()),
            HttpFilter(name=SCRIPT, config=script),
            HttpFilter(name=TRAILERS, config=grpc_web_pb2.GrpcWeb()),
            HttpFilter(name=STREAM_TYPES, config=_stream_types()),
            HttpFilter(name=FILTER, config=_idle()),
        )

    def check(self, settings: TranscodingSettings, context: Context) -> Iterator[Mistake]:
        shape = context.shape
        if shape is not None:
            yield from context.needs_http2()
            if shape.rewrites_path:
                remedy = "remove rewrite.path; 'prefix' adds a path before those of the rules"
                yield Mistake("transcoding sets the path of the request to the method's", remedy)
            if shape.upgrades:
                yield Mistake("a WebSocket cannot be transcoded", "remove 'websocket' from the route")
        yield from rules.check(settings, context)
        found = rules.found(settings, context)
        if shape is not None and found is not None and not _reachable(found.rules, shape.path):
            templates_of = sorted({rule.template.text for rule in found.rules})
            yield Mistake(NO_METHOD, "write a path of the route that covers them", value=templates_of[0])

    def exposes(self, settings: TranscodingSettings, context: Context) -> Iterable[str]:
        found = rules.found(settings, context)
        return dict.fromkeys(rule.name for rule in found.rules) if found is not None else ()

    def on_route(self, settings: TranscodingSettings, context: Context) -> RoutePart:
        found = rules.found(settings, context)
        assert found is not None, "mistakes are errors of the gateway"
        return RoutePart(variants=tuple(_variants(settings, found)))

    def rules(self, used: Iterable[TranscodingSettings], context: Context) -> Iterator[PolicyRule]:
        sources = (rules.methods_of(one, context) for one in used if one.for_policies)
        for name, source in sorted({source.name: source for source in sources if source is not None}.items()):
            yield PolicyRule(type=METHODS, name=name, value=source)

    def for_local_answers(self, settings: TranscodingSettings) -> TranscodingSettings | None:
        return None


def _reachable(found: Iterable[Rule], path: str) -> bool:
    compiled = re2.compile(path)
    return any(compiled.fullmatch(rule.template.example) for rule in found)


def _variants(settings: TranscodingSettings, found: Rules) -> Iterator[Variant]:
    """Yield the kinds of requests of a route, in the order in which Envoy tries them. The last has all others."""
    verbs = not settings.colons_in_ids
    yield from native(found.rules)
    bound = [rule for rule in found.rules if rule.bound]
    for path in _chunks(bound, lambda rule: _conflicts(rule, verbs=verbs)):
        methods = tuple(sorted({rule.verb for rule in bound}))
        yield Variant(name=CONFLICT, status=400, methods=methods, path=path, has_query=True)
    described = descriptors.with_rules(found.linked, found.annotations)
    kinds: dict[_Kind, list[Rule]] = {}
    for rule in found.rules:
        kinds.setdefault(_kind(rule, settings), []).append(rule)
    for kind, some in sorted(kinds.items(), key=lambda one: (one[0].verb, one[0].script)):
        for path in _chunks(some, lambda rule: rule.template.regex(verbs=verbs) + _QUERY):
            part = RoutePart(
                filter_configs={
                    FILTER: _transcoder(settings, found.services, described, kind),
                    **_script(kind, some, settings),
                },
                response_headers=(header(_ID, "%REQ(X-REQUEST-ID)%"),),
                response_headers_to_remove=("grpc-accept-encoding", "grpc-encoding"),
                buffer=settings.max_message if kind.json_body else 0,
            )
            yield Variant(methods=(kind.verb,), path=path, part=part)
    yield from _not_allowed(found.rules, verbs=verbs)
    yield Variant(status=404)


def _kind(rule: Rule, settings: TranscodingSettings) -> _Kind:
    stream = "" if not rule.method.server_streaming else "raw" if rule.raw else settings.streams
    return _Kind(rule.verb, stream, rule.json_body)


def native(found: Iterable[Rule], part: RoutePart = NOTHING) -> Iterator[Variant]:
    """Yield the calls of gRPC clients: those of the methods, with `part`, and a rejection of all others."""
    names = sorted({rule.name for rule in found})
    for path in _chunks(names, lambda name: f"/{re2.escape(name)}{_QUERY}"):
        yield Variant(methods=("POST",), path=path, content_type=_GRPC, part=part)
    yield Variant(status=404, content_type=_GRPC)


def plain(found: Iterable[Rule], part: RoutePart) -> Iterator[Variant]:
    """Yield the requests with JSON that stand for the methods, with `part`."""
    rules_of: dict[str, list[Rule]] = {}
    for rule in found:
        rules_of.setdefault(rule.verb, []).append(rule)
    for verb, some in sorted(rules_of.items()):
        for path in _chunks(some, lambda rule: rule.template.regex(verbs=False) + _QUERY):
            yield Variant(methods=(verb,), path=path, content_type="application/json", part=part)


def uncovered(found: Iterable[Rule], context: Context) -> Iterator[str]:
    """Yield the paths of methods and of their rules that the checked route does not have."""
    if context.shape is None:
        return
    compiled = re2.compile(context.shape.path)
    for rule in found:
        for path in (f"/{rule.name}", rule.template.example):
            if not compiled.fullmatch(path):
                yield path


def _chunks(some: Iterable[Any], regex: Callable[[Any], str]) -> Iterator[str]:
    """Yield expressions that together match what those of `some` match. Each is small enough for Envoy."""
    parts: list[str] = []
    size = 0
    for part in dict.fromkeys(regex(one) for one in some):
        own = re2.compile(part).programsize
        if parts and size + own > _LARGEST:
            yield "|".join(parts)
            parts, size = [], 0
        parts.append(part)
        size += own
    if parts:
        yield "|".join(parts)


def _conflicts(rule: Rule, *, verbs: bool) -> str:
    """The paths in which a query parameter has the name of a field that the path binds.

    Envoy would let the parameter win. A policy that read the path would then have decided on another value.
    """
    names = "|".join(text for bound in rule.bound for text in templates.spellings(bound))
    return rf"{rule.template.regex(verbs=verbs)}\?(?:.*&)?(?:{names})(?:[=&].*)?"


def _not_allowed(found: Iterable[Rule], *, verbs: bool) -> Iterator[Variant]:
    """Yield 405 for the paths of the rules, with the methods of all rules for the same path."""
    found = tuple(found)
    compiled = {rule.template.regex(verbs=verbs): rule.template for rule in found}
    methods: dict[str, set[str]] = {}
    for regex, template in compiled.items():
        for rule in found:
            if re2.compile(rule.template.regex(verbs=verbs)).fullmatch(template.example):
                methods.setdefault(regex, set()).add(rule.verb)
    groups: dict[tuple[str, ...], list[str]] = {}
    for regex in sorted(compiled, key=lambda one: (_breadth(compiled[one]), one)):
        groups.setdefault(tuple(sorted(methods[regex])), []).append(regex)
    for allow, regexes in groups.items():
        for path in _chunks(regexes, lambda regex: regex + _QUERY):
            yield Variant(status=405, path=path, allow=allow)


def _breadth(template: templates.Template) -> tuple[int, int]:
    """The specific templates first."""
    return template.segments.count("**"), template.segments.count("*")


def _transcoder(
    settings: TranscodingSettings, services: Iterable[str], described: bytes, kind: _Kind
) -> transcoder_pb2.GrpcJsonTranscoder:
    """The transcoder for a kind of requests. Envoy 1.36 sends every response as `text/event-stream` if one kind is."""
    spec = transcoder_pb2.GrpcJsonTranscoder
    size = wrappers_pb2.UInt32Value(value=settings.max_message)
    return spec(
        proto_descriptor_bin=described,
        services=sorted(services),
        print_options=spec.PrintOptions(
            always_print_primitive_fields=settings.json.default_values,
            always_print_enums_as_ints=settings.json.enums == "numbers",
            preserve_proto_field_names=settings.json.names == "proto",
            stream_newline_delimited=kind.stream == "ndjson",
            stream_sse_style_delimited=kind.stream == "sse",
        ),
        match_incoming_request_route=True,
        ignored_query_parameters=sorted(set(settings.ignore_query)),
        convert_grpc_status=True,
        url_unescape_spec=spec.ALL_CHARACTERS_EXCEPT_SLASH,
        query_param_unescape_plus=True,
        match_unregistered_custom_verb=not settings.colons_in_ids,
        request_validation_options=spec.RequestValidationOptions(
            reject_unknown_method=True,
            reject_unknown_query_parameters=True,
            reject_binding_body_field_collisions=True,
        ),
        max_request_body_size=size,
        max_response_body_size=size,
    )


def _idle() -> transcoder_pb2.GrpcJsonTranscoder:
    """The transcoder without services. Envoy requires that even an idle one has descriptors."""
    return transcoder_pb2.GrpcJsonTranscoder(proto_descriptor_bin=descriptors.smallest())


def _script(kind: _Kind, found: Iterable[Rule], settings: TranscodingSettings) -> dict[str, Message]:
    """The script of a kind of requests, and the filters without which it costs too much or sees too little."""
    on = route_components_pb2.FilterConfig(config=any_pb2.Any())  # enables the filter as it is installed
    plain = not kind.stream and not settings.trailing_metadata
    configs: dict[str, Message] = {CLEANER: on, ERRORS: on} if plain else {}
    if kind.stream in ("ndjson", "sse"):
        configs |= {TRAILERS: on, STREAM_TYPES: on}
    own = lua_pb2.LuaPerRoute(name=kind.request if plain else kind.script)
    some = list(found)
    verbs, names = not settings.colons_in_ids, settings.unknown_fields == "reject"
    known = bodies.table(some, verbs=verbs, names=names) | {"aliases": _aliases(some)}
    context = struct_pb2.Struct()
    context.update({"messages": lua(known)})
    own.filter_context.CopyFrom(context)
    configs[SCRIPT] = own
    return configs


def _errors() -> extension_matcher_pb2.ExtensionWithMatcher:
    """The script for errors, which no response with the status 200 waits for."""
    script = lua_pb2.Lua(clear_route_cache=wrappers_pb2.BoolValue(value=False))
    script.default_source_code.inline_string = f"{_preamble()}\nenvoy_on_response = unary\n"
    result = extension_matcher_pb2.ExtensionWithMatcher()
    result.extension_config.name = SCRIPT
    result.extension_config.typed_config.Pack(script)
    tree = result.xds_matcher.matcher_tree
    tree.input.name = "status"
    tree.input.typed_config.Pack(http_inputs_pb2.HttpResponseHeaderMatchInput(header_name=":status"))
    action = tree.exact_match_map.map["200"].action
    action.name = "skip"
    action.typed_config.Pack(skip_action_pb2.SkipFilter())
    return result


def _cleaner() -> header_mutation_pb2.HeaderMutation:
    """Remove the headers of gRPC, and the header for the script."""
    mutations = header_mutation_pb2.Mutations()
    for name in (_ID, "grpc-status", "grpc-message"):
        mutations.response_mutations.add(remove=name)
    return header_mutation_pb2.HeaderMutation(mutations=mutations)


def _aliases(found: Iterable[Rule]) -> Mapping[str, str]:
    """The names of bound fields in JSON, by their names in the .proto file where they differ."""
    parts = {part for rule in found for bound in rule.bound for part in bound}
    return {name: json_name for name, json_name in sorted(parts) if name != json_name}


def _stream_types() -> header_mutation_pb2.HeaderMutation:
    """Content types with which the filter between script and transcoder appends the trailers to the stream."""
    mutations = header_mutation_pb2.Mutations()
    mutations.request_mutations.add(append=header("content-type", "application/json"))
    streamed = "%CEL(response.code == 200 ? 'application/grpc-web+proto' : response.headers['content-type'])%"
    option = base_pb2.HeaderValueOption(append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS)
    option.header.key, option.header.value = "content-type", streamed
    mutations.response_mutations.add(append=option)
    return header_mutation_pb2.HeaderMutation(mutations=mutations)


def _preamble() -> str:
    """The functions of the script, and the constants that they need."""
    framing = lua(dict.fromkeys(sorted(HEADERS), True))
    return f"local FRAMING = {framing}\nlocal ID = {lua(_ID)}\n{_LUA}"


def _scripts() -> Mapping[str, str]:
    """The script with each of its entries, by name."""
    result: dict[str, str] = {}
    for request in ("checked", "unchecked"):
        entry = f"envoy_on_request = {request}"
        result[request] = f"{entry}\n"
        for kind in ("unary", "raw"):
            result[f"{kind}_{request}"] = f"envoy_on_response = {kind}\n{entry}\n"
        for stream in ("ndjson", "sse"):
            result[f"{stream}_{request}"] = f"envoy_on_response = {stream}\n{entry}_stream\n"
    return {name: f"{_preamble()}\n{entry}" for name, entry in sorted(result.items())}
