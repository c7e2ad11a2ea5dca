"""authentication: a route's ways to authenticate, any or all of which are required.

This module also removes headers by which a client could pretend to be another caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from google.protobuf.message import Message

from filters.identity.script import identity_part
from filters.language import Mistake
from filters.model.identity import CLIENTS_OWN, IDENTITY_HEADERS, variants
from filters.model.methods import failure, methods
from filters.policy import NOTHING, Context, HttpFilter, Policy, RoutePart, Stage
from filters.rate_limit import one_call

FILTER = "xds.identity.headers"
_KEPT = (
    *CLIENTS_OWN,
    *("x-api-key", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-envoy-external-address"),
    "traceparent",
)
Settings = Literal["any", "all"]


def protected(context: Context) -> tuple[str, ...]:
    """Headers that only the gateway sets, sorted. They include variants with underscores, because some servers read
    those as hyphens."""
    return tuple(
        sorted({*IDENTITY_HEADERS, *(variant for name in _claims(context) for variant in variants(name))})
    )


def _claims(context: Context) -> set[str]:
    return {
        name.lower() for provider in context.providers.values() for name in provider.claim_headers.values()
    }


def without(names: Iterable[str], *, responses: Iterable[str] = ()) -> Mapping[str, Message]:
    """The configuration of a route on which only the gateway sets these headers too. A * at the end matches any rest.

    Headers that the upstream needs from the client, such as credentials, stay. A pattern that matches one of them
    removes no header. `responses` are headers to remove from responses.
    """
    wanted = sorted({name.lower() for name in names})
    removed = [
        mutation_rules_pb2.HeaderMutation(remove=variant)
        for name in wanted
        if not name.endswith("*") and name not in CLIENTS_OWN
        for variant in variants(name)
    ]
    for prefix in (name[:-1] for name in wanted if name.endswith("*")):
        if not any(kept.startswith(prefix) for kept in _KEPT):
            mutation = mutation_rules_pb2.HeaderMutation()
            mutation.remove_on_match.key_matcher.prefix = prefix
            removed.append(mutation)
    config = header_mutation_pb2.HeaderMutationPerRoute()
    config.mutations.request_mutations.extend(removed)
    config.mutations.request_trailers_mutations.extend(removed)
    config.mutations.response_mutations.extend(
        mutation_rules_pb2.HeaderMutation(remove=name) for name in sorted(responses)
    )
    return {FILTER: config} if removed or responses else {}


class Authentication(Policy[Settings]):
    """Gives the identity script the rule of a route, for all methods of the route at once.

    It also removes the identity headers of the client, before other filters and the upstream read them. Listeners
    remove those of the consumer and its plan. The filter of this policy removes claim headers and trailers, so it runs
    only if the gateway has claim headers, or an upstream that may receive trailers.
    """

    key = "authentication"
    stage = Stage.AUTHENTICATE
    settings = Settings
    reasons = (
        failure("credentials_missing", "Authentication is required"),
        failure("consumers_differ", "The credentials belong to different consumers"),
        failure("identity_failed", "Authentication failed because of an internal error", 500),
    )

    def check(self, settings: Settings, context: Context) -> Iterable[Mistake]:
        """Yield a mistake for `all` with an optional way to authenticate."""
        optional = [key for key, one in methods(context.effective).items() if one.optional]
        if settings == "all" and optional:
            yield Mistake(f"'all' does not go with optional '{optional[0]}'", "remove one of them")

    def http_filters(self, used: Iterable[Settings], context: Context) -> tuple[HttpFilter, ...]:
        config = header_mutation_pb2.HeaderMutation()
        removed = [mutation_rules_pb2.HeaderMutation(remove=name) for name in protected(context)]
        config.mutations.request_mutations.extend(removed)
        config.mutations.request_trailers_mutations.extend(removed)
        return (HttpFilter(name=FILTER, config=config, dynamic=True),)

    def on_all_routes(self, context: Context) -> Mapping[str, Message]:
        needed = context.trailers or bool(_claims(context))
        return {FILTER: header_mutation_pb2.HeaderMutationPerRoute()} if needed else {}

    def own_headers(self, context: Context) -> Iterable[str]:
        return protected(context)

    def on_route(self, settings: Settings, context: Context) -> RoutePart:
        return self.off_route(context)

    def off_route(self, context: Context) -> RoutePart:
        if not methods(context.effective):
            return NOTHING
        return identity_part(context, limits=one_call.key_decides(context))
