"""Envoy's ext_proc filter, and its configuration on a route for all processors of the route."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_proc.v3 import ext_proc_pb2 as pb
from google.protobuf import duration_pb2, wrappers_pb2

from filters.model.identity import NAMESPACE
from filters.policy import NOTHING, Context, HttpFilter, RoutePart
from filters.policy_server import grpc_service
from filters.processing.names import CHAIN, FILTER, NOTES
from filters.processing.phases import BUFFERED, Phase, mode
from filters.processing.processor import Use, Uses
from filters.reasons import DETAILS

ORDER = ("waf", "validate", "ext_proc")
"""Keys of policies that may have processors, in the order in which these process requests. Responses have the reverse."""
_BEYOND = 64 << 10
"""Bytes of a body that Envoy buffers beyond the largest one, so that the policy server rejects it and tells the reason."""
_MARGIN = timedelta(seconds=2)
"""The time that Envoy waits longer than the policy server does, which answers with the reason."""


def http_filter(longest: timedelta) -> HttpFilter:
    """The filter. `longest` is the longest time limit of a processor.

    Envoy's own time limit holds for the whole filter, so the policy server enforces that of each route.
    """
    limit = duration_pb2.Duration()
    limit.FromTimedelta(longest + _MARGIN)
    config = pb.ExternalProcessor(
        grpc_service=grpc_service(),
        message_timeout=limit,
        response_attributes=[DETAILS],
        allow_mode_override=True,
        mutation_rules=mutation_rules_pb2.HeaderMutationRules(
            allow_all_routing=wrappers_pb2.BoolValue(value=False)
        ),
        route_cache_action=pb.ExternalProcessor.RETAIN,
        stat_prefix="processors",
    )
    config.metadata_options.forwarding_namespaces.untyped.append(NAMESPACE)
    config.metadata_options.receiving_namespaces.untyped.append(NOTES)
    config.processing_mode.CopyFrom(mode({Phase.RESPONSE_HEADERS}))
    return HttpFilter(name=FILTER, config=config, dynamic=True)


def uses(context: Context) -> tuple[Use, ...]:
    """The processors of a route, in their order."""
    return tuple(_uses(context))


def _uses(context: Context) -> Iterator[Use]:
    for key in ORDER:
        settings = context.effective.get(key)
        if isinstance(settings, Uses):
            yield from settings.uses(context)
    if context.mock is not None:
        yield from context.mock.uses(context)


def on_route(context: Context) -> RoutePart:
    """The configuration of a route. It has none without processors."""
    chain = uses(context)
    if not chain:
        return NOTHING
    phases = frozenset(phase for use in chain for phase in use.phases)
    overrides = pb.ExtProcOverrides(processing_mode=mode(phases))
    overrides.failure_mode_allow.value = all(use.lenient for use in chain)
    overrides.grpc_initial_metadata.append(base_pb2.HeaderValue(key=CHAIN, value=_text(chain, context)))
    largest = max((use.max_body for use in chain if BUFFERED.intersection(use.phases)), default=0)
    return RoutePart(
        filter_configs={FILTER: pb.ExtProcPerRoute(overrides=overrides)},
        buffer=largest + _BEYOND if largest else 0,
    )


def _text(chain: tuple[Use, ...], context: Context) -> str:
    """The chain as the policy server reads it (`service.chain`)."""
    members = [
        [
            use.type.name,
            use.rule,
            sorted(use.phases),
            use.timeout.total_seconds(),
            use.max_body,
            use.lenient,
        ]
        for use in chain
    ]
    written = {"chain": members, "path": context.path_regex, "route": context.route}
    text = json.dumps(written, separators=(",", ":"), sort_keys=True)
    return text.replace("%", "\\u0025")  # Envoy may read a percent sign as the beginning of an operator
