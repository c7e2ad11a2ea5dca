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


def on_route(most: int) -> pb.Config:
    """The configuration of a route that needs it, whose requests cost at most `most`.

    A request costs `most` until its response begins, so a client that leaves before does not get its calls for nothing. A
    response without the header is none of the composer's, and costs nothing.
    """
    return pb.Config(
        request_rules=[pb.Config.Rule(header=":path", on_header_present=_cost(str(most)))],
        response_rules=[
            pb.Config.Rule(
                header=GRAPHQL_COST_HEADER, on_header_present=_cost(""), on_header_missing=_cost("0")
            )
        ],
    )


def _cost(value: str) -> pb.Config.KeyValuePair:
    """What is set: the value, or that of the header if it is empty."""
    return pb.Config.KeyValuePair(
        metadata_namespace=COST_NAMESPACE, key=GRAPHQL, value=value, type=pb.Config.STRING
    )
