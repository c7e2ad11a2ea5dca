"""The interface of stores of counters."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol, runtime_checkable

from filters.rate_limit.engine.algorithms import Counter
from filters.rate_limit.engine.decision import Hit, LimitDecision, Taken


class CounterStore(Protocol):
    """A store of counters: in memory, or remote. The results of a remote store are awaitable."""

    name: str

    def decide(self, now: int, hits: Sequence[Hit]) -> LimitDecision | Awaitable[LimitDecision]:
        """Admit and count all, or count nothing."""

    def charge(self, now: int, hits: Sequence[Hit]) -> Awaitable[None] | None:
        """Count costs that have occurred."""

    def give_back(self, now: int, taken: Sequence[Taken]) -> Awaitable[None] | None:
        """Give back a part of what decisions took, each in its window only."""

    def release(self, hits: Sequence[Hit]) -> Awaitable[None] | None:
        """Give slots back."""

    def reset(self, prefix: str) -> int:
        """Remove the counters whose key begins with `prefix`. Returns the number of them.

        It is called in another thread than the loop's. Raises OSError.
        """

    def close(self) -> Awaitable[None] | None:
        """Release the store's resources."""


@runtime_checkable
class Listed(Protocol):
    """A store that can list its counters."""

    def listed(self, prefix: str = "") -> tuple[int, list[tuple[str, Counter]]]:
        """The number of requests that did not count because memory was full, and the counters.

        It is called in another thread than the loop's.
        """
