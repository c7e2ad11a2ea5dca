"""Results that are kept as long as nothing has changed that they were computed from. It does no IO.

After one change of a cluster, most objects are the same. A function that is `remembered` gets a cluster that notes what
the function reads of it. Its result for the same objects is used again if the cluster answers each of these reads as it
did before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")
_Read = tuple[str, tuple[Any, ...], Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """A result, with the objects that it was computed from, which keeps their ids from being used again."""

    objects: tuple[Any, ...]
    reads: tuple[_Read, ...]
    result: Any

    def holds(self, cluster: Any) -> bool:
        """True if the cluster answers every read as before."""
        for name, arguments, answer in self.reads:
            now = getattr(cluster, name)(*arguments)
            if now is not answer and now != answer:
                return False
        return True


class _Noted:
    """A cluster that notes which of its methods are called, with what, and what they return."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.reads: dict[tuple[str, tuple[Any, ...]], Any] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)

        def noted(*arguments: Any) -> Any:
            answer = self.reads[name, arguments] = method(*arguments)
            return answer

        return noted


class Memory:
    """Results by function and objects, which a `Cluster` has. What was not used in a whole translation is forgotten."""

    def __init__(self) -> None:
        self._before: dict[Any, _Entry] = {}
        self._now: dict[Any, _Entry] = {}

    def begin(self) -> None:
        """Begin a translation."""
        self._before, self._now = self._now, {}

    def result(self, function: Callable[..., Any], objects: tuple[Any, ...], cluster: Any) -> Any:
        """Return the result of a function of some objects and a cluster."""
        key = (function, *(one if isinstance(one, frozenset) else id(one) for one in objects))
        entry = self._now.get(key) or self._before.get(key)
        if entry is None or not entry.holds(cluster):
            noted = _Noted(cluster)
            result = function(*objects, noted)
            reads = tuple((name, arguments, answer) for (name, arguments), answer in noted.reads.items())
            entry = _Entry(objects, reads, result)
        self._now[key] = entry
        return entry.result


def remembered(function: Callable[P, T]) -> Callable[P, T]:
    """Remember the results of a function whose last argument is a cluster, and whose other arguments are never changed.

    These arguments are told apart by identity, and sets by their members.
    """

    @wraps(function)
    def asked(*arguments: Any) -> T:
        *objects, cluster = arguments
        if isinstance(cluster, _Noted):  # the function that is computed now reads the same of the cluster
            return function(*objects, cluster)  # type: ignore[call-arg,arg-type]
        return cast("T", cluster.memory.result(function, tuple(objects), cluster))

    return cast("Callable[P, T]", asked)
