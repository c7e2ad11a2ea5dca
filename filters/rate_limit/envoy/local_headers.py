"""What clients are told of local limits: Envoy's own figures, as they are told of all other limits.

Envoy writes its figures into X-RateLimit headers when an answer passes its filter, with a reset in seconds from now. The
filter here stands before it, so that it sees the answer after it.
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
"""What would end a string of CEL or a format, which headers may have in their names."""
_LIMIT, _LEFT, _RESET = "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"


def http_filter() -> HttpFilter:
    """What every listener carries."""
    return HttpFilter(name=FILTER, config=header_mutation_pb2.HeaderMutation())


def on_route(
    places: Collection[tuple[str, Limit]], styles: Collection[str]
) -> header_mutation_pb2.HeaderMutationPerRoute:
    """What a route carries: the figures in the styles that are asked for. Nothing is added where Envoy told none."""
    buckets = [_bucket(place, limit) for place, limit in places]
    result = header_mutation_pb2.HeaderMutationPerRoute()
    mutations = result.mutations.response_mutations
    if client_headers.IETF in styles:
        policies = ", ".join(map(client_headers.policy, buckets)).replace("%", "%%")
        mutations.extend(_beside(_LIMIT, "ratelimit-policy", policies))
        name = _told_of(buckets)
        if name:
            mutations.extend(_beside(_LEFT, "ratelimit", f"{name};r=%RESP({_LEFT})%;t=%RESP({_RESET})%"))
    if client_headers.X_RATELIMIT in styles:
        mutations.append(_replaced(_RESET, f"%CEL(int(request.time) + int(response.headers['{_RESET}']))%"))
    else:
        mutations.extend(Mutation(remove=name) for name in (_LIMIT, _LEFT, _RESET))
    return result


def _bucket(place: str, limit: Limit) -> TokenBucket:
    return TokenBucket(
        name=name_of(place, limit), amount=limit.requests, per=limit.per, burst=limit.burst or limit.requests
    )


def _beside(present: str, name: str, value: str) -> Iterator[Mutation]:
    """A header that is there where another one is: a value that is empty adds none, and replacing adds none either."""
    yield Mutation(append=header(name, f"%RESP({present})%"))
    yield _replaced(name, value)


def _replaced(name: str, value: str) -> Mutation:
    option = header(name, value)
    option.append_action = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS
    return Mutation(append=option)


def _told_of(buckets: Sequence[TokenBucket]) -> str:
    """Whose figures Envoy tells, as a name in a format: it says the size only. Empty where sizes do not tell them apart."""
    names = {one.burst: client_headers.string(one.name) for one in buckets}
    if len(names) < len(buckets) or any(_UNSAFE.search(one) for one in names.values()):
        return ""
    if len(names) == 1:
        return names[buckets[0].burst]
    *rest, last = names.items()
    choice = "".join(f"response.headers['{_LIMIT}'] == '{size}' ? '{name}' : " for size, name in rest)
    return f"%CEL({choice}'{last[1]}')%"
