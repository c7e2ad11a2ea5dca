"""grpc_reverse_transcoding: gRPC clients call methods that a REST service implements.

Envoy's grpc_json_reverse_transcoder writes each message as the HTTP request of its google.api.http rule, and reads the
JSON of the response. It knows unary methods only. Then Envoy looks for the route of the HTTP request, so the route has
to have the paths of the rules too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envoy.extensions.filters.http.grpc_json_reverse_transcoder.v3 import transcoder_pb2
from google.protobuf import wrappers_pb2

from filters.grpc_transcoding import descriptors, rules
from filters.grpc_transcoding.policy import native, plain, uncovered
from filters.grpc_transcoding.settings import ReverseSettings
from filters.language import Mistake
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage, Variant

FILTER = "envoy.filters.http.grpc_json_reverse_transcoder"
_LARGEST = 4 * 1024 * 1024
"""Bytes of a message, as most gRPC libraries limit it."""
_OF_GRPC = ("grpc-accept-encoding", "grpc-encoding", "te")


class GrpcReverseTranscoding(Policy[ReverseSettings]):
    """Compiled into Envoy's reverse transcoder."""

    key = "grpc_reverse_transcoding"
    stage = Stage.TRANSCODE
    settings = ReverseSettings
    enforced_by = "Envoy (grpc_json_reverse_transcoder)"

    def http_filters(self, used: Iterable[ReverseSettings], context: Context) -> tuple[HttpFilter, ...]:
        idle = transcoder_pb2.GrpcJsonReverseTranscoder(descriptor_binary=descriptors.smallest())
        return (HttpFilter(name=FILTER, config=idle),)

    def check(self, settings: ReverseSettings, context: Context) -> Iterator[Mistake]:
        yield from rules.check(settings, context)
        if "grpc_transcoding" in context.effective:
            yield Mistake("this is the reverse of grpc_transcoding on the same route", "keep one")
        found = rules.found(settings, context)
        some = list(_unary(found.rules)) if found is not None else []
        if found is not None and not some:
            message = "every method is a stream, and Envoy cannot transcode one for a REST service"
            yield Mistake(message, "add a unary method")
        for path in uncovered(some, context):
            message = "the route has to have the paths of the methods and of their rules"
            yield Mistake(
                message, "write path: /*, and 'hosts' to keep it apart from other routes", value=path
            )
            break

    def on_route(self, settings: ReverseSettings, context: Context) -> RoutePart:
        found = rules.found(settings, context)
        assert found is not None, "mistakes are errors of the gateway"
        size = wrappers_pb2.UInt32Value(value=_LARGEST)
        config = transcoder_pb2.GrpcJsonReverseTranscoder(
            descriptor_binary=descriptors.with_rules(found.linked, found.annotations),
            max_request_body_size=size,
            max_response_body_size=size,
        )
        part = RoutePart(filter_configs={FILTER: config}, request_headers_to_remove=_OF_GRPC)
        some = list(_unary(found.rules))
        return RoutePart(variants=(*native(some, part), *plain(some, part), Variant(status=404)))

    def for_local_answers(self, settings: ReverseSettings) -> ReverseSettings | None:
        return None


def _unary(some: Iterable[rules.Rule]) -> Iterator[rules.Rule]:
    return (one for one in some if not (one.method.client_streaming or one.method.server_streaming))
