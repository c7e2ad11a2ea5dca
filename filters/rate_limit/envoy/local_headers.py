"""The headers of local limits for clients: Envoy's own figures, in the same form as for all other limits.

Envoy's filter writes its figures into X-RateLimit headers of the response, with a reset in seconds from now. The filter
of this module is before it in the chain, so it processes the response after it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2

from filters.model.limits import Limit
from filters.policy import HttpFilter, header
from filters.rate_limit import client_headers
from filters.rate_limit.engine.algorithms import TokenBucket
from filters.rate_limit.limit_rules import name_of

FILTER = "xds.rate_limit.local.headers"
Mutation = mutation_rules_pb2.HeaderMutation
_UNSAFE = re.compile(r"['%\\\\]")
"""Characters that would end a string of CEL or a format. Names of headers may contain them."""
_LIMIT, _LEFT, _RESET = "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"


def http_filter() -> HttpFilter:
    """The filter of every listener."""
    return HttpFilter(name=FILTER, config=header_mutation_pb2.HeaderMutation())


def on_route(
    places: Collection[tuple[str, Limit]], styles: Collection[str]
) -> header_mutation_pb2.HeaderMutationPerRoute:
    """The filter configuration of a route: figures in these styles. If Envoy added no figures, no header is added."""
    buckets = [_bucket(place, limit) for place, limit in places]
    result = header_mutation_pb2.HeaderMutationPerRoute()
    mutations = result.mutations.response_mutations
    if client_headers.IETF in styles:
        policies = ", ".join(map(client_headers.policy, buckets)).replace("%", "%%")
        mutations.extend(_if_present(_LIMIT, "ratelimit-policy", policies))
        name = _shown_limit(buckets)
        if name:
            mutations.extend(_if_present(_LEFT, "ratelimit", f"{name};r=%RESP({_LEFT})%;t=%RESP({_RESET})%"))
    if client_headers.X_RATELIMIT in styles:
        mutations.append(_replaced(_RESET, f"%CEL(int(request.time) + int(response.headers['{_RESET}']))%"))
    else:
        mutations.extend(Mutation(remove=name) for name in (_LIMIT, _LEFT, _RESET))
    return result


def _bucket(place: str, limit: Limit) -> TokenBucket:
    return TokenBucket(
        name=name_of(place, limit), amount=limit.requests, per=limit.per, burst=limit.burst or limit.requests
    )


def _if_present(present: str, name: str, value: str) -> Iterator[Mutation]:
    """Add a header only if the header `present` exists, because an empty value and its replacement add none."""
    yield Mutation(append=header(name, f"%RESP({present})%"))
    yield _replaced(name, value)


def _replaced(name: str, value: str) -> Mutation:
    option = header(name, value)
    option.append_action = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS
    return Mutation(append=option)


def _shown_limit(buckets: Sequence[TokenBucket]) -> str:
    """The name of the limit whose figures Envoy shows, as a format. Envoy shows only its size.

    The result is empty if two limits have the same size.
    """
    names = {bucket.burst: client_headers.string(bucket.name) for bucket in buckets}
    if len(names) < len(buckets) or any(_UNSAFE.search(one) for one in names.values()):
        return ""
    if len(names) == 1:
        return names[buckets[0].burst]
    *rest, last = names.items()
    choice = "".join(f"response.headers['{_LIMIT}'] == '{size}' ? '{name}' : " for size, name in rest)
    return f"%CEL({choice}'{last[1]}')%"
