"""The cost of operations of GraphQL: Envoy copies it from a header of the response into metadata, which descriptors can read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envoy.extensions.filters.http.header_to_metadata.v3 import header_to_metadata_pb2 as pb

from filters.model.limits import GRAPHQL, GRAPHQL_COST_HEADER
from filters.policy import HttpFilter
from filters.rate_limit.envoy.descriptors import COST_NAMESPACE
from filters.rate_limit.limit_rules import DeclaredLimit, counts_graphql

FILTER = "xds.graphql_cost"


def http_filters(limits: Iterable[DeclaredLimit]) -> Iterator[HttpFilter]:
    """The filter, if one of all limits of the gateway needs it: other gateways have no use for one more filter."""
    if counts_graphql(limits):
        yield HttpFilter(name=FILTER, config=pb.Config())


def on_route() -> pb.Config:
    """The configuration of a route that needs it."""
    value = pb.Config.KeyValuePair(metadata_namespace=COST_NAMESPACE, key=GRAPHQL, type=pb.Config.STRING)
    return pb.Config(response_rules=[pb.Config.Rule(header=GRAPHQL_COST_HEADER, on_header_present=value)])
