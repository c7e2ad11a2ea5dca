"""The limits of operations of GraphQL, as a user writes them."""

from __future__ import annotations

from dataclasses import dataclass

from filters.language import Size, option


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphqlLimits:
    """What an operation may have. All but `calls` are checked before anything runs."""

    request: Size = option(
        "The size of the largest body of a request: documents, variables and all.",
        default=Size(1_000_000),
        minimum=1,
        maximum=16_000_000,
    )
    document: Size = option(
        "The size of the largest document.", default=Size(100_000), minimum=1, maximum=10_000_000
    )
    tokens: int = option("Tokens of a document.", default=2000, minimum=1, maximum=100_000)
    depth: int = option("Fields within fields.", default=15, minimum=1, maximum=100)
    aliases: int = option(
        "Aliases, each as often as its fragment is used.", default=30, minimum=0, maximum=10_000
    )
    cost: int = option(
        "The cost of an operation: the weights of its fields (`@cost`), times the sizes of their lists (`@listSize`).",
        default=1000,
        minimum=1,
        maximum=1_000_000_000,
    )
    list_size: int = option(
        "The elements that a list without `@listSize` is assumed to have.",
        default=10,
        minimum=1,
        maximum=100_000,
    )
    operations: int = option(
        "Operations in one request, sent as a JSON array.", default=1, minimum=1, maximum=100
    )
    variables_depth: int = option(
        "Levels of the values of the variables that an operation declares.",
        default=10,
        minimum=1,
        maximum=100,
    )
    calls: int = option("Calls to upstreams for one request.", default=100, minimum=1, maximum=10_000)
    parallel: int = option("Calls to upstreams at the same time.", default=20, minimum=1, maximum=1000)

    @property
    def most_cost(self) -> int:
        """The most that a request may cost: that of all its operations."""
        return self.cost * self.operations
